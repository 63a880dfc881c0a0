"""How must a program end? A plain recursive interpreter of the definition, which knows nothing of facts, order or crashes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

from knotwork.flow import facts

if TYPE_CHECKING:
    from tests.unit.flow.programs import Program

WAITS = ("wait_for_event", "wait_for_signal", "approval")


class Fails(Exception):
    """A step did not do what it should."""


class Hangs(Exception):
    """A step never ends, until it is called off."""


@dataclass
class Verdict:
    """How a run must end; when it fails, `blamed` are the steps of which one is named, "" for the run itself."""

    state: str
    output: Any = None
    blamed: set[str] = field(default_factory=set)
    steps: dict[str, tuple[str, Any]] = field(default_factory=dict)
    next: Any = None
    """With what it starts itself anew: a list of one value, None when it does not."""


class Oracle:
    """One run of one workflow."""

    def __init__(self, program: Program, workflow: dict[str, Any], given: Any, where: str, run: str) -> None:
        self.program, self.workflow, self.given, self.where, self.run = program, workflow, given, where, run
        self.specs: dict[str, dict[str, Any]] = workflow["steps"]
        self.places = {name: place for place, name in enumerate(self.specs)}
        self.verdict = Verdict("completed")
        named = {spec.get(key) for spec in self.specs.values() for key in ("on_failure", "compensate")}
        self.handlers = {*named, workflow.get("on_failure")} - {None}
        self.barred: set[str] = set()
        self.chosen: dict[str, list[str]] = {}

    def judge(self) -> Verdict:
        verdict = self.verdict
        plain = [name for name in self.specs if name not in self.handlers]
        for name in plain:
            self.result(name)
        if not verdict.blamed and verdict.next is None:
            needed = {parent for name in plain for parent in self.specs[name].get("depends_on", ())}
            ends = [name for name in plain if name not in needed]
            if self.workflow.get("output") is not None:
                verdict.output = self.shaped(self.workflow["output"], plain)
            elif len(ends) == 1:
                verdict.output = verdict.steps[ends[0]][1]
            else:
                verdict.output = {name: verdict.steps[name][1] for name in ends}
            if self.workflow.get("output_schema"):
                verdict.blamed.add("")
        if verdict.next is not None:
            verdict.output = None
        if verdict.blamed:
            verdict.state, verdict.output, verdict.next = "failed", None, None
        return verdict

    def result(self, name: str) -> tuple[str, Any]:
        """Return how a step ends, and with what; `stopped` below one that fails the run."""
        if name not in self.verdict.steps:
            spec = self.specs[name]
            self.verdict.steps[name] = self.work_out(name, spec)
            cases = spec["cases"] if spec["kind"] == "choice" else ()
            self.barred |= {one for case in cases for one in case["then"]}.difference(self.chosen.get(name, ()))
        return self.verdict.steps[name]

    def work_out(self, name: str, spec: dict[str, Any]) -> tuple[str, Any]:
        parents = {parent: self.result(parent) for parent in spec.get("depends_on", ())}
        if any(state == "stopped" for state, _ in parents.values()):
            return "stopped", None
        if name in self.barred or (parents and all(state in ("skipped", "cancelled") for state, _ in parents.values())):
            return "skipped", None
        try:
            if spec.get("when") is not None and not true(self.evaluate(spec["when"], parents)):
                return "skipped", None
            return "completed", self.done(name, spec, parents)
        except Hangs:
            return "cancelled", None
        except Fails:
            return self.failed(name, spec)

    def failed(self, name: str, spec: dict[str, Any]) -> tuple[str, Any]:
        if (handler := spec.get("on_failure")) is not None:
            try:
                output = self.carried_out(handler, f"{handler}--{self.places[name]}", {"step": name}, step=name)
                if not spec.get("output_schema"):
                    return "completed", output
            except Fails:
                pass
        if spec.get("allow_failure"):
            return "failed", None
        self.verdict.blamed.add(name)
        return "stopped", None

    def done(self, name: str, spec: dict[str, Any], parents: dict[str, Any]) -> Any:  # noqa: C901, PLR0911, PLR0912
        """Return the output of a step whose turn has come."""
        kind = spec["kind"]
        if kind == "choice":
            return self.choice(name, spec, parents)
        given = self.input_of(spec, parents)
        match kind:
            case "join":
                done = {parent: output for parent, (state, output) in parents.items() if state == "completed"}
                need = {"any": 1, "all": 0}.get(spec.get("need", "all"), spec.get("need"))
                if len(done) < need:
                    raise Fails
                return done
            case "sleep":
                if spec.get("until") == "input.word":
                    raise Fails
                return given
            case "signal":
                if not isinstance(self.evaluate(spec["run"], parents), str):
                    raise Fails
                return given
            case "respond":
                return given
            case "continue_as_new":
                self.verdict.next = [given]
                return given
            case "map":
                output = self.mapped(name, spec, parents)
            case _ if kind in WAITS:
                return self.waited(name, spec)
            case _:
                output = self.carried_out(name, name, given)
        if spec.get("output_schema"):
            raise Fails
        return output

    def choice(self, name: str, spec: dict[str, Any], parents: dict[str, Any]) -> Any:
        given = self.input_of(spec, parents)
        for case in spec["cases"]:
            if case.get("when") is None or true(self.evaluate(case["when"], parents)):
                self.chosen[name] = case["then"]
                break
        return given

    def waited(self, name: str, spec: dict[str, Any]) -> Any:
        fate = self.program.fate(self.where, name)
        if fate == "come":
            return {"came": name}
        if fate == "never" and spec.get("timeout") is None:
            raise Hangs
        if fate == "never" and spec.get("on_timeout") == "value":
            return spec["timeout_value"]
        raise Fails

    def carried_out(self, name: str, token: str, given: Any, *, step: str | None = None) -> Any:
        """Return what an agent, or another run, gives; `step` is the one that it handles the failure of."""
        spec, at = self.specs[name], f"{self.where}/{token}"
        if spec["kind"] == "workflow":
            if spec.get("detach"):
                return {"run": facts.child_run(self.run, token)}
            return self.ran(self.program.workflows[spec["workflow"]], given, at, token)
        if spec["kind"] == "planner":
            return self.planned(name, given)
        fate = self.program.fate(self.where, token)
        if fate in ("fail", "hang"):
            raise Fails if fate == "fail" else Hangs
        if spec["kind"] == "agent":
            given = {"prompt": self.filled(spec["prompt"], step), "tools": spec["tools"], "input": given}
        return self.program.output(self.where, token, given)

    def ran(self, workflow: dict[str, Any], given: Any, at: str, token: str) -> Any:
        first = run = facts.child_run(self.run, token)
        verdict, number = Oracle(self.program, workflow, given, at, run).judge(), 0
        while verdict.next is not None:
            number += 1
            verdict = Oracle(self.program, workflow, verdict.next[0], at, facts.chained(first, number)).judge()
        if verdict.state != "completed":
            raise Fails
        return verdict.output

    def planned(self, name: str, given: Any) -> Any:
        token = f"{name}--plan"
        if self.program.fate(self.where, token) == "fail":
            raise Fails
        plan = self.program.output(self.where, token, given)
        allowed = isinstance(plan, dict) and len(plan["steps"]) <= 3
        if not allowed or any(
            one.get("capability", "work") != "work" or "workflow" in one for one in plan["steps"].values()
        ):
            raise Fails
        steps = {one: {"kind": "task", **spec} for one, spec in plan["steps"].items()}
        return self.ran({**plan, "steps": steps}, given, f"{self.where}/{name}", name)

    def mapped(self, name: str, spec: dict[str, Any], parents: dict[str, Any]) -> Any:
        items = self.evaluate(spec["items"], parents)
        if not isinstance(items, list) or len(items) > spec["max_items"]:
            raise Fails
        outputs: list[Any] = []
        for index, item in enumerate(items):
            token = f"{name}--{index}"
            given = item
            if spec.get("input") is not None:
                given = {"item": item, "index": index, "n": self.evaluate("input.n", ())}
            if self.program.fate(self.where, token) == "hang":
                raise Hangs
            failed = self.program.fate(self.where, token) == "fail"
            outputs.append(None if failed else self.program.output(self.where, token, given))
        allowed = spec["allowed_failures"]
        if allowed == "34%":
            allowed = len(items) * 34 // 100
        if outputs.count(None) > allowed:
            raise Fails
        return outputs

    # -- data --------------------------------------------------------------------------------------------------------

    def input_of(self, spec: dict[str, Any], parents: dict[str, Any]) -> Any:
        if spec.get("input") is not None and spec["kind"] != "map":
            return self.shaped(spec["input"], parents)
        if not parents:
            return self.given
        if len(parents) == 1:
            return next(iter(parents.values()))[1]
        return {name: output for name, (_, output) in parents.items()}

    def evaluate(self, text: str, names: Any, **more: Any) -> Any:
        steps = {name: {"state": self.result(name)[0], "output": self.result(name)[1]} for name in names}
        seen = {
            "input": self.given,
            "steps": steps,
            "run": {"id": self.run, "workflow": self.workflow.get("name")},
            **more,
        }
        try:
            return jmespath.search(text, seen)
        except JMESPathError as error:
            raise Fails from error

    def shaped(self, shape: Any, names: Any) -> Any:
        if isinstance(shape, str):
            return self.evaluate(shape, names)
        if isinstance(shape, dict):
            return {key: self.shaped(value, names) for key, value in shape.items()}
        return [self.shaped(value, names) for value in shape] if isinstance(shape, list) else shape

    def filled(self, prompt: str, step: str | None) -> str:
        def put(hole: re.Match[str]) -> str:
            value = self.evaluate(hole[1].strip(), (), step=step)
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()

        return re.sub(r"\{\{(.*?)\}\}", put, prompt)


def true(value: Any) -> bool:
    return not (value is None or value is False or value in ("", [], {}))

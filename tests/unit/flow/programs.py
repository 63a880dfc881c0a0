"""Random workflows of every kind of step, and what their workers, people and events will do: a program."""

from __future__ import annotations

import json
import random
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

NEVER = "300d"
"""A timeout that is not reached while anything else can still happen."""
CONDITIONS = ("input.flag", "!input.flag", "input.n > `3`", "input.none", "run.id")
VALUES = ("input.n", "input.word", "input.list", "`7`", "'text'")


@dataclass
class Program:
    """`workflows` by name; "main" is the one that is run. What becomes of a step stands in `fates`, by place and token."""

    seed: int
    input: Any
    workflows: dict[str, dict[str, Any]] = field(default_factory=dict)
    fates: dict[tuple[str, str], str] = field(default_factory=dict)
    plans: dict[tuple[str, str], Any] = field(default_factory=dict)
    fails: float = 0.0
    cancel: bool = False

    def fate(self, where: str, token: str) -> str:
        """Return what becomes of a step: `ok`, `fail`, `hang` (until it is ended), `come`, `reject`, `never`."""
        drawn = random.Random(f"{self.seed}/{where}/{token}").random()
        return self.fates.get((plain(where), token)) or ("fail" if drawn < self.fails else "ok")

    def output(self, where: str, token: str, given: Any) -> Any:
        """Return what a worker makes of what it was given; whoever is given something else makes something else."""
        if (plain(where), token) in self.plans:
            return self.plans[plain(where), token]
        return {"of": token, "sum": zlib.crc32(json.dumps(given, sort_keys=True).encode()), "ok": token[-1] > "3"}


def plain(where: str) -> str:
    """Return a place without the numbers of the steps that a handler was started for."""
    return re.sub(r"--\d+u?", "", where)


def program(seed: int, size: int) -> Program:
    """Return a program of up to `size` steps, the same for the same seed."""
    chance = random.Random(seed)
    given = {
        "n": chance.randrange(8), "flag": chance.random() < 0.5, "word": "w", "none": None, "empty": [],
        "list": [{"i": number} for number in range(chance.choice((0, 1, 3, 7)))],
    }  # fmt: skip
    made = Program(seed, given, fails=chance.choice((0, 0, 0, 0.05, 0.3)), cancel=chance.random() < 0.12)
    made.workflows["main"] = _Maker(made, chance, "main", "", depth=0).workflow(size)
    if chance.random() < 0.1:
        made.workflows["main"]["timeout"] = "50s"
    return made


class _Maker:
    """Makes one workflow. `where` is its place in the tree of runs: that of its parent, and the step there."""

    def __init__(self, made: Program, chance: random.Random, name: str, where: str, *, depth: int) -> None:
        self.made, self.chance, self.name, self.where, self.depth = made, chance, name, where, depth
        self.steps: dict[str, dict[str, Any]] = {}
        self.open: list[str] = []
        """Steps that others may depend on."""
        self.handlers: list[str] = []

    def workflow(self, size: int) -> dict[str, Any]:
        chance = self.chance
        limit = chance.choice((0, 0, 0, 1, 2, 5))
        for _ in range(chance.randint((size + 1) // 2, size)):
            if chance.random() < 0.12 and not limit:
                self._race()
            else:
                self._step()
        self._cases()
        for name in self.handlers:
            spec = self._worker(chance.choice(("task", "task", "agent", "agent_loop", "workflow")), name)
            self.steps[name] = {**spec, "input": {"step": "step"}}
            if spec["kind"] == "agent":
                self.steps[name]["prompt"] = "see to {{ step }}"
        made: dict[str, Any] = {"name": self.name, "steps": self.steps, "max_parallel": limit}
        if chance.random() < 0.2:
            made["output"] = {"a": f"steps.{chance.choice(self.open)}.output", "n": "input.n", "c": [1, None]}
        if chance.random() < 0.04:
            made["output_schema"] = {"not": {}} if chance.random() < 0.5 else {}
        if chance.random() < 0.25:
            made["on_failure"] = self._handler()
            self.steps.setdefault(made["on_failure"], self._worker("task", made["on_failure"]))
        return made

    # -- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        chance, name = self.chance, f"s{len(self.steps)}"
        kind = chance.choice((
            "task", "task", "task", "agent", "agent_loop", "map", "workflow", "sleep", "wait_for_event", "wait_for_signal",
            "signal", "approval", "planner", "respond", "choice", "join", "continue_as_new",
        ))  # fmt: skip
        parents = chance.sample(self.open, min(len(self.open), chance.choice((0, 1, 1, 1, 2, 3))))
        if (kind == "join" and not parents) or (kind == "workflow" and self.depth >= 2):
            kind = "task"
        if kind == "continue_as_new" and self.open:
            self._anew(name, parents)
            return
        spec = self._worker(kind if kind != "continue_as_new" else "task", name)
        if parents:
            spec["depends_on"] = parents
        if chance.random() < 0.2:
            seen = f"steps.{chance.choice(parents)}.state == 'completed'" if parents else "input.n < `6`"
            spec["when"] = chance.choice((*CONDITIONS, seen))
        self._extras(kind, spec, parents)
        if kind not in ("join", "map") and chance.random() < 0.3:
            spec["input"] = {"v": chance.choice(VALUES), "deep": [{"p": f"steps.{p}.output"} for p in parents], "c": 1}
            if chance.random() < 0.05:
                spec["input"] = "length(input.n)"  # cannot be worked out
        self._failures(kind, spec)
        self.steps[name] = spec
        self.open.append(name)

    def _extras(self, kind: str, spec: dict[str, Any], parents: list[str]) -> None:
        """Say where a step is done, by how many, and what its worker may start."""
        chance = self.chance
        if kind not in ("task", "agent", "agent_loop", "map", "planner"):
            return
        near = [one for one in parents if self.steps[one]["kind"] in ("task", "agent", "agent_loop")]
        if near and chance.random() < 0.3:
            spec["sticky"] = {"step": near[0], "mode": chance.choice(("soft", "hard"))}
        if chance.random() < 0.15:
            spec["children"] = {"workflows": ["kid"], "capabilities": ["work"], "max": 3}
            self.made.workflows["kid"] = {"name": "kid", "steps": {"k": {"kind": "task", "capability": "work"}}}
        if chance.random() < 0.2:
            spec["limit"] = {"concurrency": 2}

    def _anew(self, name: str, parents: list[str]) -> None:
        """Make the one step that starts the run anew: so often that it comes to an end."""
        if any(spec["kind"] == "continue_as_new" for spec in self.steps.values()):
            return
        kept = {key: f"input.{key}" for key in ("word", "none", "list", "empty")}
        given, when = self.chance.choice((
            ({**kept, "n": "input.n", "flag": "`false`"}, "input.flag"),
            ({**kept, "n": "sum([input.n, `-3`])", "flag": "input.flag"}, "input.n > `2`"),
            ({**kept, "n": "input.n", "flag": "`false`", "far": f"steps.{parents[0]}.output"} if parents else kept, "input.flag"),
        ))  # fmt: skip
        self.steps[name] = {"kind": "continue_as_new", "depends_on": parents, "when": when, "input": given}

    def _failures(self, kind: str, spec: dict[str, Any]) -> None:
        chance = self.chance
        if chance.random() < 0.2:
            spec["allow_failure"] = True
        if chance.random() < 0.15:
            spec["on_failure"] = self._handler()
        fit = kind in ("task", "agent", "agent_loop", "workflow") and not spec.get("detach")
        if fit and chance.random() < 0.3:
            spec["compensate"] = self._handler()
        elif kind in ("task", "agent", "map", "agent_loop") and chance.random() < 0.06:
            spec["output_schema"] = chance.choice(({"not": {}}, {}))

    def _handler(self) -> str:
        if self.handlers and self.chance.random() < 0.6:
            return self.chance.choice(self.handlers)
        self.handlers.append(f"h{len(self.handlers)}")
        return self.handlers[-1]

    def _worker(self, kind: str, name: str) -> dict[str, Any]:  # noqa: C901
        """Return a step that says nothing of those before it."""
        chance, spec, at = self.chance, {"kind": kind}, (self.where, name)
        match kind:
            case "task" | "agent_loop":
                spec["capability"] = "work"
            case "agent":
                spec |= {
                    "agent": "someone",
                    "prompt": "{{ input.word }} of {{ run.workflow }}: {{input}}",
                    "tools": ["t"],
                }
            case "map":
                items = chance.choice(("input.list", "input.list", "input.list", "input.empty", "input.n"))
                spec |= {"capability": "work", "items": items, "parallelism": chance.choice((1, 2, 100))}
                spec["allowed_failures"] = chance.choice((0, 1, "34%", 100))
                spec["max_items"] = chance.choice((1000, 1000, 5))
                if chance.random() < 0.4:
                    spec["input"] = {"item": "item", "index": "index", "n": "input.n"}
            case "workflow":
                spec |= {"workflow": f"c{len(self.made.workflows)}", "detach": chance.random() < 0.2 and name[0] == "s"}
                self.made.workflows[spec["workflow"]] = {}
                inner = _Maker(self.made, chance, spec["workflow"], f"{self.where}/{name}", depth=self.depth + 1)
                self.made.workflows[spec["workflow"]] = inner.workflow(3)
            case "sleep":
                spec |= chance.choice(
                    ({"duration": "1h"}, {"until": "`4000`"}, {"cron": "0 3 * * *", "timezone": "Asia/Tokyo"})
                )
                spec |= chance.choice(({}, {}, {"until": "input.word", "duration": None, "cron": None}))
            case "wait_for_event" | "wait_for_signal" | "approval":
                fate = chance.choice(("come", "come", "come", "never"))
                if kind == "approval" and chance.random() < 0.2:
                    fate = "reject"
                self.made.fates[at] = fate
                spec["timeout"] = "90s" if fate == "never" else NEVER
                if chance.random() < 0.5:
                    spec |= {"on_timeout": "value", "timeout_value": {"late": name}}
                spec |= {"wait_for_event": {"event": "some.thing"}, "wait_for_signal": {"signal": f"n-{name}"}}.get(
                    kind, {}
                )
            case "signal":
                spec |= {"signal": "ping", "run": chance.choice(("'wother'", "'wother'", "'wother'", "input.n"))}
            case "planner":
                spec |= {"capability": "plan", "capabilities": ["work"], "max_steps": 3}
                self.made.plans[self.where, f"{name}--plan"] = chance.choice(PLANS)
            case "choice":
                spec["cases"] = []
        return spec

    # -- several steps -----------------------------------------------------------------------------------------------

    def _race(self) -> None:
        """Make steps of which some end and the others never would, and a join that ends these."""
        chance, racers = self.chance, []
        wins = chance.choice((1, 1, 2))
        for number in range(wins + chance.randint(0, 2)):
            name = f"s{len(self.steps)}"
            kind = chance.choice(("task", "agent_loop", "wait_for_event", "wait_for_signal", "approval", "map"))
            spec: dict[str, Any] = self._worker(kind, name)
            spec.pop("timeout", None), spec.pop("on_timeout", None), spec.pop("timeout_value", None)
            fate = ("ok", "come") if number < wins else ("hang", "never")
            self.made.fates[self.where, name] = fate[kind in ("wait_for_event", "wait_for_signal", "approval")]
            if kind == "map":
                spec |= {"items": "input.list", "max_items": 100, "allowed_failures": 100}
                if number >= wins:
                    spec |= {"items": "[input.n, input.n]"}
                for index in range(9):
                    self.made.fates[self.where, f"{name}--{index}"] = fate[0]
            self.steps[name] = spec
            racers.append(name)
        name = f"s{len(self.steps)}"
        chance.shuffle(racers)
        need = chance.choice(("any", 1)) if wins == 1 else wins
        self.steps[name] = {"kind": "join", "need": need, "depends_on": racers, "cancel_rest": True}
        self.open.append(name)

    def _cases(self) -> None:
        """Give the children of choices to their cases."""
        chance = self.chance
        for name, spec in self.steps.items():
            if spec["kind"] != "choice":
                continue
            children = [one for one, other in self.steps.items() if name in other.get("depends_on", ())]
            spec["cases"] = [
                {"when": chance.choice(CONDITIONS), "then": [one for one in children if chance.random() < 0.4]}
                for _ in range(chance.randint(1, 3))
            ]
            if chance.random() < 0.06:
                spec["cases"][0]["when"] = "abs(input.word)"  # cannot be worked out
            if chance.random() < 0.4:
                spec["cases"].append({"then": [one for one in children if chance.random() < 0.4]})


PLANS: tuple[Any, ...] = (
    {"steps": {"p1": {"capability": "work"}, "p2": {"capability": "work", "depends_on": ["p1"]}}},
    {
        "steps": {"p1": {"capability": "work"}, "p2": {"kind": "sleep", "duration": "1m"}},
        "output": {"x": "steps.p1.output"},
    },
    {"steps": {"p1": {"capability": "work", "allow_failure": True}}},
    {"steps": {"p1": {"capability": "secret"}}},
    {"steps": {"p1": {"kind": "workflow", "workflow": "main"}}},
    {"steps": {f"p{number}": {"capability": "work"} for number in range(4)}},
    "no plan",
)

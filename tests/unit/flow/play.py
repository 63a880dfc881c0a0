"""A run that a test plays by hand, fact by fact; after each, the fold of all facts from nothing must give the same."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from knotwork.flow import decide, facts
from knotwork.flow.effects import Dispatch, End, SetTimer, StartChild
from knotwork.flow.graph import graph
from knotwork.flow.model import Workflow
from knotwork.flow.run import begin

S = 1_000_000_000
NOW_NS = 1_800_000_000 * S
ERROR = {"kind": "failed", "code": "agent.failed", "message": "no"}


def task(*parents: str, **more: Any) -> dict[str, Any]:
    return {"capability": "work", "depends_on": list(parents), **more}


class Play:
    """One run of a workflow with these steps."""

    def __init__(self, steps: dict[str, Any], given: Any = None, *, start: Any = (), **more: Any) -> None:
        self.graph = graph(Workflow.model_validate({"name": "w", "steps": steps, **more}))
        self.facts: list[facts.Fact] = []
        self.now_ns = NOW_NS
        self.start = facts.Start("w", "d", msgspec.Raw(json.dumps(given).encode()), by="me", **dict(start))
        self.run = begin("w1", self.graph, self.start, NOW_NS)
        self.called = decide.started(self.run)

    def fact(self, what: str, about: str = "", body: Any = None) -> Play:
        one = facts.Fact(what, about, body, self.now_ns, len(self.facts) + 2)
        self.facts.append(one)
        self.called = decide.advance(self.run, one)
        anew = begin("w1", self.graph, self.start, NOW_NS)
        decide.started(anew)
        for fact in self.facts:
            decide.advance(anew, fact)
        assert anew == self.run
        return self

    def done(self, token: str, output: Any = None) -> Play:
        return self.fact("outcome", token, facts.StepEnd("completed", msgspec.Raw(json.dumps(output).encode())))

    def fail(self, token: str, error: Any = ERROR, state: Any = "failed") -> Play:
        return self.fact("outcome", token, facts.StepEnd(state, error=error))

    def recalled(self, *tokens: str) -> Play:
        for token in tokens:
            assert f"withdraw.{token}" in self.run.open or f"cancel-child.{token}" in self.run.open
            self.fail(token, None, "cancelled")
        return self

    def fire(self, timer: str) -> Play:
        effect = self.run.open[f"timer.{timer}"]
        assert isinstance(effect, SetTimer)
        self.now_ns = max(self.now_ns, effect.due_ns)
        return self.fact("fired", timer)

    def signal(self, name: str, payload: Any = None) -> Play:
        return self.fact("signal", name, facts.Signal(msgspec.Raw(json.dumps(payload).encode())))

    def cancel(self) -> Play:
        return self.fact("cancel", "", facts.Wish("me", "enough"))

    @property
    def open(self) -> set[str]:
        return set(self.run.open)

    def given(self, token: str) -> Any:
        """Return what an open step was given."""
        effect: Any = self.run.open.get(f"do.{token}") or self.run.open.get(f"child.{token}")
        assert isinstance(effect, Dispatch | StartChild)
        return json.loads(effect.input)

    def state(self, *steps: str) -> list[str]:
        return [self.run.steps[name].state for name in steps]

    @property
    def end(self) -> End:
        assert set(self.run.open) == {"end"}, self.run.open
        effect = self.run.open["end"]
        assert isinstance(effect, End)
        return effect

    def completed(self) -> Any:
        """Return the output of the run, which must have completed."""
        assert self.end.state == "completed"
        return json.loads(self.end.output)

    def failed(self, state: str = "failed") -> dict[str, Any]:
        """Return the error of the run, which must have ended like this."""
        assert self.end.state == state
        assert self.end.error is not None
        return self.end.error

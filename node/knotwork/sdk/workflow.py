"""How is a workflow written in Python? Steps are added one by one; what comes out is the definition, as JSON.

    flow = Workflow("release", timeout="1h")
    build = flow.task("build", capability="build")
    tests = flow.map("tests", after=build, capability="test", items="steps.build.output.suites")
    flow.approval("ask", after=tests)
    print(flow.text())        # python release.py | knotwork workflow register -

The keys are those of docs/workflows.md; a node checks them when the definition is registered.
"""

from __future__ import annotations

import json
from typing import Any

After = str | list[str] | tuple[str, ...]
"""The steps that must end before: what the methods that add steps return."""


class Workflow:
    """A workflow that is being written."""

    def __init__(self, name: str, **fields: Any) -> None:
        """Begin one; `fields` are the keys of a workflow beside its steps, such as `timeout` and `output`.

        Raises `ValueError` for `steps`: they are added one by one.
        """
        if "steps" in fields:
            raise ValueError("steps are added one by one, with `task`, `map`, `step` and so on")
        self._definition: dict[str, Any] = {"name": name, **fields, "steps": {}}

    def step(self, step: str, kind: str, *, after: After = (), **fields: Any) -> str:
        """Add a step of any kind and return its id.

        Raises `ValueError` when there is one with this id, and when both `after` and `depends_on` say what it follows.
        """
        if step in self._definition["steps"]:
            raise ValueError(f"there is a step {step!r} already")
        parents = [after] if isinstance(after, str) else list(after)
        if parents and "depends_on" in fields:
            raise ValueError(f"step {step!r} has both `after` and `depends_on`: give one of them")
        depends = {"depends_on": parents} if parents else {}
        self._definition["steps"][step] = {"kind": kind, **depends, **fields}
        return step

    def task(self, step: str, *, after: After = (), **fields: Any) -> str:
        """Add a task: `capability` or `agent` says who does it."""
        return self.step(step, "task", after=after, **fields)

    def map(self, step: str, *, after: After = (), **fields: Any) -> str:
        """Add one task for each item of a list."""
        return self.step(step, "map", after=after, **fields)

    def workflow(self, step: str, workflow: str, *, after: After = (), **fields: Any) -> str:
        """Add a run of another workflow."""
        return self.step(step, "workflow", after=after, workflow=workflow, **fields)

    def sleep(self, step: str, duration: str | float, *, after: After = (), **fields: Any) -> str:
        """Add a pause, in seconds or such as "5m"."""
        return self.step(step, "sleep", after=after, duration=duration, **fields)

    def approval(self, step: str, *, after: After = (), **fields: Any) -> str:
        """Add a question to people."""
        return self.step(step, "approval", after=after, **fields)

    def definition(self) -> dict[str, Any]:
        """Return the definition as plain data; later steps do not change it."""
        copy: dict[str, Any] = json.loads(self.text())
        return copy

    def text(self) -> str:
        """Return the definition as JSON.

        Raises `TypeError` for a value that JSON does not know, `ValueError` for a number that it does not (`nan`).
        """
        return json.dumps(self._definition, indent=2, allow_nan=False)

"""How does a demonstration tell what happens? As it happens, each step with the time it took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any


class Story:
    """Tells what happens."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        """Print lines for people, one JSON object each, or nothing."""
        self._quiet, self._as_json = quiet, as_json
        self._start_s = time.perf_counter()
        self.steps: list[dict[str, Any]] = []

    def head(self, text: str) -> None:
        """Begin a chapter."""
        if not (self._quiet or self._as_json):
            print(f"\n{text}", flush=True)

    def step(self, what: str, work: Callable[[], Any], tell: Callable[[Any], str] = str) -> Any:
        """Do one thing and tell how it went; errors end the demo."""
        began_s = time.perf_counter()
        result = work()
        took_ms = round((time.perf_counter() - began_s) * 1000, 1)
        told = tell(result)
        self.steps.append({"step": what, "result": told, "took_ms": took_ms})
        if self._as_json:
            print(json.dumps(self.steps[-1]), flush=True)
        elif not self._quiet:
            at_s = time.perf_counter() - self._start_s
            print(f"  {at_s:6.2f} s  {what:<44} {took_ms:>8.1f} ms  {told}", flush=True)
        return result

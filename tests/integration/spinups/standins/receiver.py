"""What may stand behind a webhook: it starts agents, tells how they are, and ends them."""

# ruff: noqa: PLR0911 - one return per route reads best

from __future__ import annotations

import re

from speaking import Asked, Reply, Speaking


class Receiver(Speaking):
    """Knows what it started by `webhook-id`; `ends_after` is how often it is asked until something ended is gone."""

    def __init__(self) -> None:
        self.started: dict[str, dict[str, object]] = {}
        self.status = 202
        self.ends_after = 0
        super().__init__()

    def answer(self, asked: Asked) -> Reply:
        if asked.method == "OPTIONS":
            return 405, {"message": "Method Not Allowed"}
        if asked.path == "/health":
            return 200, {"ok": True}
        if asked.path.startswith("/launch"):
            message = asked.headers["webhook-id"]
            one = self.started.setdefault(message, {"id": f"vm-{len(self.started)}", "left": -1})
            return self.status, None if self.status == 204 else {"id": one["id"], "echo": asked.body.decode(), "n": 7}
        if found := re.fullmatch(r"/agents/([^/]+)", asked.path):
            one = next((one for one in self.started.values() if one["id"] == found[1]), None)
            if one is None or one["left"] == 0:
                return 404, {"message": "unknown"}
            if asked.method == "DELETE":
                one["left"] = self.ends_after
                return 202, None
            if isinstance(one["left"], int) and one["left"] > 0:
                one["left"] -= 1
            return 200, {"state": "running", "why": "a machine in the cellar"}
        return 404, {"message": "Not Found"}

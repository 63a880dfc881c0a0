"""A stand-in for GitHub's REST API: dispatching a workflow and looking after its run."""

# ruff: noqa: PLR0911 - one return per route reads best

from __future__ import annotations

import re
from typing import Any

from speaking import Asked, Reply, Speaking

TOKEN = "ghp_" + "x" * 36
WORKFLOW = r"/repos/me/agents/actions/workflows/([^/]+)"
RUN = r"/repos/me/agents/actions/runs/(\d+)"
DOCS = "https://docs.github.com/rest"


class Github(Speaking):
    """`names_runs` is whether a dispatch says which run it became, `shows_runs` whether run names hold the launch."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.inputs = {f"knotwork_{name}" for name in ("launch", "target", "project", "task", "claim")}
        self.names_runs = self.knows_parameter = self.shows_runs = True
        self.state = "active"
        self.ends_on = {"cancel", "force-cancel"}
        self.runs: dict[int, dict[str, Any]] = {}
        self.limit: dict[str, str] = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4999"}
        super().__init__()

    def answer(self, asked: Asked) -> Reply:
        status, body = self._answer(asked)
        return status, body, self.limit

    def _answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"message": "Bad credentials", "documentation_url": DOCS, "status": "401"}
        if asked.headers.get("x-github-api-version") != "2022-11-28":
            return 400, {"message": "no version"}
        if found := re.fullmatch(WORKFLOW + r"(/dispatches|/runs)?", asked.path):
            if found[1] != "agent.yml":
                return 404, {"message": "Not Found", "documentation_url": DOCS, "status": "404"}
            if not found[2]:
                return 200, {"id": 7, "name": "agent", "path": ".github/workflows/agent.yml", "state": self.state}
            return self._dispatch(asked) if found[2] == "/dispatches" else self._list(asked)
        if found := re.fullmatch(RUN + r"(?:/([a-z-]+))?", asked.path):
            return self._run(asked, int(found[1]), found[2] or "")
        return 404, {"message": "Not Found", "documentation_url": DOCS, "status": "404"}

    def _dispatch(self, asked: Asked) -> tuple[int, Any]:
        body = asked.json
        if "return_run_details" in body and not self.knows_parameter:
            return 422, {"message": 'Invalid request.\n\n"return_run_details" is not a permitted key.', "status": "422"}
        if body["ref"] != "main":
            return 422, {"message": f"No ref found for: {body['ref']}", "documentation_url": DOCS, "status": "422"}
        if odd := set(body["inputs"]) - self.inputs:
            return 422, {
                "message": f"Unexpected inputs provided: {sorted(odd)}",
                "documentation_url": DOCS,
                "status": "422",
            }
        run = 30_433_642 + len(self.runs)
        title = f"agent {body['inputs'].get('knotwork_launch', '')}" if self.shows_runs else "agent"
        self.runs[run] = {
            "id": run, "name": "agent", "display_title": title, "event": "workflow_dispatch", "status": "queued",
            "conclusion": None, "html_url": f"https://github.com/me/agents/actions/runs/{run}",
        }  # fmt: skip
        if self.names_runs and body.get("return_run_details"):
            url = f"https://api.github.com/repos/me/agents/actions/runs/{run}"
            return 200, {"workflow_run_id": run, "run_url": url, "html_url": self.runs[run]["html_url"]}
        return 204, None

    def _list(self, asked: Asked) -> tuple[int, Any]:
        assert asked.query["event"] == "workflow_dispatch"
        assert re.fullmatch(r">=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", asked.query["created"])
        return 200, {"total_count": len(self.runs), "workflow_runs": [*reversed(self.runs.values())]}

    def _run(self, asked: Asked, run: int, what: str) -> tuple[int, Any]:
        if run not in self.runs:
            return 404, {"message": "Not Found", "documentation_url": DOCS, "status": "404"}
        found = self.runs[run]
        if what == "jobs":
            steps = [{"name": "Set up", "conclusion": "success"}, {"name": "Run the agent", "conclusion": "failure"}]
            return 200, {"total_count": 1, "jobs": [{"name": "agent", "conclusion": "failure", "steps": steps}]}
        if what:
            if found["status"] == "completed":
                return 409, {"message": "Cannot cancel a workflow run that is completed.", "status": "409"}
            if what in self.ends_on:
                found |= {"status": "completed", "conclusion": "cancelled"}
            return 202, {}
        if found["status"] == "queued":
            self.runs[run] = {**found, "status": "in_progress"}
        return 200, found

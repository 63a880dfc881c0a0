"""How is an agent started as a workflow run of GitHub Actions? By a dispatch that says which run it became."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, model_validator

from knotwork.sdk import (
    Busy,
    Condition,
    Context,
    Factory,
    Invalid,
    KnotworkError,
    Launched,
    LaunchRequest,
    PluginConfig,
    SecretRef,
    SpinUp,
    TimedOut,
    Unavailable,
)
from knotwork_plugins.spinups import answers, places, words
from knotwork_plugins.spinups.github_actions import runs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from knotwork_plugins.spinups.answers import Answer

WHO = "GitHub"
STANDARD = {f"knotwork_{name}": f"{{{name}}}" for name in ("launch", "target", "project", "task", "claim")}
INPUTS_MAX = 25
APPEARS_WITHIN_S = 600.0
LOOKS_BACK_S = 86_400.0
ENDS_WITHIN_S = 60.0
LOOK_MIN_S, LOOK_MAX_S = 0.25, 5.0
ACCEPTED, CONFLICT, NOT_FOUND, UNPROCESSABLE = 202, 409, 404, 422


class GithubActionsConfig(PluginConfig):
    """Options of a target that is a workflow."""

    place_keys: ClassVar[tuple[str, ...]] = ("repo", "api_url")

    repo: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}$", description="owner/name")
    workflow: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,254}$",
        description='file name of the workflow, e.g. "agent.yml", or its id',
    )
    ref: str = Field(default="main", min_length=1, max_length=255, description="branch or tag to run it from")
    token: SecretRef = Field(
        default=SecretRef(env="GITHUB_TOKEN"), description="token that may write actions of the repository"
    )
    inputs: dict[str, str] = Field(
        default_factory=dict,
        max_length=INPUTS_MAX,
        description="further inputs; {launch}, {task}, {env.NAME} … may stand in them. Whoever reads the repository reads inputs",
    )
    standard_inputs: bool = Field(
        default=True,
        description="send knotwork_launch, _target, _project, _task and _claim; the workflow must declare them",
    )
    start_timeout_s: float = Field(
        default=5.0,
        ge=0,
        le=120,
        description="seconds to look for the run where GitHub does not name it (older servers)",
    )
    request_timeout_s: float = Field(default=8.0, gt=0, le=300, description="seconds one request may take")
    api_url: str = Field(
        default="https://api.github.com",
        max_length=2048,
        description="address of the API; GitHub Enterprise has its own",
    )
    ca_file: str = Field(default="", max_length=4096, description="file with the certificates to trust instead")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        places.check(self.inputs, (*places.TOLD, "claim", "env."))
        parts = urlsplit(self.api_url)
        loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
            msg = "api_url must begin with https:// and name a host: the token goes there"
            raise ValueError(msg)
        if self.standard_inputs and len({*self.inputs, *STANDARD}) > INPUTS_MAX:
            msg = f"GitHub takes {INPUTS_MAX} inputs, the standard ones included"
            raise ValueError(msg)
        return self


class GithubActions:
    """The spin-up: one run per launch."""

    def __init__(self, config: GithubActionsConfig, context: Context, client: httpx.AsyncClient) -> None:
        """Keep the client, which the opener closes."""
        self._config = config
        self._context = context
        self._client = client
        self._repo = f"{config.api_url.rstrip('/')}/repos/{config.repo}"
        self._workflow = f"{self._repo}/actions/workflows/{quote(config.workflow, safe='')}"

    async def probe(self) -> None:
        """Raise when the workflow cannot be seen with this token, or is disabled. That it may be started is not proven."""
        answer = await self._ask("GET", self._workflow)
        if not answer.good:
            raise self._refusal(answer)
        state = answer.table(WHO).get("state", "active")
        if state != "active":
            raise Unavailable(
                f"the workflow {self._config.workflow} is {state}.",
                code="launch.disabled",
                hint=f"Enable it: gh workflow enable {self._config.workflow} --repo {self._config.repo}",
            )

    async def launch(self, request: LaunchRequest) -> Launched:
        """Dispatch the workflow, unless a run carries this id in its name already."""
        found = await self._find(request.id)
        if found is None:
            found = await self._dispatch(request)
        ref: dict[str, Any] = {"launch": request.id, "repo": self._config.repo}
        return Launched(ref | ({"run": found} if found else {"since": int(time.time())}))

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Ask for the run; one that failed is told of with the step that did."""
        run = await self._run_of(ref)
        if run is None:
            return self._unseen(ref)
        answer = await self._ask("GET", f"{self._repo}/actions/runs/{run}")
        if answer.status == NOT_FOUND:
            return Condition("gone", "GitHub does not know the run any more")
        if not answer.good:
            raise self._refusal(answer)
        found = answer.table(WHO)
        state, why = runs.state_of(found)
        if state == "failed":
            why = f"{why}{await self._failed_step(run)}; see {found.get('html_url', self._repo)}"
        return Condition(state, why)

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """Cancel the run, after `grace_s` seconds by force; raises `TimedOut` when it goes on all the same."""
        run = await self._run_of(ref)
        if run is None:
            if self._unseen(ref).state == "starting":
                raise Unavailable(
                    "GitHub has not shown the run yet, so it cannot be ended.",
                    code="launch.unseen",
                    hint="Try again; put ${{ inputs.knotwork_launch }} into the run-name of the workflow.",
                    retry_after_s=10.0,
                )
            return
        for way, within_s in (("cancel", max(grace_s, 0.0)), ("force-cancel", ENDS_WITHIN_S)):
            if await self._ended(run, 0.0):
                return
            answer = await self._ask("POST", f"{self._repo}/actions/runs/{run}/{way}")
            if answer.status == NOT_FOUND:
                return
            if answer.status not in (ACCEPTED, CONFLICT):  # a conflict: it ended meanwhile
                raise self._refusal(answer)
            if await self._ended(run, within_s):
                return
        raise TimedOut(
            f"run {run} of {self._config.repo} goes on {ENDS_WITHIN_S:g} s after it was cancelled by force.",
            code="launch.will_not_end",
            hint="Look at the run on GitHub; its runner may be lost.",
        )

    async def _dispatch(self, request: LaunchRequest) -> int:
        """Start the workflow and return the id of its run, 0 when GitHub does not say and no run shows it."""
        config = self._config
        values = places.values_of(request)
        written = (STANDARD if config.standard_inputs else {}) | config.inputs
        inputs = {name: places.fill(template, values) for name, template in written.items()}
        body = {"ref": config.ref, "inputs": inputs, "return_run_details": True}
        secrets = words.secrets_in(request.env)
        answer = await self._ask("POST", f"{self._workflow}/dispatches", json=body)
        if answer.status == UNPROCESSABLE and "return_run_details" in answer.said():  # an older server
            answer = await self._ask("POST", f"{self._workflow}/dispatches", json={"ref": config.ref, "inputs": inputs})
        if not answer.good:
            raise self._refusal(answer, inputs=inputs, secrets=secrets)
        if answer.body.strip() and (run := runs.number(answer.table(WHO).get("workflow_run_id"))):
            return run
        return await self._appears(request.id)

    async def _appears(self, launch: str) -> int:
        """Look for a run that was just dispatched; never takes one for it that does not name the launch."""
        pause_s = LOOK_MIN_S
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                while not (found := await self._find(launch)):
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, LOOK_MAX_S)
                return found
        except (TimeoutError, KnotworkError):  # it was dispatched all the same
            return 0

    async def _find(self, launch: str) -> int | None:
        """Return the run that carries the launch in its name."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - LOOKS_BACK_S))
        params = {"event": "workflow_dispatch", "created": f">={since}", "per_page": "100"}
        answer = await self._ask("GET", f"{self._workflow}/runs", params=params)
        if not answer.good:
            raise self._refusal(answer)
        return runs.named(answer.table(WHO), launch)

    async def _run_of(self, ref: Mapping[str, Any]) -> int | None:
        if run := runs.number(ref.get("run")):
            return run
        launch = words.text_in(ref, "launch")
        return await self._find(launch) if launch else None

    def _unseen(self, ref: Mapping[str, Any]) -> Condition:
        """Say what it means that there is no run for a launch."""
        since = ref.get("since")
        if not isinstance(since, int) or not words.text_in(ref, "launch"):
            return Condition("gone", "there was no such launch")
        if time.time() - since < APPEARS_WITHIN_S:
            return Condition("starting", "GitHub has not shown the run yet")
        return Condition(
            "failed",
            "no run names this launch: put ${{ inputs.knotwork_launch }} into the run-name of the workflow",
        )

    async def _ended(self, run: int, within_s: float) -> bool:
        """Say whether the run is over, or is within so many seconds."""
        until_s, pause_s = time.monotonic() + within_s, LOOK_MIN_S
        while True:
            answer = await self._ask("GET", f"{self._repo}/actions/runs/{run}")
            if answer.status == NOT_FOUND:
                return True
            if answer.good and runs.state_of(answer.table(WHO))[0] in ("gone", "failed"):
                return True
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(min(pause_s, max(until_s - time.monotonic(), 0.0)))
            pause_s = min(pause_s * 2, LOOK_MAX_S)

    async def _failed_step(self, run: int) -> str:
        """Name the step that failed, as far as GitHub tells."""
        try:
            answer = await self._ask("GET", f"{self._repo}/actions/runs/{run}/jobs", params={"per_page": "100"})
            return runs.failed_step(answer.table(WHO)) if answer.good else ""
        except KnotworkError:
            return ""

    async def _ask(self, method: str, url: str, **options: Any) -> Answer:
        token = await asyncio.to_thread(self._context.secrets, self._config.token)
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        timeout_s = self._config.request_timeout_s
        answer = await answers.ask(self._client, method, url, who=WHO, timeout_s=timeout_s, headers=headers, **options)
        if (pause_s := runs.pause(answer.status, answer.headers, answer.said(), time.time())) is not None:
            raise Busy(
                f"GitHub answered {answer.status}: its rate limit is reached.",
                code="launch.busy",
                hint="Wait, or use a token of its own for Knotwork.",
                retry_after_s=pause_s,
            )
        return answer

    def _refusal(
        self, answer: Answer, *, inputs: Mapping[str, str] | None = None, secrets: list[str] | None = None
    ) -> KnotworkError:
        config = self._config
        needs = f"Give the token the permission `actions: write` for {config.repo}."
        hints = {
            401: "Is the token right, and still valid?",
            403: needs,
            404: f"Is there a {config.workflow} in {config.repo} on its default branch, and may the token see it? {needs}",
            422: f"The workflow on {config.ref} must have `on: workflow_dispatch` with the inputs {', '.join(inputs or {})}"
            " (or set `standard_inputs = false`), and the branch or tag must exist.",
        }
        error = answers.refusal(answer, WHO, hints, secrets=secrets or (), now_s=time.time())
        return error if answer.status != UNPROCESSABLE else Invalid(
            error.message, code="launch.refused", hint=hints[422], detail=error.detail
        )  # fmt: skip


@asynccontextmanager
async def open_github_actions(config: GithubActionsConfig, context: Context) -> AsyncIterator[SpinUp]:
    """Open a client; raises `Unavailable` when its certificates cannot be read."""
    client = await asyncio.to_thread(answers.client, verify=True, ca_file=config.ca_file, base=context.base)
    async with client:
        yield GithubActions(config, context, client)


FACTORY: Factory[SpinUp] = Factory(
    name="github-actions",
    config=GithubActionsConfig,
    open=open_github_actions,
    summary="Starts agents as workflow runs of GitHub Actions.",
    abilities=("probe", "stop"),
)
"""One workflow of GitHub Actions."""

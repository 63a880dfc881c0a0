"""How is an agent started on another machine that takes SSH? Detached from the connection, its secrets on stdin."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from knotwork.sdk import (
    Condition,
    Context,
    Factory,
    Invalid,
    KnotworkError,
    Launched,
    LaunchRequest,
    NotFound,
    SpinUp,
    TimedOut,
    Unavailable,
)
from knotwork_plugins.spinups import environment, words
from knotwork_plugins.spinups.ssh import far, link
from knotwork_plugins.spinups.ssh.config import SshConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

THREADS = 4
GRACE_MAX_S = 3600.0


class Ssh:
    """The spin-up: one connection for each thing that is asked; the agent needs none."""

    def __init__(self, config: SshConfig, context: Context, threads: ThreadPoolExecutor) -> None:
        """Keep what launches need; `threads` do the short blocking parts."""
        self._config = config
        self._context = context
        self._threads = threads
        self._known = environment.Known()

    async def probe(self) -> None:
        """Raise what is wrong with the connection, or `NotFound` for what the far side lacks."""
        config = self._config
        plain = {name: value for name, value in config.env.items() if isinstance(value, str)}
        script = far.probe(folder=config.state_folder, cwd=config.cwd, program=config.argv[0], env=plain)
        said = await self._ask(script, 5.0)
        if said.word != "well":
            self._raise(said)

    async def launch(self, request: LaunchRequest) -> Launched:
        """Start the command there, detached; its secrets go with the script on standard input."""
        config = self._config
        self._check_id(request.id)
        env = await environment.gathered(config.env, request, self._context.secrets)
        self._known.keep(request.id, env)
        script = far.launch(
            launch=request.id,
            folder=config.state_folder,
            cwd=config.cwd,
            command=config.argv,
            program=config.argv[0],
            env=env,
        )
        said = await self._ask(script, far.COMES_WITHIN_S + 10.0)
        if said.word != "launched":
            self._raise(said)
        pid, _, since = said.rest.partition(" ")
        return Launched({"launch": request.id, "host": link.where(config), "pid": pid, "started": since})

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Ask the far side; raises `Unreachable` when it does not answer."""
        launch = words.text_in(ref, "launch")
        if not far.is_launch_id(launch):
            return Condition("gone", "there was no such launch")
        script = far.condition(
            launch=launch,
            folder=self._config.state_folder,
            tail_bytes=words.TAIL_BYTES,
            output_max_bytes=self._config.output_max_bytes,
        )
        said = await self._ask(script, 10.0)
        return _told(said, self._known.of(launch)) or self._raise(said)

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """End the session there and all that it started; raises `TimedOut` when even SIGKILL does not do it."""
        launch = words.text_in(ref, "launch")
        if not far.is_launch_id(launch):
            return
        grace_s = min(max(grace_s, 0.0), GRACE_MAX_S)
        script = far.stop(launch=launch, folder=self._config.state_folder, grace_s=grace_s)
        # Each look at the processes there takes a while of its own, so a tenth of a second there is longer here.
        said = await self._ask(script, 3 * (grace_s + far.KILLED_WITHIN_S) + 10.0)
        if said.word != "gone":
            self._raise(said)
        self._known.drop(launch)

    async def _ask(self, script: str, takes_s: float) -> far.Said:
        within_s = self._config.connect_timeout_s + takes_s
        output = await link.carry(script, self._config, self._context, self._threads, within_s=within_s)
        return far.read(output)

    def _check_id(self, launch: str) -> None:
        if not far.is_launch_id(launch):
            raise Invalid(f"{launch[:80]!r} is no id of a launch.", code="launch.bad_id")

    def _raise(self, said: far.Said) -> NoReturn:
        """Raise what a fault on the far side means."""
        here, thing = link.where(self._config), said.rest
        errors: dict[str, KnotworkError] = {
            "no_folder": NotFound(
                f"{here} has no folder {thing!r}.", code="launch.no_folder", hint="Create it there, or mend `cwd`."
            ),
            "no_command": NotFound(
                f"{here} has no command {thing!r}.",
                code="launch.no_command",
                hint="Install it there, or write its whole path: a login may set another PATH than a command gets.",
            ),
            "no_setsid": NotFound(
                f"{here} has neither `setsid` nor `perl`, so nothing can be started apart from the connection.",
                code="launch.no_command",
                hint="Install util-linux or perl there.",
            ),
            "no_state": Unavailable(
                f"{here} cannot keep anything in {thing!r}.",
                code="launch.not_kept",
                hint="Set `state_folder` to a folder that this user may write to, and look at the disk.",
            ),
            "not_started": Unavailable(
                f"{here} did not start it within {far.COMES_WITHIN_S} s.",
                code="launch.not_started",
                hint="Look at the load of that machine.",
            ),
            "will_not_end": TimedOut(
                f"process {thing} at {here} does not end, not even when killed.",
                code="launch.will_not_end",
                hint="It hangs in the kernel there, on a device or a file system that is away; try again later.",
            ),
        }
        raise errors.get(said.fault) or Unavailable(
            f"{here} answered something else than expected.",
            code="launch.bad_answer",
            hint="Is the user's login shell a real one, and allowed to run commands?",
        )


def _told(said: far.Said, secrets: list[str]) -> Condition | None:
    """Return the condition that an answer means, None when it is no answer."""
    if said.word == "running":
        return Condition("running", f"process {said.rest}")
    if said.word == "gone":
        return Condition("gone", "nothing of it is left")
    code = said.rest.strip()
    how = {
        "unknown": "it was never started",
        "killed": "it was killed, or its machine was restarted",
        "ended": f"it ended with exit code {code}",
    }.get(said.word)
    if how is None:
        return None
    fine = said.word == "ended" and code == "0"
    return Condition("gone" if fine else "failed", words.ended(how, said.output, secrets))


@asynccontextmanager
async def open_ssh(config: SshConfig, context: Context) -> AsyncIterator[SpinUp]:
    """Open the spin-up; it holds no connection."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"ssh-{context.id}")
    try:
        yield Ssh(config, context, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


FACTORY: Factory[SpinUp] = Factory(
    name="ssh",
    config=SshConfig,
    open=open_ssh,
    summary="Starts agents on a machine that takes SSH, apart from the connection.",
    abilities=("probe", "stop"),
)
"""One machine that takes SSH."""

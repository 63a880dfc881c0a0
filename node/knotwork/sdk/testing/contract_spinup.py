"""What must every spin-up do? Start one thing per launch, find it again, end it, and keep its secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from knotwork.sdk.errors import KnotworkError
from knotwork.sdk.spinup import Condition, Launched, LaunchRequest, SpinUp
from knotwork.sdk.testing.contract import PluginContract
from knotwork.sdk.testing.one import host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

REF_MAX_BYTES = 4096
LOOK_S = 0.05
CANCEL_S = 5.0
STATES = ("starting", "running", "gone", "failed")
ODD_REFS: tuple[dict[str, Any], ...] = (
    {},
    {"pid": "x"},
    {"pid": -1, "id": None, "name": 7, "run": "", "launch": [], "started": {}},
    {"id": "../../etc", "name": "a/b", "run": 10**30, "launch": "$(reboot)"},
)


class SpinUpContract(PluginContract):
    """Set `config` to what starts something that lives until it is stopped.

    `observed` is false for a target that cannot say how a launch is, `repeatable` for one that may start twice when it
    is asked twice. `up_within_s` and `grace_s` are seconds.
    """

    observed: bool = True
    repeatable: bool = True
    up_within_s: float = 30.0
    grace_s: float = 1.0
    timeout_s: float = 50.0

    def request(self, **given: Any) -> LaunchRequest:
        """Return a request for a launch of its own; any field can be given."""
        launch = given.get("id") or f"launch-{secrets.token_hex(6)}"
        env = {
            "KNOTWORK_URL": "nats://127.0.0.1:4222",
            "KNOTWORK_TOKEN": f"hush-{secrets.token_hex(12)}",
            "KNOTWORK_CREDS": f'-----BEGIN-----\n"it\'s" \\ $(secret) `{secrets.token_hex(12)}`\n-----END-----\n',
            "KNOTWORK_PROJECT": "default",
            "KNOTWORK_TARGET": "test",
            "KNOTWORK_TASK": "task-1",
            "KNOTWORK_LAUNCH": launch,
            "KNOTWORK_CLAIM": f"claim-{secrets.token_hex(6)}",
        }
        parts: dict[str, Any] = {
            "id": launch,
            "target": "test",
            "project": "default",
            "capability": "review",
            "boundary": "personal",
            "task": "task-1",
            "env": env,
            **given,
        }
        return LaunchRequest(**parts)

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[SpinUp]:
        """Open the spin-up with a folder that outlives it, as a node does."""
        async with host(self.factory, self.config, folder=folder, start_timeout_s=self.up_within_s) as spinup:
            yield spinup

    def test_starts_and_stops(self) -> None:
        """What was launched comes up, is gone after `stop`, and may be stopped again."""

        async def steps(folder: Path) -> None:
            async with self.opened(folder) as spinup:
                launched = await spinup.launch(self.request())
                assert isinstance(launched, Launched), f"no launch: {type(launched).__name__}"
                assert len(json.dumps(dict(launched.ref), allow_nan=False)) <= REF_MAX_BYTES, "the ref is too long"
                await self.until(spinup, launched, "running")
                await spinup.stop(launched.ref, self.grace_s)
                await self.until(spinup, launched, "gone", at_once=True)
                await spinup.stop(launched.ref, self.grace_s)

        self.in_folder(steps)

    def test_finds_it_again_after_a_restart(self) -> None:
        """Closing the spin-up ends nothing; another instance finds the launch by its ref and can end it."""

        async def steps(folder: Path) -> None:
            async with self.opened(folder) as first:
                launched = again(await first.launch(self.request()))
                await self.until(first, launched, "running")
            async with self.opened(folder) as second:
                await self.until(second, launched, "running", at_once=True)
                await second.stop(launched.ref, self.grace_s)
                await self.until(second, launched, "gone", at_once=True)

        self.in_folder(steps)

    def test_the_same_launch_starts_one_thing(self) -> None:
        """Asked again with the same id, also by another instance and side by side, it names the thing it started."""

        async def steps(folder: Path) -> None:
            request = self.request()
            async with self.opened(folder) as spinup:
                first = await spinup.launch(request)
                await self.until(spinup, first, "running")
                async with asyncio.TaskGroup() as group:
                    more = [group.create_task(spinup.launch(request)) for _ in range(2)]
            async with self.opened(folder) as other:
                refs = [dict(again(launched).ref) for launched in (first, await other.launch(request))]
                refs += [dict(again(task.result()).ref) for task in more]
                assert all(ref == refs[0] for ref in refs), f"started more than one: {refs}"
                await other.stop(refs[0], self.grace_s)
                await self.until(other, first, "gone", at_once=True)

        if self.repeatable:
            self.in_folder(steps)

    def test_two_launches_are_two_things(self) -> None:
        """Stopping one launch leaves the other alone."""

        async def steps(folder: Path) -> None:
            async with self.opened(folder) as spinup:
                one, two = [await spinup.launch(self.request()) for _ in range(2)]
                assert dict(one.ref) != dict(two.ref), "two launches cannot be told apart"
                for launched in (one, two):
                    await self.until(spinup, launched, "running")
                await spinup.stop(one.ref, self.grace_s)
                await self.until(spinup, two, "running", at_once=True)
                await spinup.stop(two.ref, self.grace_s)

        self.in_folder(steps)

    def test_keeps_its_secrets(self) -> None:
        """No secret of a launch stands in its ref, in a log, on a command line or in a file that others can read."""

        async def steps(folder: Path) -> None:
            request = self.request()
            hidden = [request.env["KNOTWORK_TOKEN"], *request.env["KNOTWORK_CREDS"].strip().splitlines()[1:2]]
            with logged() as lines:
                async with self.opened(folder) as spinup:
                    launched = await spinup.launch(request)
                    await self.until(spinup, launched, "running")
                    told = command_lines() + readable_by_others(folder)
                    told += repr(request) + json.dumps(dict(launched.ref)) + repr(await spinup.condition(launched.ref))
                    await spinup.stop(launched.ref, self.grace_s)
            told += "\n".join(lines)
            assert not [secret for secret in hidden if secret in told], "a secret can be read"

        self.in_folder(steps)

    def test_survives_odd_refs(self) -> None:
        """A ref that is none of its own ends in a condition or an error of ours, and nothing is harmed."""

        async def steps(folder: Path) -> None:
            async with self.opened(folder) as spinup:
                launched = await spinup.launch(self.request())
                for odd in ODD_REFS:
                    try:
                        condition = await spinup.condition(odd)
                        assert isinstance(condition, Condition), f"no condition for {odd}"
                        assert condition.state in STATES
                        await spinup.stop(odd, 0.0)
                    except KnotworkError:
                        continue
                await self.until(spinup, launched, "running")
                await spinup.stop(launched.ref, self.grace_s)

        self.in_folder(steps)

    def test_a_launch_can_be_cancelled(self) -> None:
        """A launch that is cancelled ends soon; asked again it starts or finds its one thing, which can be stopped."""

        async def steps(folder: Path) -> None:
            async with self.opened(folder) as spinup:
                for turns in (0, 1, 5):
                    request = self.request()
                    await self._cancelled(spinup, request, turns)
                    launched = await spinup.launch(request)
                    await spinup.stop(launched.ref, self.grace_s)
                    await self.until(spinup, launched, "gone", at_once=True)

        if self.repeatable:
            self.in_folder(steps)

    async def _cancelled(self, spinup: SpinUp, request: LaunchRequest, turns: int) -> None:
        async def launch() -> None:
            await spinup.launch(request)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(launch())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=CANCEL_S)
            assert not pending, f"still launching {CANCEL_S:g} s after it was cancelled"

    async def until(
        self, spinup: SpinUp, launched: Launched, state: Literal["running", "gone"], *, at_once: bool = False
    ) -> None:
        """Wait until a launch is in `state`, or with `at_once` see that it is."""
        if not self.observed:
            return
        condition = await spinup.condition(launched.ref)
        async with asyncio.timeout(self.up_within_s):
            while condition.state != state and not at_once:
                assert condition.state == "starting" or state == "gone", f"it did not come up: {condition}"
                await asyncio.sleep(LOOK_S)
                condition = await spinup.condition(launched.ref)
        assert condition.state == state, f"not {state}: {condition}"

    def in_folder(self, steps: Any) -> None:
        """Run `steps(folder)` with a folder of its own."""
        folder = Path(tempfile.mkdtemp(prefix="knotwork-test-"))
        try:
            self.run(steps(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def again(launched: Launched) -> Launched:
    """Return it as it is after its ref was stored and read."""
    return Launched(json.loads(json.dumps(dict(launched.ref))))


def command_lines() -> str:
    """Return the command lines of every process that can be seen."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return "\n".join(lines)


def readable_by_others(folder: Path) -> str:
    """Return what stands in the files below `folder` that not only their owner may read."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    return "\n".join(path.read_text(errors="replace") for path in found)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect everything that is logged, down to the last detail."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.exc_info or ''}")

    root, keep = logging.getLogger(), Keep(level=0)
    level = root.level
    root.addHandler(keep)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(keep)

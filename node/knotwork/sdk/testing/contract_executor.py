"""What must every executor do? Answer with an outcome, side by side, and stop when told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from knotwork.sdk.errors import KnotworkError
from knotwork.sdk.executor import Attempt, Continue, Done, Executor, Failed, Outcome
from knotwork.sdk.testing.contract import PluginContract, nothing_left_behind
from knotwork.sdk.testing.one import attempt, host
from knotwork.sdk.testing.surroundings import RecordingReporter

CANCEL_S = 15.0
AT_ONCE = 5
ODD_S = 2.0
NOT_GIVEN: Any = object()
ODD: tuple[Any, ...] = (None, "", [], {"": None}, "\u2028\x00", -1.5e300)


class ExecutorContract(PluginContract):
    """Set `input` to something the executor can do quickly.

    `long_input` is something that takes at least half a minute, so that stopping it means something (with
    `long_config` when it needs another config); without it the cancel test stops `input` as soon as it has begun.
    It is stopped `long_begins_s` seconds after it began and must have ended `cancel_s` seconds later: that is generous,
    since a machine that tests is a busy one; to be kind to those who wait, end within a second or two.
    """

    input: Any = None
    long_input: Any = NOT_GIVEN
    long_config: Any = None
    long_begins_s: float = 0.3
    cancel_s: float = CANCEL_S

    def attempt(self, input: Any = NOT_GIVEN, **given: Any) -> Attempt:  # noqa: A002  the word for it
        """Return an attempt with the sample input; override to set more of its fields."""
        return attempt(self.input if input is NOT_GIVEN else input, **given)

    def check(self, outcome: Outcome) -> None:
        """Check the outcome of the sample input; override to look closer."""
        assert not isinstance(outcome, Failed), f"the sample input failed: {outcome}"

    def test_answers_with_an_outcome(self) -> None:
        """The sample input ends in `Done` or `Continue` with JSON, and what is streamed is JSON too."""

        async def steps() -> None:
            report = RecordingReporter()
            async with host(self.factory, self.config) as executor:
                outcome = await executor.execute(self.attempt(report=report))
            assert isinstance(outcome, Done | Failed | Continue), f"no outcome: {type(outcome).__name__}"
            self.check(outcome)
            if isinstance(outcome, Done | Continue):
                json.dumps(outcome.output, allow_nan=False)
            for percent, text in report.said:
                assert percent is None or 0 <= percent <= 100, f"{percent} is no percentage"  # noqa: PLR2004
                assert isinstance(text, str)

        self.run(steps())

    def test_answers_again(self) -> None:
        """One attempt leaves the executor fit for the next."""

        async def steps() -> None:
            async with host(self.factory, self.config) as executor:
                for _ in range(2):
                    self.check(await executor.execute(self.attempt()))

        self.run(steps())

    def test_runs_side_by_side(self) -> None:
        """Several attempts at once do not disturb each other."""

        async def steps() -> None:
            async with host(self.factory, self.config) as executor, asyncio.TaskGroup() as group:
                running = [group.create_task(executor.execute(self.attempt())) for _ in range(AT_ONCE)]
            for one in running:
                self.check(one.result())

        self.run(steps())

    def test_survives_odd_input(self) -> None:
        """Input it does not expect ends in an outcome or an error of ours, and the next attempt works."""

        async def steps() -> None:
            async with host(self.factory, self.config) as executor:
                for odd in ODD:
                    try:
                        async with asyncio.timeout(ODD_S):
                            outcome = await executor.execute(self.attempt(odd))
                    except (KnotworkError, TimeoutError):
                        continue
                    assert isinstance(outcome, Done | Failed | Continue), f"no outcome for {odd!r}"
                self.check(await executor.execute(self.attempt()))

        self.run(steps())

    def test_stops_when_cancelled(self) -> None:
        """A cancelled attempt ends within `cancel_s` seconds, leaves nothing behind, and the next one works."""

        async def steps() -> None:
            config = self.config if self.long_config is None else self.long_config
            async with host(self.factory, config) as executor, nothing_left_behind():
                await self._cancelled(executor)
            async with host(self.factory, self.config) as executor:
                self.check(await executor.execute(self.attempt()))

        self.run(steps())

    async def _cancelled(self, executor: Executor) -> None:
        """Start the long attempt, cancel it, and see that it ends in time."""
        long = self.long_input is not NOT_GIVEN
        work = self.attempt(self.long_input) if long else self.attempt()

        async def execute() -> None:
            await executor.execute(work)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(execute())
            done, _ = await asyncio.wait([task], timeout=self.long_begins_s if long else 0.0)
            assert not (done and long), f"`long_input` ended by itself: {task}"
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=self.cancel_s)
            assert not pending, f"still running {self.cancel_s:g} s after it was cancelled"
            assert task.cancelled() or not long, "swallowed CancelledError"

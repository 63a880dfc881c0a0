"""How can work be rehearsed without the real agent? A script of delays, progress, output, failures and crashes.

For tests of workflows, routing and operations: what happens is written in the configuration (or comes with the
input) and happens the same way each time.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from knotwork.sdk import (
    Attempt,
    Context,
    Continue,
    Done,
    Executor,
    Factory,
    Failed,
    Outcome,
    PluginConfig,
    PluginFailed,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STEPS_MAX = 1000
DAY_S = 86_400.0


class Step(BaseModel):
    """One thing that happens. Exactly one action, and conditions under which it does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Actions that go on with the next step
    delay_s: float | None = Field(default=None, ge=0, le=DAY_S, description="wait so many seconds; a cancel ends it")
    block_s: float | None = Field(default=None, ge=0, le=60, description="hold up the whole event loop so many seconds")
    ignore_cancel_s: float | None = Field(
        default=None, ge=0, le=60, description="wait so many seconds and do not stop for a cancel until they are over"
    )
    progress: float | None = Field(default=None, ge=0, le=100, description="report progress in percent, with `text`")
    chunk: Any = Field(default=None, description="stream this value")
    chunks: int | None = Field(
        default=None, ge=1, le=1_000_000, description="stream so many strings of `size` characters, `every_s` apart"
    )
    say: str | None = Field(default=None, description="print this on the standard output of the process")
    allocate_mb: int | None = Field(
        default=None, ge=1, le=1_048_576, description="take so many MiB of memory until the attempt ends"
    )
    # Actions that end the attempt
    done: Any = Field(default=None, description="end well with this output")
    echo: bool | None = Field(default=None, description="end well with the input as output")
    output_bytes: int | None = Field(
        default=None, ge=0, le=1_073_741_824, description="end well with a string of so many characters"
    )
    again: Any = Field(default=None, description="end with `continue` and this output")
    fail: str | None = Field(default=None, description="fail with this message, `code`, `retriable`, `retry_after_s`")
    error: str | None = Field(default=None, description="raise an exception with this message: the executor breaks")
    crash: Literal["exit", "kill", "segfault"] | None = Field(
        default=None,
        description="end the whole process: exit (code 70), kill (SIGKILL) or segfault; needs allow_crash = true, meant for hosted = true",
    )
    # What belongs to the actions
    text: str = Field(default="", description="text of `progress`")
    size: int = Field(default=100, ge=0, le=16_777_216, description="characters of each of `chunks`")
    every_s: float = Field(default=0.0, ge=0, le=3600, description="seconds between `chunks`")
    code: str = Field(default="agent.rehearsed", description="code of `fail`")
    retriable: bool = Field(default=False, description="whether another attempt could succeed after `fail`")
    retry_after_s: float | None = Field(default=None, ge=0, le=DAY_S, description="pause asked for by `fail`")
    # Conditions
    attempts: tuple[int, ...] = Field(default=(), description="only in attempts with these numbers; empty: in all")
    chance: float = Field(
        default=1.0, ge=0, le=1, description="only in this share of attempts; chosen by seed, attempt id and number"
    )

    @property
    def action(self) -> str:
        """Return the name of the one action."""
        return next(name for name in ACTIONS if name in self.model_fields_set)

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        named = [name for name in ACTIONS if name in self.model_fields_set]
        if len(named) != 1:
            msg = f"a step has exactly one of {', '.join(ACTIONS)}; this one has {' and '.join(named) or 'none'}"
            raise ValueError(msg)
        return self


ACTIONS = (
    "delay_s", "block_s", "ignore_cancel_s", "progress", "chunk", "chunks", "say", "allocate_mb",
    "done", "echo", "output_bytes", "again", "fail", "error", "crash",
)  # fmt: skip


class RehearsalConfig(PluginConfig):
    """Options of an agent that follows a script."""

    steps: tuple[Step, ...] = Field(
        default=(), max_length=STEPS_MAX, description="what happens, in order; at the end the input is the output"
    )
    script_from_input: bool = Field(
        default=False, description="follow the steps in the input's key `steps` instead, where it has one"
    )
    seed: int = Field(default=0, description="makes `chance` come out another way")
    allow_crash: bool = Field(default=False, description="allow `crash`: it ends the process, without hosted the node")
    open_delay_s: float = Field(default=0.0, ge=0, le=3600, description="seconds that starting takes")
    open_error: str = Field(default="", description="starting fails with this message and is tried again later")
    open_broken: str = Field(default="", description="starting fails with this message for good")
    close_delay_s: float = Field(default=0.0, ge=0, le=3600, description="seconds that stopping takes")
    probe_error: str = Field(default="", description="the health check fails with this message")
    background_crash_s: float | None = Field(
        default=None, ge=0, le=DAY_S, description="seconds after which a background task of the plugin crashes"
    )


_STEPS: TypeAdapter[tuple[Step, ...]] = TypeAdapter(tuple[Step, ...])


class Rehearsal:
    """The executor: follows the script."""

    def __init__(self, config: RehearsalConfig, context: Context) -> None:
        """Keep the script."""
        self._config = config
        self._context = context

    async def probe(self) -> None:
        """Raise what `probe_error` says."""
        if self._config.probe_error:
            raise Unavailable(self._config.probe_error, code="rehearsal.probe")

    async def execute(self, attempt: Attempt) -> Outcome:
        """Do the steps in order; without an ending the output is the input."""
        steps = self._config.steps
        if self._config.script_from_input and isinstance(attempt.input, dict) and "steps" in attempt.input:
            try:
                steps = _STEPS.validate_python(attempt.input["steps"])
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(str(part) for part in first["loc"])
                return Failed(f"steps.{place}: {first['msg']}", code="agent.input_invalid")
            if len(steps) > STEPS_MAX:
                return Failed(f"{len(steps)} steps, at most {STEPS_MAX} are allowed", code="agent.input_invalid")
        held: list[bytearray] = []
        chances = random.Random(f"{self._config.seed}:{attempt.id}:{attempt.number}")  # noqa: S311 - repeatable on purpose
        for step in steps:
            happens = chances.random() < step.chance
            if not happens or (step.attempts and attempt.number not in step.attempts):
                continue
            outcome = self._ending(step, attempt)
            if outcome is not None:
                return outcome
            await _happen(step, attempt, held)
        return Done(attempt.input)

    def _ending(self, step: Step, attempt: Attempt) -> Outcome | None:
        """Return the outcome when the step ends the attempt, None when it goes on; raises what `error` says."""
        outcome: Outcome | None = None
        match step.action:
            case "done":
                outcome = Done(step.done)
            case "echo":
                outcome = Done(attempt.input)
            case "output_bytes":
                outcome = Done("x" * (step.output_bytes or 0))
            case "again":
                outcome = Continue(step.again)
            case "fail":
                outcome = Failed(step.fail or "", step.code, step.retriable, step.retry_after_s)
            case "error":
                raise RuntimeError(step.error)
            case "crash" if self._config.allow_crash:
                _crash(step.crash or "exit")
            case "crash":
                outcome = Failed("`crash` needs allow_crash = true", code="agent.input_invalid")
        return outcome


async def _happen(step: Step, attempt: Attempt, held: list[bytearray]) -> None:  # noqa: C901 - one case per action
    """Do a step that goes on with the next one."""
    match step.action:
        case "delay_s":
            await asyncio.sleep(step.delay_s or 0)
        case "block_s":
            time.sleep(step.block_s or 0)  # noqa: ASYNC251 - holding up the loop is what was asked for
        case "ignore_cancel_s":
            await _stubborn(step.ignore_cancel_s or 0)
        case "progress":
            attempt.report.progress(step.progress, step.text)
        case "chunk":
            await attempt.report.stream(step.chunk)
        case "chunks":
            for number in range(step.chunks or 0):
                if number and step.every_s:
                    await asyncio.sleep(step.every_s)
                await attempt.report.stream("x" * step.size)
        case "say":
            sys.stdout.write(f"{step.say}\n")
            sys.stdout.flush()
        case "allocate_mb":
            for _ in range(step.allocate_mb or 0):
                held.append(bytearray(b"x") * 1_048_576)  # written, so that the system must really give it
                await asyncio.sleep(0)


async def _stubborn(wait_s: float) -> None:
    """Wait to the end whatever happens, then let the first cancel through."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + wait_s
    cancelled: asyncio.CancelledError | None = None
    while (left_s := end_s - loop.time()) > 0:
        try:
            await asyncio.sleep(left_s)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _crash(how: str) -> NoReturn:
    if how == "kill":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(70)  # without any clean-up, as a crash is


async def _crash_later(after_s: float) -> NoReturn:
    await asyncio.sleep(after_s)
    raise RuntimeError("the background task crashed, as rehearsed")


@asynccontextmanager
async def open_rehearsal(config: RehearsalConfig, context: Context) -> AsyncIterator[Executor]:
    """Start as the script says; raises `Unavailable` or `PluginFailed` when it says so."""
    if config.open_delay_s:
        await asyncio.sleep(config.open_delay_s)
    if config.open_broken:
        raise PluginFailed(config.open_broken, code="rehearsal.open")
    if config.open_error:
        raise Unavailable(config.open_error, code="rehearsal.open")
    executor = Rehearsal(config, context)
    try:
        if config.background_crash_s is None:
            yield executor
        else:
            async with asyncio.TaskGroup() as group:
                crash = group.create_task(_crash_later(config.background_crash_s))
                yield executor
                crash.cancel()
    finally:
        if config.close_delay_s:
            await asyncio.sleep(config.close_delay_s)


FACTORY: Factory[Executor] = Factory(
    name="rehearsal",
    config=RehearsalConfig,
    open=open_rehearsal,
    summary="Follows a script of delays, progress, output, failures and crashes: for tests.",
    abilities=("probe", "progress", "stream"),
)

"""How does a Python function become an agent?

An async function runs in the node's loop and is interrupted by a cancel. Any other function runs in a thread, which
Python cannot interrupt: see `worker_threads`. Generators stream what they yield.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import Field

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
)
from knotwork_plugins.executors.python_function import loading as function_loading
from knotwork_plugins.executors.python_function import raising
from knotwork_plugins.executors.python_function import threads as worker_threads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from knotwork.sdk import Reporter


class PythonConfig(PluginConfig):
    """Options of an agent that is a Python function."""

    function: str = Field(
        pattern=r"^.+:[A-Za-z_][A-Za-z0-9_.]*$",
        max_length=4096,
        description='what to call: "package.module:function" or "./file.py:function"',
    )
    path: tuple[str, ...] = Field(default=(), description="folders added at the end of the module search path")
    spread: bool = Field(
        default=False, description="give each key of the input (an object) as one argument, instead of the input itself"
    )
    retriable_errors: tuple[str, ...] = Field(
        default=("ConnectionError", "TimeoutError"),
        description="names of exceptions (their base classes count) after which another attempt may succeed",
    )
    threads_max: int = Field(
        default=64, ge=1, le=10_000, description="threads for functions that are not async; those given up count too"
    )
    chunks_max: int = Field(
        default=10_000, ge=1, le=1_000_000, description="values a generator may yield; they become the output"
    )

    def code_files(self, base: Path) -> tuple[Path, ...]:
        """Return the function's file; none for a module, which is imported once."""
        return function_loading.files_of(self.function, base)


class _FromThread:
    """The reporter as a function in a thread sees it: progress is carried over to the loop."""

    def __init__(self, report: Reporter, loop: asyncio.AbstractEventLoop) -> None:
        self._report = report
        self._loop = loop

    def progress(self, percent: float | None, text: str) -> None:
        """Say how far it is."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._report.progress, percent, text)

    async def stream(self, chunk: Any) -> None:
        """Send a chunk; only of use from the loop. A function in a thread yields its chunks instead."""
        await self._report.stream(chunk)


class PythonFunction:
    """The executor: one call per attempt."""

    def __init__(self, config: PythonConfig, context: Context, loaded: function_loading.Loaded) -> None:
        """Keep the function; threads come with the calls."""
        self._config = config
        self._context = context
        self._loaded = loaded
        self.threads = worker_threads.WorkerThreads(f"python-{context.id}", config.threads_max)

    async def execute(self, attempt: Attempt) -> Outcome:
        """Call the function once and make an outcome of what it returns or raises."""
        try:
            return await self._call(attempt)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this attempt: the function raised it, or awaited something that was cancelled.
            return Failed("the function ended with CancelledError though nobody cancelled it", code="agent.exception")
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - a border: the function is foreign code
            failed = raising.outcome(error, self._config.retriable_errors)
            if failed.code == "agent.exception":
                where = failed.detail.get("where", "")
                self._context.log.warning("%s raised %s (%s)", self._config.function, failed.message, where)
            return failed

    async def _call(self, attempt: Attempt) -> Outcome:
        loaded = self._loaded
        if not loaded.in_loop:
            attempt = replace(attempt, report=_FromThread(attempt.report, asyncio.get_running_loop()))
        bound = self._bind(attempt)
        if isinstance(bound, Failed):
            return bound
        if loaded.in_loop:
            value = loaded.call(*bound.args, **bound.kwargs)
        else:
            value = await self._in_thread(lambda: loaded.call(*bound.args, **bound.kwargs))
        if isinstance(value, AsyncGenerator):
            return await self._stream(value, attempt)
        if isinstance(value, Generator):
            return await self._stream(self._steps(value), attempt)
        if inspect.isawaitable(value):  # an async function, or one that returns what another async function returned
            value = await value
        return _outcome(value)

    def _bind(self, attempt: Attempt) -> inspect.BoundArguments | Failed:
        """Return the arguments of the call, or why the input does not fit."""
        loaded, given = self._loaded, attempt.input
        if self._config.spread:
            if not isinstance(given, dict):
                message = f"with spread = true the input must be an object, not {type(given).__name__}"
                return Failed(message, code="agent.input_invalid")
            extra = {"attempt": attempt} if loaded.takes_attempt else {}
            try:
                return loaded.signature.bind(**{**given, **extra})
            except TypeError as error:
                message = f"the input does not fit the function: {error}; it wants {loaded.signature}"
                return Failed(message[:2000], code="agent.input_invalid")
        if loaded.takes_attempt:
            return loaded.signature.bind(given, attempt)
        return loaded.signature.bind(given) if loaded.takes_input else loaded.signature.bind()

    async def _in_thread(self, function: Any) -> Any:
        try:
            return await self.threads.call(function)
        except asyncio.CancelledError:
            if self.threads.abandoned:
                self._context.log.warning(
                    "a call of %s was given up, but a thread cannot be interrupted; %d such threads run on",
                    self._config.function,
                    self.threads.abandoned,
                )
            raise

    async def _steps(self, generator: Generator[Any, None, Any]) -> AsyncGenerator[Any, None]:
        """Yield what a generator yields, each step in a thread; what it returns comes last, as an outcome."""
        try:
            while True:
                more, value = await self._in_thread(lambda: _step(generator))
                if not more:
                    if value is not None:
                        yield _outcome(value)
                    return
                yield value
        finally:
            with contextlib.suppress(ValueError):  # it is still running in its abandoned thread
                generator.close()

    async def _stream(self, chunks: AsyncGenerator[Any, None], attempt: Attempt) -> Outcome:
        """Stream every value; the output is the list of them, unless the generator gives an outcome itself."""
        kept: list[Any] = []
        async with aclosing(chunks):
            async for chunk in chunks:
                if isinstance(chunk, Done | Failed | Continue):
                    return _outcome(chunk)
                if len(kept) >= self._config.chunks_max:
                    message = f"the generator yielded more than chunks_max = {self._config.chunks_max} values"
                    return Failed(message, code="agent.output_too_large")
                plain = _outcome(chunk)
                if not isinstance(plain, Done):
                    return plain
                kept.append(plain.output)
                await attempt.report.stream(plain.output)
        return Done(kept)


def _step(generator: Generator[Any, None, Any]) -> tuple[bool, Any]:
    """Return (True, next value) or (False, what the generator returned)."""
    try:
        return True, next(generator)
    except StopIteration as stop:
        return False, stop.value


def _outcome(value: Any) -> Outcome:
    """Return an outcome whose output is plain data; dataclasses, dates, models, tuples and the like are made plain."""
    if isinstance(value, Failed):
        return value
    output = value.output if isinstance(value, Done | Continue) else value
    try:
        # There and back: what is checked and handed on is exactly what a receiver on another node would see.
        plain = msgspec.json.decode(msgspec.json.encode(output, enc_hook=_plain))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        return Failed(f"what the function returned is not JSON: {error}", code="agent.output_not_json")
    return Continue(plain) if isinstance(value, Continue) else Done(plain)


def _plain(value: Any) -> Any:
    if callable(getattr(value, "model_dump", None)):  # a pydantic model
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent as JSON")


@asynccontextmanager
async def open_python(config: PythonConfig, context: Context) -> AsyncIterator[Executor]:
    """Import the function; raises `PluginFailed` when it cannot be had or cannot be called."""
    for folder in config.path:
        if folder not in sys.path:
            sys.path.append(folder)  # at the end: a file of a user can never take the place of one of ours
    importing = worker_threads.WorkerThreads(f"python-{context.id}-import", 1)
    try:
        loaded = await importing.call(
            lambda: function_loading.load(config.function, spread=config.spread, base=context.base)
        )
    finally:
        importing.close()
    executor = PythonFunction(config, context, loaded)
    try:
        yield executor
    finally:
        executor.threads.close()
        loaded.forget()


FACTORY: Factory[Executor] = Factory(
    name="python",
    config=PythonConfig,
    open=open_python,
    summary="Calls a Python function, async or not; generators stream what they yield.",
    abilities=("progress", "stream"),
)

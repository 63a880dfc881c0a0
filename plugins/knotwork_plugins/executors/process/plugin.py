"""How does any command become an agent?

One process per attempt: the input goes in by stdin, argument or file, the answer is what the command prints, and
its exit code says how it went. Whatever happens, nothing of the command is left behind (see `process_group`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from knotwork.sdk import (
    Attempt,
    Context,
    Done,
    Executor,
    Factory,
    Failed,
    KnotworkError,
    Outcome,
    PluginConfig,
    SecretRef,
)
from knotwork_plugins.executors.process import group as process_group
from knotwork_plugins.executors.process import inputs as process_input
from knotwork_plugins.executors.process import missing as process_missing
from knotwork_plugins.executors.process import outputs as process_output
from knotwork_plugins.executors.process import tree as process_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MEBIBYTE = 1_048_576
MEMORY_LOOK_S = 0.1
THREADS = 4  # for the short blocking parts: writing the input, resolving secrets, reading the process table
# A process that was ended from outside did not fail by its own doing, so another attempt may succeed.
FROM_OUTSIDE = frozenset({"SIGHUP", "SIGINT", "SIGKILL", "SIGTERM"})


class ProcessConfig(PluginConfig):
    """Options of an agent that is a command."""

    command: tuple[str, ...] | str = Field(
        min_length=1,
        description='program and arguments, e.g. ["wc", "-l"]; one string only with shell = true',
    )
    shell: bool = Field(default=False, description="run the command string by /bin/sh; an argument input is then $1")
    cwd: str = Field(default="", max_length=4096, description="folder to run in; empty: that of the configuration file")
    env: dict[str, str | SecretRef] = Field(
        default_factory=dict, description="environment to add; values are strings or secret references"
    )
    pass_env: tuple[str, ...] = Field(
        default=(), description="names of the node's environment variables that the command gets too"
    )
    input_as: Literal["stdin", "argument", "file"] = Field(
        default="stdin",
        description="how the input is handed over: stdin; argument ({input} or last); file ({input_file} or last)",
    )
    input_format: Literal["auto", "json"] = Field(
        default="auto", description="auto: a string as it is, null as nothing, all else as JSON; json: always JSON"
    )
    output: Literal["text", "json", "jsonl"] = Field(
        default="text", description="what stdout is: text; json: one JSON value; jsonl: one JSON value per line"
    )
    trim: bool = Field(default=True, description="take white space off the end of a text output")
    stream: bool = Field(
        default=False, description="also send each line (text, with its end; jsonl) live while it runs"
    )
    progress_prefix: str = Field(
        default="@progress",
        max_length=64,
        description='lines beginning with it are progress, e.g. "@progress 40% reading"; empty: off',
    )
    progress_json: bool = Field(
        default=True,
        description='JSON lines {"progress": 40, "text": "…"} are progress: on stderr, and on stdout with jsonl',
    )
    ok_exit_codes: tuple[int, ...] = Field(default=(0,), description="exit codes that mean success")
    retriable_exit_codes: tuple[int, ...] = Field(
        default=(75,), description="exit codes that mean: try again (75 is EX_TEMPFAIL)"
    )
    time_limit_s: float | None = Field(
        default=None, gt=0, le=604_800, description="seconds one attempt may run; unset: the agent's timeout_s alone"
    )
    grace_s: float = Field(
        default=1.0, ge=0, le=30, description="seconds between SIGTERM and SIGKILL; over 1.5 a cancel takes over 2 s"
    )
    memory_limit_mb: int = Field(
        default=0, ge=0, le=16_777_216, description="MiB the command and all its children may hold; 0: no limit"
    )
    output_max_bytes: int = Field(
        default=8 * MEBIBYTE, ge=1, le=1_073_741_824, description="bytes of output; a command that says more is ended"
    )
    stderr_max_bytes: int = Field(
        default=8192, ge=0, le=MEBIBYTE, description="bytes of the end of stderr kept for the message of a failure"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shell != isinstance(self.command, str):
            msg = (
                "command must be one string with shell = true" if self.shell else 'command must be a list, e.g. ["wc"]'
            )
            raise ValueError(msg)
        if not self.argv[0] or any("\0" in part for part in self.argv):
            msg = "command names no program, or contains a zero byte"
            raise ValueError(msg)
        if wrong := [name for name in (*self.env, *self.pass_env) if not name or "=" in name or "\0" in name]:
            msg = f"no environment variable can be called {wrong[0]!r}"
            raise ValueError(msg)
        return self

    @property
    def argv(self) -> list[str]:
        """Return the command as a list; a shell gets what follows as $1 and on."""
        return ["/bin/sh", "-c", self.command, "knotwork"] if isinstance(self.command, str) else list(self.command)


class _Stopped(Exception):
    """The attempt is over before the command is; `failed` says why."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Process:
    """The executor: one process group per attempt."""

    def __init__(self, config: ProcessConfig, context: Context, threads: ThreadPoolExecutor) -> None:
        """Keep what attempts need; `threads` do the short blocking parts."""
        self._config = config
        self._context = context
        self._threads = threads
        self._memory = process_tree.MemoryTable(MEMORY_LOOK_S)
        self._cwd = context.base / Path(config.cwd).expanduser()

    async def probe(self) -> None:
        """Raise `Unavailable` when the command or its folder is not there."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._look)

    async def sweep(self) -> None:
        """Remove the inputs that a node left behind that was killed."""
        await asyncio.get_running_loop().run_in_executor(self._threads, process_input.sweep, self._context.folder)

    async def execute(self, attempt: Attempt) -> Outcome:
        """Run the command once and say how it ended."""
        config = self._config
        limit = asyncio.timeout(config.time_limit_s)
        try:
            prepared = await self._prepare(attempt)
            try:
                async with limit:
                    return await self._run(attempt, prepared)
            finally:
                prepared.close()
        except process_input.Refused as refused:
            return refused.failed
        except KnotworkError as error:  # a secret that cannot be had
            return Failed(str(error), error.code, error.retriable, error.retry_after_s)
        except TimeoutError:
            if not limit.expired():
                raise
            return Failed(
                f"the command ran longer than time_limit_s = {config.time_limit_s} s and was ended",
                code="agent.timed_out",
                retriable=True,
            )

    async def _run(self, attempt: Attempt, prepared: process_input.Prepared) -> Outcome:
        """Start, follow, judge."""
        config = self._config
        words = process_output.ProgressWords(config.progress_prefix, config.progress_json, attempt.report.progress)
        answer = process_output.Answer(config.output, config.output_max_bytes, words, config.trim, config.stream)
        last_words = process_output.LastWords(config.stderr_max_bytes, words)
        try:
            async with process_group.spawn(
                prepared.argv,
                env=prepared.env,
                cwd=self._cwd,
                stdin=asyncio.subprocess.DEVNULL if prepared.stdin is None else prepared.stdin,
                grace_s=config.grace_s,
                threads=self._threads,
            ) as child:
                await self._follow(child, attempt, answer, last_words)
                returncode = child.returncode
        except _Stopped as stopped:
            return stopped.failed
        except (OSError, ValueError) as error:
            return await self._not_started(prepared.argv[0], error)
        return self._judge(returncode, answer, last_words.text())

    async def _follow(
        self,
        child: process_group.Child,
        attempt: Attempt,
        answer: process_output.Answer,
        last_words: process_output.LastWords,
    ) -> None:
        """Read both streams until the command is over; raises `_Stopped` when it must be ended before."""
        first: _Stopped | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_answer(child, attempt, answer))
                group.create_task(_read_last_words(child, last_words))
                watch = group.create_task(self._watch_memory(child)) if self._config.memory_limit_mb else None
                await child.wait(self._config.grace_s)
                if watch is not None:
                    watch.cancel()
        except* _Stopped as stops:
            first = next(stop for stop in stops.exceptions if isinstance(stop, _Stopped))
        if first is not None:
            raise first

    async def _read_answer(self, child: process_group.Child, attempt: Attempt, answer: process_output.Answer) -> None:
        try:
            while data := await child.read(1):
                for chunk in answer.feed(data):
                    await attempt.report.stream(chunk)
                await asyncio.sleep(0)  # reading from a full buffer does not wait, so a flood would hold the loop
            for chunk in answer.finish():
                await attempt.report.stream(chunk)
        except process_output.TooMuchOutput:
            raise _Stopped(
                Failed(
                    f"the command said more than output_max_bytes = {self._config.output_max_bytes} and was ended",
                    code="agent.output_too_large",
                )
            ) from None

    async def _watch_memory(self, child: process_group.Child) -> None:
        """End the attempt when the whole tree holds too much.

        The kernel's limit counts reserved private memory of one process, so it stands well above ours: it is the
        brake for a process that grows by gigabytes between two looks.
        """
        limit_bytes = self._config.memory_limit_mb * MEBIBYTE
        child.limit_memory(2 * limit_bytes + 512 * MEBIBYTE)
        loop = asyncio.get_running_loop()
        while True:
            used = await loop.run_in_executor(self._threads, self._memory.resident_bytes, child.pid)
            if used > limit_bytes:
                raise _Stopped(
                    Failed(
                        f"the command and its children held {used // MEBIBYTE} MiB, over "
                        f"memory_limit_mb = {self._config.memory_limit_mb}, and were ended",
                        code="agent.memory_exceeded",
                    )
                )
            await asyncio.sleep(MEMORY_LOOK_S)

    def _judge(self, returncode: int | None, answer: process_output.Answer, said: str) -> Outcome:
        """Make an outcome of exit code and output."""
        config = self._config
        detail: dict[str, Any] = {"exit_code": returncode, **({"stderr": said} if said else {})}
        if said:
            self._context.log.debug("stderr of the command: %s", said)
        if returncode is None or returncode < 0:
            name = _signal_name(returncode)
            message = f"the command was ended by {name}"
            return Failed(message, code="agent.killed", retriable=name in FROM_OUTSIDE, detail=detail)
        if returncode not in config.ok_exit_codes:
            last = said.splitlines()[-1][:500] if said else "nothing on stderr"
            return Failed(
                f"the command ended with exit code {returncode}: {last}",
                code="agent.exit_code",
                retriable=returncode in config.retriable_exit_codes,
                detail=detail,
            )
        try:
            return Done(answer.value())
        except process_output.NotJson as error:
            return Failed(
                f"the command succeeded, but its output is not {config.output}: {error}",
                code="agent.output_not_json",
                detail=detail,
            )

    async def _prepare(self, attempt: Attempt) -> process_input.Prepared:
        """Make arguments, environment and input in a thread; what it holds is given back if we are cancelled."""
        future = self._threads.submit(self._prepare_blocking, attempt)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() is not None else done.result().close()
            )
            raise

    def _prepare_blocking(self, attempt: Attempt) -> process_input.Prepared:
        config = self._config
        data = process_input.as_bytes(attempt.input, config.input_format)
        prepared = process_input.Prepared(config.argv, self._environment(attempt))
        try:
            if config.input_as == "argument":
                prepared.argv = process_input.with_argument(config.argv, data, shell=config.shell)
            elif config.input_as == "file":
                suffix = ".txt" if isinstance(attempt.input, str) and config.input_format == "auto" else ".json"
                prepared.folder, prepared.held, file = process_input.in_file(data, self._context.folder, suffix=suffix)
                prepared.env["KNOTWORK_INPUT_FILE"] = str(file)
                prepared.argv = process_input.with_file(config.argv, str(file), shell=config.shell)
            elif data:
                prepared.stdin = process_input.on_stdin(data)
        except OSError as error:
            prepared.close()
            message = f"cannot keep the input for the command: {error}"
            raise process_input.Refused(Failed(message, code="agent.input_not_kept", retriable=True)) from error
        return prepared

    def _environment(self, attempt: Attempt) -> dict[str, str]:
        config = self._config
        extra = {name: os.environ[name] for name in config.pass_env if name in os.environ}
        for name, value in config.env.items():
            extra[name] = value if isinstance(value, str) else self._context.secrets(value)
        told = {
            "KNOTWORK_ATTEMPT_ID": attempt.id,
            "KNOTWORK_ATTEMPT_NUMBER": str(attempt.number),
            "KNOTWORK_IDEMPOTENCY_KEY": attempt.idempotency_key,
            "KNOTWORK_CAPABILITY": attempt.capability,
            "KNOTWORK_BOUNDARY": attempt.boundary,
            "KNOTWORK_PROJECT": attempt.project,
            "TRACEPARENT": attempt.traceparent,
        }
        extra.update({name: value.replace("\0", "") for name, value in told.items() if value})
        return self._context.child_env(extra)

    def _look(self) -> None:
        process_missing.look(self._config.argv[0], self._cwd, self._config.env, self._context)

    async def _not_started(self, program: str, error: Exception) -> Failed:
        found: KnotworkError | None = None
        try:
            await self.probe()
        except KnotworkError as missing:
            found = missing
        return Failed(
            process_missing.told(program, error, found),
            code="agent.not_started",
            retriable=isinstance(error, BlockingIOError | FileNotFoundError),
        )


async def _read_last_words(child: process_group.Child, last_words: process_output.LastWords) -> None:
    while data := await child.read(2):
        last_words.feed(data)
        await asyncio.sleep(0)


def _signal_name(returncode: int | None) -> str:
    try:
        return signal.Signals(-(returncode or 0)).name
    except ValueError:
        return f"signal {-(returncode or 0)}"


@asynccontextmanager
async def open_process(config: ProcessConfig, context: Context) -> AsyncIterator[Executor]:
    """Open the executor; raises `Unavailable` when the command is not there (it is looked for again later)."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"process-{context.id}")
    try:
        executor = Process(config, context, threads)
        await executor.sweep()
        await executor.probe()
        yield executor
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


FACTORY: Factory[Executor] = Factory(
    name="process",
    config=ProcessConfig,
    open=open_process,
    summary="Runs a command: the input goes in by stdin, argument or file, what it prints is the answer.",
    abilities=("probe", "progress", "stream"),
)

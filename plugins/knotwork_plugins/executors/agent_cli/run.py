"""How is an agent's command line run, with its output read line by line within limits?

The process itself, and that nothing of it stays behind, is `process_group`'s business.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from knotwork_plugins.executors.process import group as process_group

_EXIT_S = 5.0  # time to exit after closing its output, and of silence after its last word
_STDERR_KEPT = 16_384
_STDOUT, _STDERR = 1, 2

OnLine = Callable[[bytes], Awaitable[bool]]
"""Takes one line; whether the command has said all that was asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run: bytes of one line (longer ones are skipped) and of all output, seconds of silence and grace."""

    line_max: int = 8_000_000
    output_max: int = 256_000_000
    idle_timeout_s: float = 900.0
    grace_s: float = 1.0


@dataclass(slots=True)
class Ending:
    """How the run ended. `exit_code` is negative for a signal and None when the process would not die."""

    exit_code: int | None = None
    why: Literal["exited", "silent", "too_much"] = "exited"
    skipped_lines: int = 0
    stderr: bytearray = field(default_factory=bytearray)
    heard_at_s: float = 0.0
    finished: bool = False

    def complaint(self) -> str:
        """Return the end of what it wrote to stderr."""
        return self.stderr.decode("utf-8", "replace").strip()

    def hear(self) -> None:
        """Remember that it gave a sign of life."""
        self.heard_at_s = asyncio.get_running_loop().time()


class Lines:
    """Cuts a byte stream into lines, skipping (and counting) those longer than `line_max` bytes."""

    def __init__(self, line_max: int) -> None:
        """Start empty."""
        self.line_max = line_max
        self.skipped = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    def push(self, chunk: bytes) -> list[bytes]:
        """Add a chunk and return the lines it completed, stripped, empty ones left out."""
        *ended, rest = chunk.split(b"\n")
        lines: list[bytes] = []
        for part in ended:
            self._add(part)
            if line := self.rest():
                lines.append(line)
        self._add(rest)
        return lines

    def rest(self) -> bytes:
        """Take what stands after the last line end."""
        line = b"" if self._skipping else b"".join(self._parts).strip()
        self._parts, self._size, self._skipping = [], 0, False
        return line

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._skipping:
            return
        if self._size > self.line_max:
            self._parts, self._skipping = [], True
            self.skipped += 1
        elif part:
            self._parts.append(part)


async def run(
    argv: tuple[str, ...],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: str,
    limits: Limits,
    threads: ThreadPool,
    on_line: OnLine,
) -> Ending:
    """Run a command to its end, handing every line of its stdout to `on_line`.

    One that has said all and does not exit (some wait for ever for what they started) is ended after 5 s of silence.
    When this returns or raises, cancellation included, nothing of the command runs any more. Raises OSError or
    ValueError when it cannot be started.
    """
    ending = Ending()
    # A file, not a pipe: nobody must feed it, and a command that does not read its input cannot block anything.
    with await asyncio.to_thread(_file_with, stdin) as source:
        async with process_group.spawn(
            argv, env=env, cwd=cwd, stdin=source.fileno(), grace_s=limits.grace_s, threads=threads
        ) as child:
            ending.hear()
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(_read(child, limits, on_line, ending))
                listener = group.create_task(_keep_tail(child, ending))
                leaver = group.create_task(child.wait(limits.grace_s))
                await _until_over(reader, leaver, limits, ending)
                for task in (reader, listener, leaver):
                    task.cancel()
            await child.end(limits.grace_s)
            ending.exit_code = child.returncode
    return ending


def _file_with(text: str) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(text.encode("utf-8", "replace"))
    file.seek(0)
    return file


async def _keep_tail(child: process_group.Child, ending: Ending) -> None:
    while chunk := await child.read(_STDERR):
        ending.hear()
        ending.stderr += chunk
        del ending.stderr[:-_STDERR_KEPT]


async def _read(child: process_group.Child, limits: Limits, on_line: OnLine, ending: Ending) -> None:
    lines, total = Lines(limits.line_max), 0
    while chunk := await child.read(_STDOUT):
        ending.hear()
        for line in lines.push(chunk):
            ending.finished = await on_line(line)
        ending.skipped_lines = lines.skipped
        total += len(chunk)
        if total > limits.output_max:
            ending.why = "too_much"
            return
    if rest := lines.rest():
        await on_line(rest)
    ending.skipped_lines = lines.skipped


async def _until_over(reader: asyncio.Task[None], leaver: asyncio.Task[None], limits: Limits, ending: Ending) -> None:
    """Return when the output has ended (and the command had its time to exit), or a limit is passed."""
    clock = asyncio.get_running_loop().time
    while not reader.done():
        idle_s = min(_EXIT_S, limits.idle_timeout_s) if ending.finished else limits.idle_timeout_s
        patience_s = ending.heard_at_s + idle_s - clock()
        if patience_s <= 0:
            ending.why = "silent"
            return
        # Not for long: the next line may be the last, after which there is less patience.
        await asyncio.wait({reader}, timeout=min(patience_s, _EXIT_S))
    if ending.why == "exited":
        await asyncio.wait({leaver}, timeout=_EXIT_S)

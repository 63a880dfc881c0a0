"""Where can what happened be read afterwards? In a file, one JSON object per line, rotated by size."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from knotwork.sdk import Context, Factory, Record, Telemetry, Unavailable
from knotwork_plugins.telemetry import lines, thread
from knotwork_plugins.telemetry.sink import SinkConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


CLOSE_TIMEOUT_S = 2.0
_FLAGS = (
    os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody reads would not be opened for ever
)  # fmt: skip


class JsonlConfig(SinkConfig):
    """A file of JSON lines."""

    path: str = Field(
        default="", max_length=4096, description='file to write; "": telemetry.jsonl in the folder of the plugin'
    )
    max_bytes: int = Field(
        default=64 * 1024 * 1024, ge=4096, le=1 << 40, description="size at which a new file is begun"
    )
    files: int = Field(default=5, ge=1, le=1000, description="files kept, with the one being written: path, path.1, …")


class RotatingFile:
    """A file that is appended to; made for its owner alone (0600), begun anew when it is full or was moved away.

    A pipe or a device is written to as it is.
    """

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        """Name it; nothing is opened yet. `max_bytes` is in bytes, `files` how many are kept."""
        self._path, self._max_bytes, self._files = path, max_bytes, files
        self._file, self._size, self._limit = -1, 0, max_bytes

    def open(self) -> None:
        """Open it, with its folder; raises `OSError`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def write(self, data: list[bytes]) -> None:
        """Append lines, whole ones, rotating between them; raises `OSError`."""
        if self._moved():
            self.close()
            self._open()
        start = 0
        while start < len(data):
            end, size = self._fitting(data, start)
            if end == start:  # not even one line fits: begin a new file, unless this one is new
                if self._size:
                    self._rotate()
                    continue
                end, size = start + 1, len(data[start]) + 1
            self._append(b"\n".join(data[start:end]) + b"\n", size)
            start = end

    def close(self) -> None:
        """Close it; it may be closed twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        self._file = os.open(self._path, _FLAGS, 0o600)
        status = os.fstat(self._file)
        # nothing but a file is moved aside: that would take /dev/stdout from everybody
        is_file = stat.S_ISREG(status.st_mode)
        self._size, self._limit = (status.st_size, self._max_bytes) if is_file else (0, sys.maxsize)
        if not is_file and sys.platform != "win32":
            os.set_blocking(self._file, True)  # it is open: from now on whoever reads may be slow

    def _append(self, block: bytes, size: int) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += size

    def _fitting(self, data: list[bytes], start: int) -> tuple[int, int]:
        """Return the end and the size in bytes of the run of lines from `start` that still fits."""
        size, end = 0, start
        while end < len(data) and self._size + size + len(data[end]) + 1 <= self._limit:
            size += len(data[end]) + 1
            end += 1
        return end, size

    def _moved(self) -> bool:
        """Whether somebody else (logrotate, a person) moved or removed the file."""
        if self._file < 0:
            return True
        try:
            return not os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return True

    def _rotate(self) -> None:
        self.close()
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number)
            newer = self._path if number == 1 else self._numbered(number - 1)
            if newer.exists():
                newer.replace(older)
        if self._files == 1:
            self._path.unlink(missing_ok=True)
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class Jsonl:
    """The sink; the file is written in a thread of its own."""

    def __init__(self, config: JsonlConfig, file: RotatingFile, worker: thread.Worker) -> None:
        """Use `open_jsonl`."""
        self.wants = config.wants
        self._file, self._worker = file, worker
        self._line: Callable[[Record], bytes] = lines.encoder()

    async def emit(self, records: Sequence[Record]) -> None:
        """Append the records; raises `OSError` when the file can not be written."""
        data = [self._line(record) for record in records]
        await self._worker.run(lambda: self._file.write(data))


@asynccontextmanager
async def open_jsonl(config: JsonlConfig, context: Context) -> AsyncIterator[Telemetry]:
    """Open the file; raises `Unavailable` when it can not be written."""
    path = _path(config, context)
    worker = thread.Worker(f"telemetry {context.id}")
    file = RotatingFile(path, config.max_bytes, config.files)
    try:
        try:
            await worker.run(file.open)
        except OSError as error:
            raise Unavailable(
                f"The telemetry file {path} can not be written: {error.strerror or error}.",
                code="telemetry.file_unwritable",
                hint=f"Make it writable, or set `path` of [telemetry.{context.id}] to another file.",
            ) from error
        yield Jsonl(config, file, worker)
    finally:
        try:
            with contextlib.suppress(TimeoutError, OSError):  # a dead disk: the file ends with the process
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await worker.run(file.close)
        finally:
            worker.close()


def _path(config: JsonlConfig, context: Context) -> Path:
    return context.base / Path(config.path).expanduser() if config.path else context.folder / "telemetry.jsonl"


FACTORY: Factory[Telemetry] = Factory(
    name="jsonl",
    config=JsonlConfig,
    open=open_jsonl,
    summary="Appends events, spans and metrics to a file, one JSON object per line, rotated by size.",
)

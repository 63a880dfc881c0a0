"""A nats-server of a test's own: any config text, killed and started again on the same port, frozen and thawed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.free_port import free_port

from knotwork.bus import binary, child

READY_S = 60.0


class RawServer:
    def __init__(self, folder: Path, extra: str = "", *, jetstream: bool = True, sync_always: bool = False) -> None:
        self.folder = folder
        self.extra = extra
        self.jetstream = jetstream
        self.sync_always = sync_always
        self.port = 0
        self.scheme = "nats"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, or start it again at the same port."""
        for _ in range(10):
            fresh = self.port == 0
            self.port = self.port or free_port()  # none that the system hands out: somebody could get it meanwhile
            try:
                await self._start()
            except RuntimeError:
                if not fresh or "address already in use" not in self.log():
                    raise
                self.port = 0
            else:
                return

    async def _start(self) -> None:
        (self.folder / "ports").mkdir(parents=True, exist_ok=True)
        conf = self.folder / "server.conf"
        store = ""
        if self.jetstream:
            sync = "sync_interval: always" if self.sync_always else ""
            store = f'jetstream {{ store_dir: "{self.folder / "store"}", max_file_store: 1GB\n {sync} }}'
        conf.write_text(
            f'host: 127.0.0.1\nport: {self.port}\nports_file_dir: "{self.folder / "ports"}"\n{store}\n{self.extra}\n'
        )
        out = os.open(self.folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await child.spawn(binary.find().path, "-c", conf, stdout=out, stderr=out)
        finally:
            os.close(out)
        file, end_s = self.folder / "ports" / f"nats-server_{self.pid}.ports", time.monotonic() + READY_S
        while True:
            try:
                self.port = int(json.loads(file.read_bytes())["nats"][0].rpartition(":")[2])
            except (FileNotFoundError, ValueError, KeyError, IndexError):
                if self._process.returncode is not None or time.monotonic() > end_s:
                    raise RuntimeError(self.log()) from None
                await asyncio.sleep(0.002)
            else:
                return

    def log(self) -> str:
        return (self.folder / "server.log").read_text()[-4000:]

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def freeze(self) -> None:
        """Stop it; returns when it stands still, which on a busy machine takes a moment."""
        os.kill(self.pid, signal.SIGSTOP)
        end_s = time.monotonic() + READY_S
        while any(_state(thread) != "T" for thread in Path(f"/proc/{self.pid}/task").glob("*/stat")):
            assert time.monotonic() < end_s, "it does not stand still"
            time.sleep(0.001)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "T"  # this thread has ended


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[RawServer]:
    """Run one inside the block; nothing of it is left."""
    async with child.guard():
        made = RawServer(folder)
        await made.start()
        yield made
        await made.kill()


class Proxy:
    """A TCP link that can be cut in two ways: closed, or left open with nothing going through."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.open = asyncio.Event()
        self.open.set()
        self.dead = False
        self.accepted = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def stall(self) -> None:
        """Forward nothing any more on the connections there are; new ones work."""
        for writer in self._writers:
            writer.stalled = True  # type: ignore[attr-defined]

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.dead:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer))
                group.create_task(self._pump(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                one.transport.abort()
                self._writers.discard(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not getattr(writer, "stalled", False):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        writer.transport.abort()

"""FastStream's RPC over NATS, caller and agent in a process each, on uvloop; `NATS_SERVER` is the server's executable."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import uvloop
from calls import PAYLOAD, SERVE, measure
from faststream import FastStream
from faststream.nats import NatsBroker


def _broker(url: str) -> NatsBroker:
    return NatsBroker(url, logger=None, graceful_timeout=None)


async def serve(url: str) -> None:
    """Answer for ever."""
    broker = _broker(url)

    @broker.subscriber("echo")
    async def echo(body: bytes) -> bytes:
        return body

    await FastStream(broker, logger=None).run()


async def call(url: str) -> None:
    """Measure from this process."""
    async with _broker(url) as broker:
        await measure(lambda: broker.request(PAYLOAD, "echo", timeout=30.0))


def main() -> None:
    """Run the server, the other side, and the caller."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"nats://127.0.0.1:{port}"
    server = subprocess.Popen(
        [os.environ["NATS_SERVER"], "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    other = subprocess.Popen([sys.executable, __file__, SERVE, url])
    try:
        uvloop.run(call(url))
    finally:
        for process in (other, server):
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        uvloop.run(serve(sys.argv[2]))
    else:
        main()

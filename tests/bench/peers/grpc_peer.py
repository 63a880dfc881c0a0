"""gRPC's asyncio for Python, caller and agent in a process each: one unary method on plain bytes, no schema."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import grpc
from calls import PAYLOAD, SERVE, measure

METHOD = "/peer.Echo/Say"


async def serve(address: str) -> None:
    """Answer for ever."""

    async def say(request: bytes, _context: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(say)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("peer.Echo", {"Say": handler}),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


async def call(address: str) -> None:
    """Measure from this process."""
    async with grpc.aio.insecure_channel(address) as channel:
        say = channel.unary_unary(METHOD)
        await measure(lambda: say(PAYLOAD))


def main() -> None:
    """Run the other side and the caller."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    other = subprocess.Popen([sys.executable, __file__, SERVE, address])
    try:
        asyncio.run(call(address))
    finally:
        other.kill()
        other.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main()

"""Not a test: a thin client that asks one op and prints each frame. Arguments: address, op, request, time-out in s."""

from __future__ import annotations

import asyncio
import sys

from knotwork.bus import client
from knotwork.bus.endpoint import Endpoint


async def main(url: str, op: str, request: str, timeout_s: str) -> None:
    endpoint = Endpoint((url,), pause_min_s=0.5, pause_max_s=1.0)
    async for frame in client.call(endpoint, op, request.encode(), timeout_s=float(timeout_s)):
        sys.stdout.write(f"{frame.kind} {frame.data.decode()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

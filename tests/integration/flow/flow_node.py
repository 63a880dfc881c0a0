"""A node that works on tasks and looks after runs, in a process of its own. `python flow_node.py '{…}'`; see `work_node`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from tests.integration.work import work_node

from knotwork.flow.room import Flow, open_flow
from knotwork.work.room import Work


@contextlib.asynccontextmanager
async def open_node(
    url: str, seed: str, name: str, agents: dict[str, Any], lease_s: float = 2.0
) -> AsyncIterator[tuple[Work, Flow]]:
    """Work and look after runs inside the block."""
    async with (
        work_node.open_node(url, seed, name, agents, lease_s=lease_s) as work,
        open_flow(work.recorder._connection, work, node=name) as flow,
    ):
        async with asyncio.timeout(30):
            await flow.shards.settled()
        yield work, flow


async def main(url: str, seed: str, name: str, agents: dict[str, Any], lease_s: float) -> None:
    """Work until killed."""
    async with open_node(url, seed, name, agents, lease_s):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))

"""A node that works, looks after runs and sees to triggers, in a process of its own. `python trigger_node.py '{…}'`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

from knotwork.config import secrets
from knotwork.flow.room import Flow
from knotwork.trigger.room import Triggers, open_triggers


def _load(path: Path) -> ModuleType:
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[path.stem]


flow_node = _load(Path(__file__).parents[1] / "flow" / "flow_node.py")


@contextlib.asynccontextmanager
async def open_node(url: str, seed: str, name: str, agents: dict[str, Any]) -> AsyncIterator[tuple[Flow, Triggers]]:
    """Be such a node inside the block."""
    async with (
        flow_node.open_node(url, seed, name, agents) as (work, flow),
        open_triggers(flow.connection, work, flow, node=name, read=secrets.resolve) as triggers,
    ):
        async with asyncio.timeout(30):
            await triggers.store.current.wait()
        yield flow, triggers


async def main(url: str, seed: str, name: str, agents: dict[str, Any]) -> None:
    """Work until killed."""
    async with open_node(url, seed, name, agents):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))

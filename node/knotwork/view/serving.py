"""What does the process of the view do? It follows every project it is told to, until standard input ends.

It is told what to do by lines of JSON on standard input, credentials included, and says how it stands on standard
output.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint, Tls
from knotwork.view import archive
from knotwork.view.follow import Follower

LINE_MAX_BYTES = 1024 * 1024


class Order(msgspec.Struct, frozen=True):
    """One line from the node. `endpoint` is what `spell` made; `room` are bytes used and bytes there are."""

    do: str
    project: str
    path: str = ""
    endpoint: dict[str, Any] = {}
    number: int = 0
    room: tuple[int, int] = (0, 0)


def spell(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint as plain data."""
    return asdict(endpoint)


def read(spelled: dict[str, Any]) -> Endpoint:
    """Return the endpoint that `spell` was given."""
    tls = spelled.get("tls")
    return Endpoint(**{**spelled, "urls": tuple(spelled["urls"]), "tls": Tls(**tls) if tls else None})


class Following:
    """The projects that are followed."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        """Follow in tasks of `group`."""
        self._group = group
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._followers: dict[str, Follower] = {}
        self._room = (0, 0)

    async def do(self, order: Order) -> None:
        """Carry out one order."""
        follower = self._followers.get(order.project)
        match order.do:
            case "follow":
                await self._leave(order.project)
                follower = self._followers[order.project] = Follower(order.project, Path(order.path), _say)
                self._tasks[order.project] = self._group.create_task(
                    self._follow(order, follower), name=f"view {order.project}"
                )
            case "room":
                self._room = order.room
            case "leave":
                await self._leave(order.project)
            case "sync" if follower is not None:
                follower.sync(order.number)
            case "look" if follower is not None:
                follower.look()
            case "rebuild" if follower is not None:
                follower.rebuild()

    async def _leave(self, project: str) -> None:
        task = self._tasks.pop(project, None)
        self._followers.pop(project, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self, order: Order, follower: Follower) -> None:
        """Follow a project, and pack its past for everybody when it is our turn: both read the same facts."""
        async with (
            background() as group,
            open_connection(read(order.endpoint), wait_first=False) as connection,
        ):
            archiver = archive.Archiver(connection, owner=f"{order.endpoint.get('name', '')} {os.getpid()}")
            archiver.relief.storage.shared = lambda: self._room
            group.create_task(archiver.run(), name=f"archive {order.project}")
            await follower.run(connection)


async def serve() -> None:
    """Do what standard input says, until it ends."""
    reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    decoder = msgspec.json.Decoder(Order)
    async with background() as group:
        following = Following(group)
        while line := await reader.readline():
            await following.do(decoder.decode(line))


def _say(told: dict[str, Any]) -> None:
    """Tell the node; one write for each line."""
    with contextlib.suppress(BrokenPipeError):  # it is gone, and so are we in a moment
        os.write(1, msgspec.json.encode(told) + b"\n")


def run() -> None:
    """Serve, on the loop that a node runs on."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if sys.platform == "win32":
        asyncio.run(serve())
    else:
        import uvloop  # not there on Windows

        uvloop.run(serve())

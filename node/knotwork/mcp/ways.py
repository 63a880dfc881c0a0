"""By which way is the node asked? Over NATS with its local key, or over its HTTP door when its NATS gives it none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.bus.endpoint import Endpoint
    from knotwork.bus.http_client import Door


class Piece(Protocol):
    """One answer: `kind` is chunk, progress, result or error, `data` JSON."""

    @property
    def kind(self) -> str:
        """Return what it is."""
        ...

    @property
    def data(self) -> bytes:
        """Return what it says."""
        ...


class Asker(Protocol):
    """Asks for ops over one way to the node."""

    def __call__(
        self, op: str, request: bytes, *, timeout_s: float, session: str = "", at: str = "", traceparent: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of an answer, the last one being `result` or `error`; leaving early stops the work.

        A session is known at one node alone: `at` names it, where any of them might answer. `traceparent` is the trace
        that what is done belongs to.
        """
        ...


Ask = Callable[..., Awaitable[dict[str, Any]]]
"""Asks for one op in the name of an agent, whatever the way: `await ask("agents.list", limit=10)`; raises what it raises."""
Way = Callable[[], AbstractAsyncContextManager[Asker]]
"""Connects inside a block, and yields what asks."""


def by_nats(endpoint: Endpoint, node: str) -> Way:
    """Return the way over NATS to the node of this name, to any node for no name."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Asker]:
        from knotwork.bus import client  # nats-py: a list of tools needs none of it
        from knotwork.bus.connection import open_connection

        async with open_connection(endpoint) as connection:

            def ask(
                op: str, request: bytes, *, timeout_s: float, session: str = "", at: str = "", traceparent: str = ""
            ) -> AsyncGenerator[Piece, None]:
                return client.over(
                    connection, op, request, timeout_s=timeout_s, node=node or at, patient=False, session=session,
                    traceparent=traceparent,
                )  # fmt: skip

            yield ask

    return opened


def by_http(door: Door) -> Way:
    """Return the way over a node's HTTP door."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Asker]:
        from knotwork.bus import http_client  # likewise

        def ask(
            op: str, request: bytes, *, timeout_s: float, session: str = "", at: str = "", traceparent: str = ""
        ) -> AsyncGenerator[Piece, None]:
            del at  # there is one node behind a door
            return http_client.over(door, op, request, timeout_s=timeout_s, session=session, traceparent=traceparent)

        yield ask

    return opened

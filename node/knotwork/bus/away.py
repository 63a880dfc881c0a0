"""What does somebody get to hear while NATS is away? Typed errors that say whether anything was sent, and what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from knotwork.sdk.errors import Denied, KnotworkError, Unavailable, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.endpoint import Endpoint

BLINK_S = 2.0
"""A connection that was lost for less may be back in a moment: whoever asks for something waits for it."""


class Link(Protocol):
    """What is looked at of a connection (`connection.Connection`)."""

    endpoint: Endpoint
    last_error: str
    failure: KnotworkError | None
    forbidden: str

    @property
    def state(self) -> str:
        """Return how it is."""
        ...

    def down_for_s(self) -> float:
        """Return for how many seconds it has not been connected."""
        ...


def lost_error(subject: str) -> Unreachable:
    """Return the error of whoever waited for the server's own answer when the connection was lost."""
    return Unreachable(
        f"The connection to NATS was lost before {subject[:200]} was answered; it may be done or not.",
        code="bus.lost",
        retry_after_s=1.0,
    )


def leaves(who: str, project: str) -> Unavailable:
    """Return the error of whoever waits for something of a project that his node leaves, or may come back to."""
    return Unavailable(f"{who} leaves {project}.", code="bus.disconnected", retry_after_s=1.0)


def not_connected(connection: Link) -> Unreachable:
    """Return the error of what was not sent, because there is no connection."""
    known = f"No connection to NATS at {connection.endpoint.shown}: {connection.last_error or connection.state}."
    return Unreachable(
        connection.failure.message if connection.failure is not None else known,  # which names the address itself
        code="bus.disconnected",
        hint="It is tried again by itself; see `knotwork status`.",
        retry_after_s=1.0,
    )


def forbidden(connection: Link) -> Denied:
    """Return the error of whoever needs a right that the server does not give."""
    return Denied(
        f"NATS at {connection.endpoint.shown} does not give these credentials a right that is needed:"
        f" {connection.forbidden}.",
        code="bus.denied",
        hint="A node needs all subjects of its account, `_NODE.>` and `$JS.API.>` among them: give its user that.",
    )


def why_away(connection: Link) -> KnotworkError | None:
    """Return the error of whoever begins something now: `bus.denied`, or `bus.disconnected` for longer than a blink.

    None while we are connected, or have just lost the connection.
    """
    if connection.state == "denied":
        told = connection.failure.message if connection.failure is not None else "NATS refuses these credentials."
        return Denied(
            told, code="bus.denied", retry_after_s=5.0,
            hint="Check user, token, nkey_seed or creds under [nats]; it is tried again by itself.",
        )  # fmt: skip
    return not_connected(connection) if connection.down_for_s() > BLINK_S else None


def unavailable(error: KnotworkError) -> Unavailable:
    """Return an error about NATS as whoever asks this node gets it: the node is there, and what is away comes back by itself."""
    return Unavailable(
        error.message, code=error.code, hint=error.hint, detail=error.detail, retry_after_s=error.retry_after_s
    )


def must_reach(connection: Link) -> None:
    """Raise that error for whoever asks for what only the store can tell, rather than have him wait: he asks again."""
    if (away := why_away(connection)) is not None:
        raise away

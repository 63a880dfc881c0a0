"""What is a channel, and which of its messages are kept? Its settings, their bounds, and what there is always (pure)."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated

import msgspec

from knotwork.sdk.errors import Conflict, Invalid, NotFound

DEFAULTS: dict[str, str] = {
    "roadmap": "where we want to go, what is planned and what was decided",
    "parallel-work": "who is working on what, so that nobody does it twice",
    "errors": "what went wrong, and what helped",
}
CHANNELS_MAX = 1000
MESSAGES_MAX, BYTES_MAX, AGE_MAX_S = 1_000_000, 8 * 1024**3, 10 * 365 * 86400.0
BYTES_MIN = 2 * 1024 * 1024
"""Less would not hold one message of the largest size, and one before it."""

Name = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Time = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000_000_000)]


class Channel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A channel. Whatever is reached first counts, and the oldest messages go: so many, so many bytes, so old.

    `by` is the id of who made it, "" for those that are always there; times are nanoseconds since 1970.
    """

    name: Name
    about: Text = ""
    max_messages: Annotated[int, msgspec.Meta(ge=1, le=MESSAGES_MAX)] = 10_000
    max_bytes: Annotated[int, msgspec.Meta(ge=BYTES_MIN, le=BYTES_MAX)] = 64 * 1024 * 1024
    max_age_s: Annotated[float, msgspec.Meta(ge=1, le=AGE_MAX_S)] = 30 * 86400.0
    archived_ns: Time = 0
    by: Name = ""
    made_ns: Time = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Channel)


def always(name: str) -> Channel:
    """Return a channel that is there without anybody having made it."""
    return Channel(name, DEFAULTS[name])


def encode(channel: Channel) -> bytes:
    """Return its settings as JSON."""
    return _encoder.encode(channel)


def decode(data: bytes) -> Channel:
    """Return settings that were stored; raises `Invalid` (`channel.malformed`)."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"These are no settings of a channel: {error}.", code="channel.malformed") from error


def unknown(name: str, known: list[str]) -> NotFound:
    """Return the error of a channel that is not there; it names those that are."""
    near = get_close_matches(name[:64], known, 1)
    shown = ", ".join(sorted(known)[:20]) + (" and more" if len(known) > 20 else "")  # noqa: PLR2004  a line's worth
    return NotFound(
        f"There is no channel {name[:64]!r}." + (f" Did you mean {near[0]}?" if near else ""),
        code="channel.not_found", hint=f"There are: {shown}. Make one with `knotwork channel create`.",
        detail={"channels": sorted(known)[:100], "near": near},
    )  # fmt: skip


def archived(name: str) -> Conflict:
    """Return the error of a channel that nobody can say anything in."""
    return Conflict(
        f"The channel {name} is archived: it can be read, and nothing can be sent to it.", code="channel.archived",
        hint="Use another channel, or bring it back with `knotwork channel archive --undo`.",
    )  # fmt: skip

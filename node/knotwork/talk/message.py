"""What is a message? What was said, in the envelope that the node wrote around it (pure).

The one who sends chooses what is said, to whom, and how urgent it is. Who says it, where, when and for which project
is written by the node that took it in; the time is the server's. Messages are known by their place in their stream:
`m12` is the twelfth of all channels, `d7` the seventh of all inboxes, `f3` the third that went to another project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from knotwork.bus import subjects
from knotwork.sdk.errors import Invalid, NotFound, TooLarge
from knotwork.trust.scopes import Scope
from knotwork.trust.who import Kind, Who

SIZE_MAX_BYTES = 1024 * 1024
"""What is said (text and data, as JSON) at most; more goes into a blob."""
ENVELOPE_MAX_BYTES = 16 * 1024
MENTIONS_MAX = 32
DEPTH_MAX = 64
"""Levels of data; what is nested much deeper cannot be written into an answer."""
PLACE_MAX = 10**15
"""Places in a stream end before numbers do that every program can hold."""

Name = Annotated[str, msgspec.Meta(max_length=256)]
Time = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000_000_000)]
Where = Literal["channel", "inbox", "post"]
_ID = re.compile(r"([mdf])([1-9][0-9]{0,14})")
_LETTER: dict[Where, str] = {"channel": "m", "inbox": "d", "post": "f"}
_WHERE: dict[str, Where] = {"m": "channel", "d": "inbox", "f": "post"}


class Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the one who sends has a say in. `data` is any JSON, `expires_ns` nanoseconds since 1970, 0 for never.

    `blob` is the digest of a kept value that the message is about; `ack` asks that whoever gets it says so; `key` is
    an idempotency key.
    """

    text: str = ""
    data: Any = None
    blob: Name = ""
    kind: Name = "text"
    scope: Scope = "team"
    reply_to: Name = ""
    priority: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    expires_ns: Time = 0
    ack: bool = False
    key: Name = ""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as it is stored, beside its subject and the server's time.

    `sender` is an id, `handle` what it was called then; `thread` the id of the message that a thread began with.
    `mentions` are ids of agents. `post` is what it was called on its way from another project.
    """

    sender: Name
    handle: Name
    project: Name
    owner: Name
    node: Name = ""
    sender_kind: Kind = "agent"
    parent: Name = ""
    text: str = ""
    data: Any = None
    blob: Name = ""
    kind: Name = "text"
    scope: Scope = "team"
    reply_to: Name = ""
    thread: Name = ""
    priority: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    expires_ns: Time = 0
    ack: bool = False
    mentions: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MENTIONS_MAX)] = ()
    post: Name = ""

    @property
    def who(self) -> Who:
        """Return who said it."""
        return Who(self.sender, self.handle, self.project, self.owner, self.sender_kind, self.parent, self.node)

    @property
    def shown(self) -> str:
        """Return the name that the message bears; one from another project bears the one by which that is known here."""
        return f"{self.handle}@{self.project}" if self.post else self.handle


@dataclass(frozen=True, slots=True)
class Said:
    """A message that is stored. `place` is its place in the stream, `to` the channel or the id of the recipient.

    `to_project` is the recipient's project when it went to another one.
    """

    where: Where
    to: str
    place: int
    at_ns: int
    envelope: Envelope
    size: int = 0
    to_project: str = ""

    @property
    def id(self) -> str:
        """Return what it is called."""
        return name(self.where, self.place)

    @property
    def thread(self) -> str:
        """Return the id of the message that its thread began with: its own when it is the first."""
        return self.envelope.thread or self.id


REFUSED = "refused"
"""The kind of message by which a node tells a sender that one of his was not let in; nobody else may send it."""
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


def name(where: Where, place: int) -> str:
    """Return the id of the message at a place."""
    return f"{_LETTER[where]}{place}"


def place_of(message: str) -> tuple[Where, int]:
    """Return where a message lies; raises `NotFound` (`message.not_found`) for what is no id of one."""
    found = _ID.fullmatch(message)
    if found is None:
        raise unknown(message)
    return _WHERE[found[1]], int(found[2])


def unknown(message: str) -> NotFound:
    """Return the error of a message that is not there, or not for whoever asks: nobody can tell which."""
    return NotFound(
        f"There is no message {message[:32]!r} for you.", code="message.not_found",
        hint="Ids look like m12 (channels), d7 (inboxes) and f3 (to other projects); messages go when their channel is full or they expire.",
    )  # fmt: skip


def written(who: Who, draft: Draft, *, thread: str = "", mentions: tuple[str, ...] = ()) -> Envelope:
    """Return the envelope of what somebody says."""
    return Envelope(
        sender=who.id, handle=who.name, project=who.project, owner=who.owner, node=who.node, sender_kind=who.kind,
        parent=who.parent, text=draft.text, data=draft.data, blob=draft.blob, kind=draft.kind, scope=draft.scope,
        reply_to=draft.reply_to, thread=thread, priority=draft.priority, expires_ns=draft.expires_ns, ack=draft.ack,
        mentions=mentions,
    )  # fmt: skip


def encode(envelope: Envelope) -> bytes:
    """Return a message as it is stored.

    Raises `TooLarge` (`message.too_large`), `Invalid` (`message.not_json`, `message.too_deep`).
    """
    if _deeper(envelope.data, DEPTH_MAX):
        raise Invalid(
            f"The data of the message is nested more than {DEPTH_MAX} levels deep.", code="message.too_deep",
            hint="Send it as text, or keep it with `knotwork blob put` and send its digest.",
        )  # fmt: skip
    try:
        payload = _encoder.encode(envelope)
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise Invalid(f"The message cannot be written as JSON: {error}.", code="message.not_json") from error
    if len(payload) > SIZE_MAX_BYTES + ENVELOPE_MAX_BYTES:
        raise TooLarge(
            f"The message has {len(payload)} bytes as JSON; {SIZE_MAX_BYTES} at most.", code="message.too_large",
            hint="Keep what is large with `knotwork blob put` and send its digest as `blob`.",
        )  # fmt: skip
    return payload


def decode(data: bytes) -> Envelope:
    """Return a message that was stored; raises `Invalid` (`message.malformed`)."""
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"It is no message: {str(error)[:200]}.", code="message.malformed") from error
    if _deeper(found.data, DEPTH_MAX):  # it could not be told to anybody, and nothing that stands beside it
        raise Invalid("It is no message: its data is nested too deeply.", code="message.malformed")
    return found


def _deeper(value: Any, levels: int) -> bool:
    """Return whether a value is nested deeper than so many levels."""
    if isinstance(value, dict):
        return levels == 0 or any(_deeper(one, levels - 1) for one in value.values())
    if isinstance(value, list | tuple):
        return levels == 0 or any(_deeper(one, levels - 1) for one in value)
    return False


def posted(subject: str, data: bytes, place: int, at_ns: int) -> Said | None:
    """Return the message of a subject in POST, None for what somebody else put there."""
    _, _, rest = subject.partition(".")
    project, _, to = rest.partition(".")
    if not subjects.is_token(project) or not subjects.is_token(to):
        return None
    try:
        return Said("post", to, place, at_ns, decode(data), len(data), project)
    except Invalid:
        return None


def said(subject: str, data: bytes, place: int, at_ns: int) -> Said | None:
    """Return the message of a subject in TALK or INBOXES, None for what somebody else put there."""
    where, _, to = subject.partition(".")
    if where not in ("channel", "inbox") or not subjects.is_token(to):
        return None
    try:
        return Said("channel" if where == "channel" else "inbox", to, place, at_ns, decode(data), len(data))
    except Invalid:
        return None

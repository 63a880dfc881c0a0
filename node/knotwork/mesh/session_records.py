"""What is an agent that came in from outside? Its record, its identity over restarts, and how it is now (pure)."""

from __future__ import annotations

import difflib
import hashlib
import re
import uuid
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from knotwork.bus import subjects
from knotwork.sdk.errors import Invalid, NotFound
from knotwork.trust.scopes import Scope
from knotwork.trust.who import Who

Presence = Literal["online", "busy", "stale", "offline"]
Status = Literal["online", "busy", "offline"]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Time = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000_000_000)]
STALE_S = 60.0
"""How long an agent whose session is gone counts as stale: it may be just starting again."""
NAMES_MAX = 4
"""How many of the names it had an agent still answers to."""
FORGET_S = 24 * 3600
"""After how long without its session an agent is forgotten, its handle is free again, and so is what it was."""
LEFT = "its node leaves the project"
"""Why a session is over that can be opened again as soon as the node is back."""
PERSON = "person-"
RESERVED = frozenset({"all", "anybody", "everybody", "here", "knotwork", "me", "nobody", "node", "someone", "system"})
_id = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class AgentSession(msgspec.Struct, frozen=True):
    """One agent. Times are nanoseconds since 1970; `gone_ns` is 0 while its session is open.

    `host`, `path` and `label` are what tells it from others of its owner; `status` is what it says of itself. `formerly` are
    names it had before, the last one first: work may wait for it there.
    """

    id: Name
    handle: Name
    project: Name
    owner: Name
    node: Name
    instance: Name
    type: Name = "agent"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    boundaries: tuple[Name, ...] = ()
    scope: Scope = "team"
    status: Status = "online"
    tasks: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    max_tasks: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 16
    host: Name = ""
    path: Text = ""
    label: Name = ""
    parent: Name = ""
    registered: bool = False
    registered_ns: Time = 0
    seen_ns: Time = 0
    gone_ns: Time = 0
    formerly: tuple[Name, ...] = ()

    @property
    def who(self) -> Who:
        """Return who it is where somebody asks or says something."""
        return Who(self.id, self.handle, self.project, self.owner, "agent", self.parent, self.node)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AgentSession)


def identity(*known_by: str) -> str:
    """Return the id of the agent that is known by its project, owner, machine, folder, label and parent, in this order.

    It is the same at every start. It looks like a random UUID, as users of older agents' registries expect ids to.
    """
    told = msgspec.json.encode(known_by)
    return str(uuid.UUID(bytes=hashlib.sha256(told).digest()[:16], version=4))


def encode(record: AgentSession) -> bytes:
    """Return the record as JSON."""
    return _encoder.encode(record)


def decode(key: str, data: bytes) -> AgentSession:
    """Return the record stored under `key`; raises `Invalid` (`session.bad_record`) when it makes no sense."""
    try:
        record = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The record of agent {key[:64]} is malformed: {error}.", code="session.bad_record") from error
    tokens = (
        record.id, record.handle, record.owner, record.project, *record.capabilities, *record.boundaries, *record.formerly,
    )  # fmt: skip
    if record.id != key or not all(map(subjects.is_token, tokens)):
        raise Invalid(f"The record of agent {key[:64]} makes no sense.", code="session.bad_record")
    return record


def renamed(record: AgentSession, handle: str) -> AgentSession:
    """Return an agent under another name; the one it had is the first of those it had before."""
    before = [one for one in dict.fromkeys((record.handle, *record.formerly)) if one not in ("", handle)]
    return msgspec.structs.replace(record, handle=handle, formerly=tuple(before[:NAMES_MAX]))


def presence(record: AgentSession, *, node: str, same_instance: bool, now_ns: int) -> Presence:
    """Return how an agent is: `node` is the state of the node its session is at (`mesh.directory.State`).

    `same_instance` says whether that node is still the process that opened the session.
    """
    if record.gone_ns:
        return "stale" if now_ns - record.gone_ns < STALE_S * 1e9 else "offline"
    if node == "offline":
        return "offline"
    if node == "stale" or not same_instance:
        return "stale" if now_ns - record.seen_ns < STALE_S * 1e9 or node == "stale" else "offline"
    return record.status


def unknown(name: str, project: str, handles: Iterable[str] = ()) -> NotFound:
    """Return the error of an agent that is not there, or not to be seen: the two look the same. `handles` may be near."""
    near = difflib.get_close_matches(name[:64], handles, 1)
    return NotFound(
        f"There is no agent {name[:64]!r} in {project}." + (f" Did you mean {near[0]}?" if near else ""),
        code="agent.not_found", hint="See `knotwork session list`: ids and handles are both understood.",
    )  # fmt: skip


def from_afar(record: AgentSession) -> AgentSession:
    """Return an agent of another project as it is called outside of its own: handle@project."""
    return msgspec.structs.replace(record, handle=f"{record.handle}@{record.project}")


def reserved(handle: str) -> bool:
    """Return whether a handle is nobody's to take: whoever reads it would think of a person, all, or an agent by its id."""
    return handle.startswith(PERSON) or handle in RESERVED or _id(handle) is not None


def handles(wanted: str) -> list[str]:
    """Return the names to be tried for an agent that did not choose one, in order; one like a person's is none of them."""
    wanted = "agent" if wanted.startswith(PERSON) else wanted
    return [wanted, *(f"{wanted[:56]}-{number}" for number in range(2, 10_000))]

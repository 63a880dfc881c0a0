"""Where are workflows kept? In DEFS: the text of each by the digest of what it says, and the digest that a name means now.

A definition never changes; a name may mean another one tomorrow, and runs keep the one that they were started with.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from pydantic import ValidationError

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import Conflict, Invalid, NotFound, TooLarge

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.flow.graph import Graph
    from knotwork.flow.model import Workflow

KEPT = 512
"""Definitions that are held in memory."""
VERSIONS_MAX = 100
SIZE_MAX_BYTES = 1024 * 1024


class Named(msgspec.Struct, frozen=True):
    """What a name means: the digests it meant, the newest last, and who brought it (`owner`: a file, or nobody)."""

    digests: list[str]
    owner: str = ""
    updated_ns: int = 0
    enabled: bool = True


class Kept(NamedTuple):
    """A definition as it is kept; `graph` is None when this version cannot make sense of it, and `why` says why."""

    digest: str
    text: bytes
    graph: Graph | None
    why: str = ""


class Definitions:
    """The workflows of one project."""

    def __init__(self, connection: Connection) -> None:
        """Keep them over `connection`."""
        self._connection = connection
        self._bucket = kv.Bucket(connection, subjects.DEFS)
        self._graphs: OrderedDict[str, Graph] = OrderedDict()

    async def open(self) -> None:
        """Make sure that there is a place for them."""
        await kv.open_bucket(self._connection, subjects.DEFS)

    async def put(
        self, workflow: Workflow, *, now_ns: int, owner: str = "", named: bool = True, ttl_s: int | None = None
    ) -> str:
        """Keep a workflow and return its digest; `named`: its name means this one from now on.

        One that is made for a few runs is forgotten `ttl_s` whole seconds after it was kept last.
        Raises `Invalid` (`flow.bad_workflow`), `TooLarge`, `Conflict` (`flow.owned`) for a name that a file brought.
        """
        made = understood(workflow)
        text = text_of(workflow)
        if len(text) > SIZE_MAX_BYTES:
            raise TooLarge(f"The workflow has {len(text)} bytes, {SIZE_MAX_BYTES} at most.", code="flow.too_large")
        digest = digest_of(text)
        await self._bucket.put(f"def.{digest}", text, ttl_s=ttl_s)
        self._remember(digest, made)
        while named:
            entry = await self._bucket.get(f"name.{workflow.name}")
            before = _named(entry.value) if entry is not None else Named([])
            if before.digests and before.owner != owner:
                whose = f"belongs to {before.owner}" if before.owner else "was registered by hand"
                raise Conflict(
                    f"The workflow {workflow.name!r} {whose}.", code="flow.owned",
                    hint=f"Change it there, choose another name, or `knotwork workflow remove {workflow.name}`"
                    + (", with force (`--force`) if that node is gone for good." if before.owner else "."),
                )  # fmt: skip
            digests = [*(one for one in before.digests if one != digest), digest][-VERSIONS_MAX:]
            after = msgspec.json.encode(Named(digests, owner, now_ns))
            if await self._bucket.swap(f"name.{workflow.name}", entry, after):
                break
        return digest

    async def graph(self, digest: str) -> Graph:
        """Return a definition; raises `NotFound` (`flow.no_definition`), `Invalid` (`flow.not_here`).

        The second is one that was kept by another version, and that this one can make no sense of.
        """
        found = self._graphs.get(digest)
        if found is not None:
            self._graphs.move_to_end(digest)
            return found
        text = await self._text(digest)
        try:
            made = understood(parsed(msgspec.json.decode(text)))
        except (Invalid, msgspec.DecodeError) as error:
            told = error.message if isinstance(error, Invalid) else str(error)
            raise Invalid(
                f"This version cannot start or follow the definition {digest}: {told}", code="flow.not_here",
                hint="Use a node of the version that kept it, or register it anew, changed.",
            ) from error  # fmt: skip
        self._remember(digest, made)
        return made

    async def _text(self, digest: str) -> bytes:
        entry = await self._bucket.get(f"def.{subjects.token(digest, 'digest')}")
        if entry is None or entry.value is None:
            raise NotFound(f"There is no definition {digest}.", code="flow.no_definition")
        return entry.value

    async def kept(self, name: str) -> Kept:
        """Return what a name, or a digest, means now, also when it can only be read; raises `NotFound`."""
        digest = await self._meant(name)
        try:
            made = await self.graph(digest)
        except Invalid as error:
            return Kept(digest, await self._text(digest), None, error.message)
        return Kept(digest, text_of(made.workflow), made)

    def known(self, digest: str) -> Graph | None:
        """Return a definition that is at hand, None when it must be fetched."""
        return self._graphs.get(digest)

    async def find(self, name: str) -> tuple[str, Graph]:
        """Return what a name, or a digest, means now; raises `NotFound` (`flow.no_workflow`), and what `graph` does."""
        digest = await self._meant(name)
        return digest, await self.graph(digest)

    async def _meant(self, name: str) -> str:
        named = await self.named(name)
        if named is not None:
            return named.digests[-1]
        if len(name) == DIGEST_LENGTH:
            return name
        raise NotFound(f"There is no workflow {name!r}.", code="flow.no_workflow", hint="See `knotwork workflow list`.")

    async def named(self, name: str) -> Named | None:
        """Return what a name means, None when it means nothing."""
        entry = await self._bucket.get(f"name.{subjects.token(name, 'workflow')}")
        return None if entry is None or entry.value is None else _named(entry.value)

    async def means_something(self, name: str) -> bool:
        """Return whether a name, or a digest, means a definition."""
        if await self.named(name) is not None:
            return True
        return len(name) == DIGEST_LENGTH and await self._bucket.get(f"def.{name}") is not None

    async def all(self) -> dict[str, Named]:
        """Return what every name means."""
        found = await self._bucket.all()
        return {
            key.removeprefix("name."): _named(entry.value)
            for key, entry in found.items()
            if key.startswith("name.") and entry.value is not None
        }

    async def give(self, name: str, *, before: str, owner: str) -> bool:
        """Let a name belong to another owner; False when it does not belong to `before` (any more)."""
        entry = await self._bucket.get(f"name.{subjects.token(name, 'workflow')}")
        if entry is None or entry.value is None or (named := _named(entry.value)).owner != before:
            return False
        after = msgspec.json.encode(msgspec.structs.replace(named, owner=owner))
        try:
            await self._bucket.update(f"name.{name}", after, entry.revision)
        except Conflict:
            return False
        return True

    async def remove(self, name: str, *, owner: str = "", whoever: bool = False) -> bool:
        """Take a name away; runs of it go on. `whoever`: also when it belongs to another than `owner`.

        False when there was none; raises `Conflict` (`flow.owned`).
        """
        entry = await self._bucket.get(f"name.{subjects.token(name, 'workflow')}")
        if entry is None or entry.value is None:
            return False
        if not whoever and (before := _named(entry.value)).owner != owner and before.owner:
            raise Conflict(
                f"The workflow {name!r} belongs to {before.owner}.", code="flow.owned",
                hint="Remove it there; if that node is gone for good, say force (`--force`).",
            )  # fmt: skip
        await self._bucket.delete(f"name.{name}")
        return True

    def _remember(self, digest: str, made: Graph) -> None:
        self._graphs[digest] = made
        self._graphs.move_to_end(digest)
        while len(self._graphs) > KEPT:
            self._graphs.popitem(last=False)


DIGEST_LENGTH = 32


def text_of(workflow: Workflow) -> bytes:
    """Return a workflow as JSON that is the same for the same workflow.

    The order of its steps is part of it: names of handlers' tasks and who begins first follow from it, and must be the
    same for whoever reads it back.
    """
    return msgspec.json.encode(workflow.model_dump(mode="json", exclude_defaults=True))


def digest_of(text: bytes) -> str:
    """Return the digest of a text: 32 hex digits."""
    return hashlib.sha256(text).hexdigest()[:DIGEST_LENGTH]


def understood(workflow: Workflow) -> Graph:
    """Return how the steps of a workflow hang together; raises what `graph.graph` raises."""
    from knotwork.flow.graph import graph  # likewise

    return graph(workflow)


def parsed(found: Any) -> Workflow:
    """Return a workflow from what was read; raises `Invalid` (`flow.bad_workflow`) that names everything wrong."""
    from knotwork.flow.model import Workflow  # 20 ms that a node without workflows need not spend

    try:
        return Workflow.model_validate(found)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:20])
        raise Invalid(f"This is no workflow: {told}", code="flow.bad_workflow") from error


def _named(value: bytes | None) -> Named:
    try:
        return msgspec.json.decode(value or b"", type=Named)
    except msgspec.DecodeError as error:
        raise Invalid("A name in DEFS means nothing.", code="flow.bad_definition") from error

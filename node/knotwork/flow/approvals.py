"""How does somebody approve who has no token of a node? By a link: whoever holds it may answer one question, once, in one name.

A link is sealed with a secret of the project that every node of it has, and says which step of which run it is about, in
whose name, and until when. It is spent by recording the answer, and by nothing else: so it cannot be lost in between,
and whoever sends the same answer again, because the first was not acknowledged, is told that it stands.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, subjects
from knotwork.flow.effects import Ask
from knotwork.flow.run import decoded
from knotwork.sdk.errors import Conflict, Denied, Internal, NotFound
from knotwork.trust import seals
from knotwork.work.records import Name, Token, Whole

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.flow.runs import Runs, Sight

KEY = "approval_secret"
_MARK = "ka1"
LINK_MAX = 1024
SHOWN_MAX_BYTES = 64 * 1024
"""A larger input is not shown."""


class Link(msgspec.Struct, frozen=True, array_like=True):
    """What a link says: who (`by`) may answer which step of which run, until when (nanoseconds since 1970)."""

    run: Token
    step: Token
    by: Name
    until_ns: Whole
    id: Token


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how it was answered: `state` is waiting, approved, rejected or gone (nobody asks any more)."""

    link: Link
    sight: Sight
    state: str
    title: str = ""
    input: Any = None
    asked_ns: int = 0
    by: str = ""
    comment: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Link)


def sealed(key: bytes, link: Link) -> str:
    """Return a link as a text (pure)."""
    return seals.close(key, _MARK, _encode(link))


def opened(key: bytes, text: str) -> Link | None:
    """Return what a text says, None unless it was sealed with this key (pure)."""
    found = seals.open_(key, _MARK, text, size_max=LINK_MAX)
    try:
        return None if found is None else _decoder.decode(found)
    except (msgspec.DecodeError, ValueError):  # sealed by another version
        return None


class Approvals:
    """The links of one project."""

    def __init__(self, connection: Connection, runs: Runs) -> None:
        """Answer through `runs`."""
        self._connection, self._runs = connection, runs
        self._key = b""

    async def link(self, run: str, step: str, *, by: str, until_ns: int) -> str:
        """Return a link by which a step that asks can be answered in the name of `by`.

        Raises `NotFound` (`flow.no_run`, `flow.not_asked`), `Denied` (`flow.not_approver`), `Conflict` (`flow.answered`).
        """
        await self._runs.asked(run, step, by)
        return sealed(await self._secret(), Link(run, step, by, until_ns, secrets.token_hex(8)))

    async def read(self, text: str) -> Link | None:
        """Return what a link says, None for one that is not ours."""
        return opened(await self._secret(), text)

    async def question(self, link: Link) -> Question:
        """Return what is asked; raises `NotFound` (`flow.no_run`), `Denied` (`flow.link_expired`)."""
        _must_hold(link)
        sight = await self._runs.look(link.run)
        effect = sight.run.open.get(f"ask.{link.step}")
        if isinstance(effect, Ask):
            assert effect.spec.kind == "approval"
            shown = decoded(effect.input) if len(effect.input) <= SHOWN_MAX_BYTES else None
            return Question(link, sight, "waiting", _title(sight, link.step), shown, effect.since_ns)
        return await self._answered(link, sight)

    async def answer(self, link: Link, *, approve: bool, comment: str) -> Question:
        """Answer, and return how it stands; the same answer sent again does no harm.

        Raises `Conflict` (`flow.answered`) when it was answered otherwise, or nobody asks any more; and what `question`
        raises.
        """
        before = await self.question(link)
        if before.state == "waiting":
            with contextlib.suppress(Conflict, NotFound):  # somebody was quicker: how it stands follows
                await self._runs.answer(link.run, link.step, approve=approve, by=link.by, comment=comment)
            before = await self.question(link)
        wanted = "approved" if approve else "rejected"
        if (before.state, before.by) != (wanted, link.by):
            told = f"{before.by or 'somebody'} {before.state} it" if before.state != "gone" else "nobody asks any more"
            raise Conflict(f"This was settled before: {told}.", code="flow.answered", detail={"state": before.state})
        return before

    async def _answered(self, link: Link, sight: Sight) -> Question:
        found = await self._runs.answered(sight, link.step)
        if found is None:
            return Question(link, sight, "gone")
        return Question(link, sight, found.state, _title(sight, link.step), by=found.by, comment=found.comment)

    async def _secret(self) -> bytes:
        """Return the key of the project's links."""
        if not self._key:
            found = await seals.shared_secret(self._connection, KEY)
            if found is None:
                raise Internal(
                    "The secret of the project's links is damaged.", code="flow.bad_secret",
                    hint=f"Delete the key {KEY} of the bucket {subjects.SETTINGS}: links that were given out end then.",
                )  # fmt: skip
            self._key = hashlib.sha256(b"knotwork approval\0" + found).digest()
        return self._key


def _title(sight: Sight, name: str) -> str:
    """Return what a step asks; as it is written when its answer was taken over from another run."""
    step = sight.run.steps[name]
    return step.title or getattr(step.box.spec, "title", "")


def _must_hold(link: Link) -> None:
    if clock.now_ns() >= link.until_ns:
        raise Denied(
            "This link has expired.", code="flow.link_expired", hint="Ask for a new one (`knotwork run link`)."
        )


def not_ours() -> NotFound:
    """Return the error of a link that nobody here gave out."""
    return NotFound("There is no such link.", code="flow.no_link", hint="Take it whole, as it was given.")

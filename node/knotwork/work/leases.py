"""Who holds a task that was given to an agent from outside? One record per step in the bucket LEASES, changed by CAS.

The record is the truth about a claim; JetStream's own lease on the message is only kept alive in its name. It expires
by itself: the server removes it a little after the lease ended, also when no node is left that would do it.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from knotwork.bus import clock, commit, kv, publisher, subjects
from knotwork.sdk.errors import Conflict, Invalid
from knotwork.work.records import Name, OnAttempt, Seconds, Token, Whole

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket
    from knotwork.bus.pulls import Delivery
    from knotwork.work.records import Task

PREFIX = "claim."
LEASE_MIN_S, LEASE_MAX_S = 5.0, 24 * 3600.0
SLACK_S = 1
"""How much later than its keeper the server ends a lease."""
BEATS = 8
"""So many signs of life are written at most while a holder could be silent."""
OVER_TTL_S = 30
"""How long it is remembered that a claim was given up or ended, so that nobody takes it for lost."""
_SUBJECT = re.compile(
    r"task\.[a-z0-9_-]+\.[a-z0-9_=-]+\.(high|normal|low)\.[a-z0-9]{8,40}\.[a-z0-9_-]{1,64}\.\d{1,9}\.\d{1,4}"
)
_REPLY = re.compile(r"\$JS\.ACK\.[!-)+-=?-~]{1,600}")


Over = Literal["said", "ended", "expired"]
"""Why a claim stands no more: its holder said so, somebody else ended the attempt, or the lease was over."""


class Claim(OnAttempt, msgspec.Struct, frozen=True, omit_defaults=True):
    """One task in the hands of `worker`, an agent that came in. Moments are nanoseconds since 1970.

    `agent` is the id of the one that claimed it in a session of its own, whatever it, or another, is called by now.

    `subject` is the attempt's place in TASKS, `reply` where its delivery is answered, `node` who keeps it alive there.
    The lease ends `lease_s` after it was given or extended; the attempt itself at `ends_ns`, 0: when it likes. With a
    `heartbeat_s` that is so long after the last sign of life, and at `limit_ns` (0: never) at the latest. `over` says
    why it stands no more, empty while it does.
    """

    id: Token
    subject: Name
    reply: Annotated[str, msgspec.Meta(max_length=700)]
    worker: Token
    node: Token
    delivery: Whole
    started_ns: Whole
    until_ns: Whole
    lease_s: Seconds
    ends_ns: Whole = 0
    over: Over | Literal[""] = ""
    heartbeat_s: Seconds = 0.0
    limit_ns: Whole = 0
    agent: Token = ""

    def is_of(self, agent: str, names: Collection[str]) -> bool:
        """Return whether somebody holds it: by its id when it was claimed with one, else by its names."""
        return self.agent == agent if self.agent else self.worker in names

    @property
    def consumer(self) -> str:
        """Return the consumer it was taken from (`queues.Queue.consumer`)."""
        return "+".join(self.subject.split(".")[1:4])

    @property
    def key(self) -> str:
        """Return its key in the bucket."""
        return key(self.run, self.step)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Claim)


def key(run: str, step: str) -> str:
    """Return where the claim on a step stands, whichever attempt it is."""
    return f"{PREFIX}{run}.{step}"


def places_of(run: str) -> str:
    """Return the pattern of the places on the wire where the claims on the steps of a run stand."""
    return subjects.bucket_key(subjects.LEASES, key(run, "*"))


def decode(data: bytes) -> Claim:
    """Return a stored claim; raises `Invalid` (`work.bad_record`): others may write there, and we answer to `reply`."""
    try:
        claim = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Invalid(f"This is not a claim: {error}.", code="work.bad_record") from error
    if not _SUBJECT.fullmatch(claim.subject) or not _REPLY.fullmatch(claim.reply):
        raise Invalid("This is not a claim: it names no task.", code="work.bad_record")
    return claim


def fresh(
    task: Task, delivery: Delivery, *, worker: str, node: str, lease_s: float, left_s: float | None, agent: str = ""
) -> Claim:
    """Return a claim that begins now; the attempt may take `left_s` seconds."""
    now_ns = clock.now_ns()
    limit_ns = 0 if left_s is None else now_ns + int(left_s * 1e9)
    claim = Claim(
        secrets.token_hex(8), task.subject, delivery.reply, worker, node, delivery.count, now_ns,
        now_ns + int(lease_s * 1e9), lease_s, limit_ns, heartbeat_s=task.heartbeat_s or 0.0, limit_ns=limit_ns,
        agent=agent,
    )  # fmt: skip
    return alive(claim, now_ns)


def alive(claim: Claim, now_ns: int) -> Claim:
    """Return a claim as it is after a sign of life (pure)."""
    if not claim.heartbeat_s:
        return claim
    silent_ns = now_ns + int(claim.heartbeat_s * 1e9)
    return msgspec.structs.replace(claim, ends_ns=min(silent_ns, claim.limit_ns or silent_ns))


class Leases:
    """The claims of one project."""

    def __init__(self, connection: Connection, writer: GroupCommit) -> None:
        """Keep them over `connection`; what many change at a time goes to disk together, through `writer`."""
        self._connection, self._writer = connection, writer
        self._alone = 0
        self.bucket: Bucket = kv.Bucket(connection, subjects.LEASES)
        self.changed: Callable[[Claim, int], None] | None = None
        """Told of each change made here, before the bucket's watchers are."""

    async def open(self) -> None:
        """Make sure that the bucket is there."""
        await kv.open_bucket(self._connection, subjects.LEASES, allow_atomic=True)

    async def read(self, run: str, step: str) -> tuple[Claim | None, int]:
        """Return the claim on a step and its revision; None when nobody has one, revision 0 when nothing is there."""
        entry = await self.bucket.get(key(run, step))
        if entry is None or entry.value is None:
            return None, 0
        try:
            return decode(entry.value), entry.revision
        except Invalid:
            return None, entry.revision  # garbage: the next claim replaces it

    async def give(self, claim: Claim) -> Claim | None:
        """Store a claim; returns the one that stands instead when the attempt is held already, None when ours stands."""
        revision = 0
        while True:
            try:
                if revision:
                    await self.change(claim, revision)
                else:
                    self._tell(claim, await self._create(claim))
            except Conflict:
                standing, revision = await self.read(claim.run, claim.step)
                if standing is not None and standing.id == claim.id:
                    return None  # stored before, and its answer lost
                if standing is not None and not standing.over and standing.subject == claim.subject:
                    return standing
            else:
                return None

    async def change(self, claim: Claim, revision: int) -> int:
        """Replace what stands at `revision`; returns the new one, raises `Conflict` when another stands meanwhile."""
        revision = await self._store(claim, revision)
        self._tell(claim, revision)
        return revision

    async def _create(self, claim: Claim) -> int:
        try:
            return await self._store(claim, 0)
        except Conflict:  # what is there may be the mark of one that is gone
            return await self.bucket.create(claim.key, _encoder.encode(claim), ttl_s=_ttl_s(claim))

    async def _store(self, claim: Claim, revision: int) -> int:
        """Store a claim where `revision` is now, by itself while few are on their way: they wait for nobody then."""
        value, ttl_s = _encoder.encode(claim), _ttl_s(claim)
        if self._alone >= commit.BATCH_MIN:
            pairs = (publisher.expect_revision(revision), publisher.ttl(ttl_s))
            return (await self._writer.append(self.bucket.subject(claim.key), value, *pairs)).seq
        self._alone += 1
        try:
            return await self.bucket.update(claim.key, value, revision, ttl_s=ttl_s)
        finally:
            self._alone -= 1

    async def beat(self, claim: Claim, revision: int) -> Claim | None:
        """Take note of a sign of life and return the claim; None when it was changed meanwhile: read it again.

        Of many in a short time one is written (`BEATS`).
        """
        after = alive(claim, clock.now_ns())
        if after.ends_ns - claim.ends_ns < claim.heartbeat_s * 1e9 / BEATS:
            return claim
        with contextlib.suppress(Conflict):
            await self.change(after, revision)
            return after
        return None

    async def end(self, claim: Claim, why: Over, revision: int = 0) -> Claim | None:
        """End a claim and return it as it stood, None when it did not any more. Raises what storing raises.

        `revision` is the one it was read at, when it was just now.
        """
        standing: Claim | None = claim
        while True:
            if not revision:
                standing, revision = await self.read(claim.run, claim.step)
            if standing is None or standing.over or standing.id != claim.id:
                return None
            with contextlib.suppress(Conflict):
                await self.change(msgspec.structs.replace(standing, over=why), revision)
                return standing
            revision = 0

    def _tell(self, claim: Claim, revision: int) -> None:
        if self.changed is not None:
            self.changed(claim, revision)


def _ttl_s(claim: Claim) -> int:
    if claim.over:
        return OVER_TTL_S
    left_s = (claim.until_ns - clock.now_ns()) / 1e9
    return math.ceil(min(max(left_s, 1.0), claim.lease_s)) + SLACK_S

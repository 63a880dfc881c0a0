"""Which targets and launches are there, on every node of the project? The TARGETS bucket, kept in memory by a watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound
from knotwork.spinup import records
from knotwork.spinup.records import ALIVE, LIVE, Launch, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket, Entry

log = logging.getLogger(__name__)
ENDED_TTL_S = 24 * 3600
"""How long a launch that ended is still listed."""


class Registry:
    """All targets and launches of one project."""

    def __init__(self, connection: Connection) -> None:
        """Know none yet."""
        self._connection = connection
        self._bucket: Bucket | None = None
        self._leases: Bucket | None = None
        self.targets: dict[str, Target] = {}
        self.launches: dict[str, Launch] = {}
        self._revisions: dict[str, int] = {}
        """Of each launch: what the bucket tells later of a time before says nothing."""
        self.current = asyncio.Event()
        """Set once everything there is has been read."""

    async def open(self) -> None:
        """Make sure that the buckets are there."""
        self._bucket = await kv.open_bucket(self._connection, subjects.TARGETS)
        self._leases = await kv.open_bucket(self._connection, subjects.LEASES, allow_atomic=True)

    async def watch(self) -> None:
        """Keep up with the bucket, for ever."""
        assert self._bucket is not None
        await self._bucket.watch(self._heard, self._complete)

    async def change_target(
        self, node: str, target: str, make: Callable[[Target], Target], *, new: bool = False
    ) -> Target:
        """Write the record of a target as `make` makes it of the one that stands there, when that says anything new.

        So nobody undoes what another changes at the same time. How many launches run is counted here. Raises `NotFound`
        (`spinup.no_target`) for one that is gone, unless it may be `new`.
        """
        key = records.target_key(node, target)
        known = self.targets.get(key)
        if known is not None and self._counted(make(known)) == known:
            return known
        while True:
            entry = await self._kept.get(key)
            if entry is None and not new:
                raise NotFound(f"There is no target {node}/{target} any more.", code="spinup.no_target")
            before = Target(node, target)
            if entry is not None and entry.value is not None:
                with contextlib.suppress(Invalid):  # by a newer version, or by hand: ours takes its place
                    before = records.decode_target(entry.value)
            made = self._counted(make(before))
            if await self._kept.swap(key, entry, records.encode(made)):
                self.targets[key] = made = self._counted(made)  # another may have been launched meanwhile
                return made

    async def drop_target(self, target: Target) -> None:
        """Remove a target that is not configured any more."""
        key = records.target_key(target.node, target.target)
        await self._kept.delete(key)
        self.targets.pop(key, None)

    async def put_launch(self, launch: Launch) -> Launch:
        """Write the record of a launch; one that ended expires after a day.

        It counts from this moment on: the place that it takes is nobody else's while it is written.
        """
        before = self.launches.get(launch.id)
        self._take(launch.id, launch)
        ttl_s = None if launch.state in LIVE else ENDED_TTL_S
        try:
            revision = await self._kept.put(records.launch_key(launch.id), records.encode(launch), ttl_s=ttl_s)
        except KnotworkError:
            if self.launches.get(launch.id) is launch:
                self._take(launch.id, before)
            raise
        if self._is_news(launch.id, revision):
            self._take(launch.id, launch)
        return launch

    async def change(self, launch: Launch, **fields: object) -> Launch:
        """Write a launch as it stands with some fields changed; one that is being stopped, or over, never lives again."""
        now = self.launches.get(launch.id, launch)
        if now.state not in ALIVE and fields.get("state") in ALIVE:
            del fields["state"]
        return await self.put_launch(msgspec.structs.replace(now, **fields))

    def target(self, name: str) -> Target:
        """Return a target by `target` or `node/target`; raises `NotFound` (`spinup.no_target`), `Conflict` when many fit."""
        node, _, target = name.rpartition("/")
        found = [one for one in self.targets.values() if one.target == target and node in ("", one.node)]
        if not found:
            known = ", ".join(sorted(f"{one.node}/{one.target}" for one in self.targets.values())) or "none"
            raise NotFound(f"There is no target {name[:128]!r}.", code="spinup.no_target", hint=f"There are: {known}.")
        if len(found) > 1:
            many = ", ".join(sorted(f"{one.node}/{one.target}" for one in found))
            raise Conflict(
                f"Several nodes have a target {target!r}.", code="spinup.many_targets", hint=f"Write {many}."
            )
        return found[0]

    def live(self, node: str, target: str) -> list[Launch]:
        """Return the launches of a target that have not ended."""
        return [one for one in self.launches.values() if (one.node, one.target) == (node, target) and one.state in LIVE]

    async def claim(self, key: str, owner: str, ttl_s: int) -> bool:
        """Return whether a demand is ours to serve; it stays so for `ttl_s` seconds.

        What we claimed before is ours still: we died before we came to it.
        """
        assert self._leases is not None
        try:
            await self._leases.create(key, owner.encode(), ttl_s=ttl_s)
        except Conflict:
            held = await self._leases.get(key)
            return held is not None and held.value == owner.encode()
        return True

    async def release(self, key: str) -> None:
        """Let a demand be served by whoever can."""
        assert self._leases is not None
        await self._leases.delete(key)

    @property
    def _kept(self) -> Bucket:
        assert self._bucket is not None, "open it first"
        return self._bucket

    def _heard(self, entry: Entry) -> None:
        what, _, rest = entry.key.partition(".")
        try:
            if what == "target":
                if entry.value is None:
                    self.targets.pop(entry.key, None)
                else:
                    self.targets[entry.key] = target = records.decode_target(entry.value)
                    self._count(target.node, target.target)
            elif what == "launch":
                told = records.decode_launch(entry.value) if entry.value is not None else None
                if told is None:
                    self._revisions.pop(rest, None)
                if told is None or self._is_news(rest, entry.revision):
                    self._take(rest, told)
        except Invalid as error:
            log.warning("%s in %s: %s", entry.key, subjects.TARGETS, error)

    def _is_news(self, name: str, revision: int) -> bool:
        """Return whether nothing later is known of a launch, and take note of this."""
        if revision < self._revisions.get(name, 0):
            return False
        self._revisions[name] = revision
        return True

    def _take(self, name: str, launch: Launch | None) -> None:
        """Take note of a launch as it is, None when it is gone."""
        before = self.launches.pop(name, None)
        if launch is not None:
            self.launches[name] = launch
        if (told := launch or before) is not None:
            self._count(told.node, told.target)

    def _count(self, node: str, target: str) -> None:
        """Count how many launches of a target run: what its owner wrote of that is up to a look of his late."""
        key = records.target_key(node, target)
        if key in self.targets and self.current.is_set():
            self.targets[key] = self._counted(self.targets[key])

    def _counted(self, target: Target) -> Target:
        return msgspec.structs.replace(target, running=len(self.live(target.node, target.target)))

    def _complete(self) -> None:
        self.current.set()
        for target in list(self.targets.values()):
            self._count(target.node, target.target)

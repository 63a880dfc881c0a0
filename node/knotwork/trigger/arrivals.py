"""What is a request to `/hooks/…` or `/run/…` answered? A webhook: which run it started; a request: what the run responds."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, kv, subjects
from knotwork.bus.away import unavailable, why_away
from knotwork.config import secrets as config_secrets
from knotwork.flow import schemas
from knotwork.sdk.errors import Busy, Conflict, Denied, Invalid, KnotworkError, NotFound, TooLarge, Unavailable
from knotwork.trigger import envelope, signing
from knotwork.trigger.answers import Answer, Answers
from knotwork.trigger.envelope import Firing
from knotwork.trigger.model import Http, Served, Webhook
from knotwork.trigger.starting import RUNS_KEPT, Started, Starter, now_ns

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.sdk.secret import SecretRef
    from knotwork.trigger.store import Store

log = logging.getLogger(__name__)
WAITING_MAX = 2000
KEPT_OPEN_S = 60.0
"""How long the value behind a secret reference is used before it is read again."""
DOUBTED_S = 1.0
"""The same when a signature does not fit: it may have been changed; whoever guesses has it read no more often."""
_PASSED_ON = ("authorization", "cookie", "proxy-authorization")
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request. `headers` have lower-case names; `path` is what follows /hooks/ or /run/."""

    kind: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Arrivals:
    """The triggers of one project that are served by the HTTP door."""

    def __init__(
        self, connection: Connection, store: Store, starter: Starter, answers: Answers, read: Callable[[SecretRef], str]
    ) -> None:
        """Serve those of `store`; `read` gives the value behind a secret reference, and may wait."""
        self._connection, self._store, self._starter, self._answers, self._read = (
            connection, store, starter, answers, read,
        )  # fmt: skip
        self._deliveries = kv.Bucket(connection, subjects.DELIVERIES)
        self._secrets: dict[str, tuple[float, str]] = {}
        self._waiting = 0

    async def open(self) -> None:
        """Make sure that there is a place for what came already."""
        await kv.open_bucket(self._connection, subjects.DELIVERIES)

    def find(self, kind: str, path: str) -> list[Served]:
        """Return the triggers that are served under a path: none, or one for each method."""
        return [
            known.trigger
            for known in self._store.known.values()
            if isinstance(known.trigger, Webhook | Http)
            and known.trigger.kind == kind
            and known.trigger.path == path
            and known.trigger.enabled
        ]

    async def answer(self, trigger: Served, arrived: Arrived) -> Answer:
        """Fire for a request, and answer it.

        Raises `TooLarge`, `Denied` (401), `Invalid` (`trigger.schema`), `Busy` (`trigger.overlap`, `trigger.busy`),
        `Unavailable`.
        """
        if (away := why_away(self._connection)) is not None:  # nothing is done, so it can be sent again
            raise unavailable(away)
        if len(arrived.body) > trigger.max_body:
            raise TooLarge(
                f"The body is over {trigger.max_body} bytes.", code="trigger.body_too_large", hint="Send less."
            )
        key = await self._key(trigger, arrived)
        body = envelope.as_json(arrived.body)
        if trigger.body_schema is not None:
            try:
                schemas.must_fit(trigger.body_schema, body, "The body")
            except Invalid as error:
                raise Invalid(error.message, code="trigger.schema") from error
        more = {
            "method": arrived.method, "path": arrived.path, "query": dict(arrived.query),
            "headers": {name: value for name, value in arrived.headers.items() if name not in _PASSED_ON},
        }  # fmt: skip
        firing = Firing(key, body, 0, now_ns(), more)
        if not isinstance(trigger, Http):
            done = _or_error(await self._fire(trigger, firing))
            return Answer(202, msgspec.json.encode({"run": done.run, "new": done.new}), done.run)
        if self._waiting >= WAITING_MAX:
            raise Busy("Too many requests are waiting for their runs.", code="trigger.busy", retry_after_s=1.0)
        self._waiting += 1
        try:
            return await self._and_wait(trigger, firing)
        finally:
            self._waiting -= 1

    async def _and_wait(self, trigger: Http, firing: Firing) -> Answer:
        async with self._answers.hearing() as heard:  # from before it starts
            done = _or_error(await self._fire(trigger, firing))
            try:
                async with asyncio.timeout(trigger.timeout):
                    return await heard.answer(done.run)
            except TimeoutError:
                return self._answers.too_late(done.run, trigger.timeout)

    async def _fire(self, trigger: Served, firing: Firing) -> Started:
        """Fire; a decision about runs that are in the way is made by one node at a time."""
        if trigger.overlap == "allow":
            done = await self._starter.start(trigger, firing)
            await self._starter.note(trigger, firing, done)
            return done
        would = await self._starter.would_start(trigger, firing)
        if would.error is not None:  # for what starts nothing no run is stopped, and no place taken
            await self._starter.note(trigger, firing, would)
            return would
        claimed = would.run
        for _ in range(_TRIES):
            state, revision = await self._store.state(trigger.id)
            before = await self._starter.in_the_way(state)
            if before and trigger.overlap == "skip" and before != claimed:
                await self._starter.note(trigger, firing, Started(why=f"{before} goes on"))
                raise Busy(
                    f"The run before goes on: {before}.", code="trigger.overlap", hint="Send it again later.",
                    detail={"id": before}, retry_after_s=5.0,
                )  # fmt: skip
            state.runs = [*(run for run in state.runs if run != claimed), claimed][-RUNS_KEPT:]
            state.last_ns = firing.fired_ns
            try:
                await self._store.save(trigger.id, state, revision)
            except Conflict:
                continue
            if before and before != claimed:
                await self._starter.stop(before, trigger)
            done = await self._starter.start(trigger, firing)
            await self._starter.note(trigger, firing, done)
            return done
        raise Unavailable("Others fire it all the time.", code="trigger.busy", retry_after_s=1.0)

    # -- who sent it, and was it sent before? ------------------------------------------------------------------------

    async def _key(self, trigger: Served, arrived: Arrived) -> str:
        """Return what the run of a request is known by: who sends it again means the same run."""
        delivery = ""
        if trigger.secret is not None:
            try:
                delivery = await self._signed(trigger, trigger.secret, arrived)
            except UnicodeEncodeError as error:
                raise Denied("The headers make no sense.", code="trigger.not_signed") from error
        if (
            delivery.startswith("id=") and trigger.window
        ):  # before a header that nobody signed: it would make a replay new
            return f"{trigger.id}/{_digest(delivery)}"
        given = arrived.headers.get(trigger.idempotency_header.lower(), "")
        if given:
            return f"{trigger.id}/{_digest(given)}"
        if not delivery or not trigger.window:
            return f"{trigger.id}/{secrets.token_hex(12)}"
        return await self._once_a_window(
            trigger, _digest(f"{delivery} {arrived.method} {sorted(arrived.query.items())}")
        )

    async def _once_a_window(self, trigger: Served, digest: str) -> str:
        """Return the key of a body that carries no number of its own: the same until the window is over."""
        key = f"{trigger.id}/{secrets.token_hex(12)}"
        place = f"{trigger.id}.{digest}"
        try:
            await self._deliveries.create(place, key.encode(), ttl_s=max(1, int(trigger.window)))
        except Conflict:
            entry = await self._deliveries.get(place)
            if entry is not None and entry.value is not None:
                return entry.value.decode()
        return key

    async def _signed(self, trigger: Served, reference: SecretRef, arrived: Arrived) -> str:
        """Return what a signature says of its delivery; before it is refused, the secret is looked at anew."""
        secret, now_s = await self._secret(trigger.id, reference), clock.now_ns() / 1e9
        try:
            return signing.delivery(arrived.headers, arrived.body, secret, now_s, trigger.window)
        except Denied as error:
            if error.code != "trigger.bad_signature":
                raise
            changed = await self._secret(trigger.id, reference, kept_s=DOUBTED_S)
            if changed == secret:
                raise
        return signing.delivery(arrived.headers, arrived.body, changed, now_s, trigger.window)

    async def _secret(self, name: str, reference: SecretRef, *, kept_s: float = KEPT_OPEN_S) -> str:
        place = f"{name} {reference.model_dump_json()}"
        at_s, value = self._secrets.get(place, (0.0, ""))
        if not value or time.monotonic() - at_s > kept_s:
            try:
                value = await asyncio.to_thread(self._read, reference)
            except KnotworkError as error:
                log.warning("the secret of the trigger %s cannot be read: %s", name, config_secrets.redact(str(error)))
                raise Unavailable(
                    "The secret of the trigger cannot be read here.", code="trigger.no_secret",
                    hint="The log of the node says why.",
                ) from error  # fmt: skip
            self._secrets[place] = (time.monotonic(), value)
        return value


def _or_error(done: Started) -> Started:
    """Return what was started; raises why nothing was."""
    if done.error is None:
        return done
    if isinstance(done.error, Conflict):
        raise Conflict(
            f"The same key came with another body: it was the run {done.run}.", code=done.error.code,
            hint="Send another key, or exactly the same body.", detail=done.error.detail,
        ) from done.error  # fmt: skip
    if isinstance(done.error, NotFound):
        raise Unavailable(
            "The workflow of the trigger is gone.", code="trigger.no_workflow",
            hint="Register it again, or remove the trigger: `knotwork workflow list` says which there are.",
        ) from done.error  # fmt: skip
    raise done.error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]

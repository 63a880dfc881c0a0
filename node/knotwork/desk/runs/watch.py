"""What happens to a run while somebody looks on? Each fact, what workers say, and the steps as they are, when that is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from knotwork.bus import frames, patterns
from knotwork.bus.waits import set_within
from knotwork.desk.agents import piece_of
from knotwork.desk.runs import rows as flow_rows
from knotwork.flow import facts
from knotwork.ops import replies
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.reading import Stored
    from knotwork.bus.wire import Message
    from knotwork.flow.looking import Outline, Sight
    from knotwork.flow.room import Flow

LOOK_EVERY_S = 2.0
PAUSE_S = 0.1
"""Between two looks: a look reads the whole run, and facts often come together."""
CHILDREN_MAX = 16
"""Sub-workflows whose own steps are counted."""
SAID_MAX = 1000
BACKLOG_MAX = 200
"""Facts that are told of what was before somebody looked on: the last of them."""
OPEN_MAX_PERCENT = 99.0
"""What is not over is not done, whatever its steps are: its compensations may go on."""
_ends = msgspec.json.Decoder(facts.StepEnd)
Piece = replies.Progress | replies.Chunk


class Said(NamedTuple):
    """What the worker of a step said last about how far it is."""

    percent: float | None
    text: str


class RunWatch:
    """What is told of one run, and of those that go on for it."""

    def __init__(self, flow: Flow, *, tree: bool) -> None:
        """Hear nothing yet; with `tree`, say also how the steps are."""
        self._flow, self._tree = flow, tree
        self._news = asyncio.Event()
        self._said: dict[str, Said] = {}
        self._fresh: dict[str, Said] = {}
        self._shown: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, tuple[float, str]] = {}
        self._tried: dict[str, int] = {}

    async def pieces(self, run: str, timeout_s: float) -> AsyncGenerator[Piece, None]:
        """Yield what happens until the run is over, those that go on for it included; raises what `Looking.glance` does."""
        until_s = time.monotonic() + timeout_s
        while True:
            async with contextlib.aclosing(self._one(run, until_s)) as pieces:
                async for piece in pieces:
                    yield piece
            following = await self._flow.runs.latest(run)
            if following == run or time.monotonic() >= until_s:
                return
            yield replies.Progress(percent=None, text=f"it goes on as {following}")
            run = following
            self._said, self._shown, self._tried = {}, {}, {}

    async def _one(self, run: str, until_s: float) -> AsyncGenerator[Piece, None]:
        listen = self._flow.connection.listen
        heard = [
            await listen(patterns.told_of(run), lambda _: self._news.set()),
            await listen(patterns.live_of(run), self._hear),
        ]
        told = 0
        begun: set[tuple[str, ...]] = set()
        try:
            while True:
                self._news.clear()
                sight = await self._flow.runs.glance(run)
                percent = _percent(sight)
                for piece in _told(sight, told, begun, percent):
                    yield piece
                told = max(told, len(sight.facts))
                for step, said in self._taken():
                    shown = "" if said.percent is None else f"{said.percent:.0f} % "
                    yield replies.Progress(percent=percent, text=f"{step}: {shown}{said.text}".rstrip())
                if self._tree and (now := await self._changed(sight)):
                    yield replies.Chunk(data=now)
                if sight.finish is not None or time.monotonic() >= until_s:
                    return
                await asyncio.sleep(min(PAUSE_S, max(0.0, until_s - time.monotonic())))
                await set_within(self._news, max(0.0, min(LOOK_EVERY_S, until_s - time.monotonic())))
        finally:
            for one in heard:
                self._flow.connection.unlisten(one)

    def _hear(self, message: Message) -> None:
        piece = piece_of(frames.read(message))
        step = message.subject.rpartition(".")[2]
        if isinstance(piece, replies.Progress) and (step in self._said or len(self._said) < SAID_MAX):
            self._said[step] = self._fresh[step] = Said(piece.percent, piece.text)
            self._news.set()

    def _taken(self) -> list[tuple[str, Said]]:
        fresh, self._fresh = self._fresh, {}
        return list(fresh.items())

    async def _changed(self, sight: Sight | Outline) -> dict[str, Any]:
        """Return the run, and those of its steps that look different from when they were shown last; {} for nothing."""
        attempts = _attempts(sight.facts)
        for step, attempt in attempts.items():
            if attempt > self._tried.get(step, 1):
                self._said.pop(step, None)  # that was the attempt before
        self._tried = attempts
        steps = []
        for info in flow_rows.info(sight).progress:
            now = {
                "id": info.id, "kind": info.kind, "state": info.state, "attempt": attempts.get(info.id, 0),
                "items": info.items, "begun_at": info.begun_at, "ended_at": info.ended_at,
                "error": info.error.message if info.error is not None else "",
            }  # fmt: skip
            if info.kind == "workflow" and info.begun_at:
                now |= {"run": (child := facts.child_run(sight.id, info.id)), "items": await self._count(child)}
            if not info.ended_at and (said := self._said_of(info.id)) is not None:
                now |= {"percent": said.percent, "text": said.text}
            now = {key: value for key, value in now.items() if value not in ("", 0, None)}
            if self._shown.get(info.id) != now:
                self._shown[info.id] = now
                steps.append(now)
        row = flow_rows.row(sight)
        names = ("id", "workflow", "state", "done", "steps", "started_at", "ended_at", "code")
        head = {key: value for key in names if (value := getattr(row, key)) != ""}
        if not steps and self._shown.get("") == head:
            return {}
        self._shown[""] = head
        return {**head, "percent": _percent(sight), "changed": steps}

    def _said_of(self, step: str) -> Said | None:
        """Return what the worker of a step said, or that of one of its items, the last that did."""
        found = self._said.get(step)
        items = [said for token, said in self._said.items() if token.startswith(f"{step}--")]
        return items[-1] if items else found

    async def _count(self, run: str) -> str:
        """Return how many steps of a sub-workflow are done, of how many; asked once a second, of a few."""
        at_s, shown = self._counts.get(run, (0.0, ""))
        if time.monotonic() - at_s < 1.0 or (run not in self._counts and len(self._counts) >= CHILDREN_MAX):
            return shown
        with contextlib.suppress(KnotworkError):  # it is not started yet
            row = flow_rows.row(await self._flow.runs.glance(await self._flow.runs.latest(run)))
            shown = f"{row.done}/{row.steps}"
        self._counts[run] = (time.monotonic(), shown)
        return shown


def _percent(sight: Sight | Outline) -> float:
    row = flow_rows.row(sight)
    return 100.0 if sight.finish is not None else min(OPEN_MAX_PERCENT, round(100 * row.done / max(1, row.steps), 1))


def _told(sight: Sight | Outline, told: int, begun: set[tuple[str, ...]], percent: float) -> list[replies.Progress]:
    """Return what is said of the facts behind the first `told`; how far the run is now stands at the last of them."""
    news = sight.facts[told:]
    left = max(0, len(news) - BACKLOG_MAX) if told == 0 else 0
    texts = [f"{left} facts before: `knotwork run events {sight.id}` lists them"] if left else []
    for number, stored in enumerate(news, start=told + 1):
        new = lines(number, stored, begun)  # also of those that are left out: it says what has begun
        texts += new if number > left else []
    last = len(texts) - 1
    return [replies.Progress(percent=percent if place == last else None, text=text) for place, text in enumerate(texts)]


def lines(number: int, stored: Stored, begun: set[tuple[str, ...]]) -> list[str]:
    """Return what a fact tells; adds the attempt to those of which it is told that they have `begun` (pure).

    A short attempt has no fact for its beginning: its outcome tells that, too.
    """
    _, _, _, what, *attempt = stored.subject.split(".")
    key = tuple(attempt[:3])
    if what == "started":  # taken up again after a crash, it has another
        late = (*key, "outcome") in begun
        begun.add(key)
        return [] if late else [_line(number, stored)]
    if what != "outcome":
        return [_line(number, stored)]
    begun.add((*key, "outcome"))
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        if key not in begun and _ends.decode(stored.data).started_ns:
            begun.add(key)
            return [f"{attempt[0]} started", _line(number, stored)]
    return [_line(number, stored)]


def _line(number: int, stored: Stored) -> str:
    event = flow_rows.event(number, stored)
    return " ".join(part for part in (event.step, event.what, event.state, event.message) if part)


def _attempts(found: list[Stored]) -> dict[str, int]:
    """Return at which attempt each step is, as far as facts tell (pure); the last one of a map's items."""
    attempts: dict[str, int] = {}
    for stored in found:
        _, _, _, what, *about = stored.subject.split(".")
        if what in ("outcome", "started", "next") and len(about) == 3 and about[2].isdecimal():  # noqa: PLR2004  step, iteration, attempt
            step, again = about[0].partition("--")[0], b'"due_ns":' in stored.data
            attempts[step] = max(attempts.get(step, 0), int(about[2]) + (what == "outcome" and again))
    return attempts

"""How is a tool called? Its arguments are checked whole, its handler asks ops, and what comes of it fits a model.

Whatever goes wrong with a call becomes an answer that a model can act on: what is wrong, all of it, and what to do.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pydantic

from knotwork.bus import codec
from knotwork.bus.background import background
from knotwork.bus.pauses import Pauses
from knotwork.mcp import again, catalog, spoken, standing, wording
from knotwork.mcp.held import Held
from knotwork.mcp.tool import Tool, arguments_of
from knotwork.ops import serve, words
from knotwork.ops.op import Caller
from knotwork.ops.ports import NodeControl
from knotwork.ops.replies import Progress
from knotwork.sdk.errors import Internal, Invalid, KnotworkError, from_wire
from knotwork.trust.who import Who

log = logging.getLogger(__name__)
PROBLEMS_MAX = 20
PIECES_MAX = 256
AWAY_S = 15.0
"""How long a call that may be made again waits for NATS."""
_AWAY = frozenset({"bus.disconnected", "bus.lost"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: `structured` fits the tool's output schema, `text` says the same; or what was wrong."""

    text: str
    structured: dict[str, Any] = field(default_factory=dict)
    is_error: bool = False


class OpSession:
    """One call of a tool, in the name of a caller (`tool.Session`)."""

    def __init__(
        self,
        caller: Caller,
        node: NodeControl,
        held: Held,
        tell: Callable[[Progress], None] = lambda _: None,
        key: str = "",
    ) -> None:
        """Ask the ops of `node` as `caller`; `key` is the same when the same call is made again."""
        self._caller, self._node, self._held, self._tell = caller, node, held, tell
        self._key = key

    @property
    def who(self) -> Who:
        """Return the agent that called."""
        return self._caller.who

    @property
    def key(self) -> dict[str, str]:
        """Return the idempotency key of this call as a field of an op, nothing when there is none."""
        return {"key": self._key} if self._key else {}

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Return the reply of an op; raises what the op raises."""
        row, raw = serve.find(op), codec.encode(fields)
        if not row.streams:
            return _reply(await serve.whole(row, raw, self._caller, self._node))
        return await self._streamed(op, raw, self._piece)

    async def pieces(self, op: str, **fields: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the data of an op's chunks, and its reply; raises what the op raises."""
        found: list[Any] = []

        def keep(frame: serve.Frame) -> None:
            if frame.kind == "chunk":
                found.append(codec.decode(frame.data)["data"])

        reply = await self._streamed(op, codec.encode(fields), keep)
        return found, reply

    async def _streamed(self, op: str, raw: bytes, hear: Callable[[serve.Frame], None]) -> dict[str, Any]:
        frames = serve.dispatch(op, raw, self._caller, self._node)
        async with aclosing(frames):
            async for frame in frames:
                if frame.kind in ("result", "error"):
                    return _reply(frame)
                hear(frame)
        raise Internal(f"{op} ended without an answer.", code="ops.no_answer")

    def _piece(self, frame: serve.Frame) -> None:
        piece = codec.decode(frame.data)
        if frame.kind == "progress":
            self.progress(piece.get("percent"), str(piece.get("text", "")))
        elif isinstance(piece.get("data"), dict) and isinstance(piece["data"].get("state"), str):
            self.progress(None, piece["data"]["state"])

    def progress(self, percent: float | None, text: str) -> None:
        """Tell the client how far the call is."""
        self._tell(Progress(percent=percent, text=wording.clean(text)[:1000]))

    def holds(self, work_id: str, claim: str, step: str = "") -> None:
        """Remember what the agent shows for work that it claimed, or for a step of it."""
        self._held.add(self.who.id, work_id, claim, step)

    async def claim_of(self, work_id: str, given: str) -> str:
        """Return what the agent shows for its work; raises `Invalid` (`tool.not_claimed`, `tool.several_claims`)."""
        if not given:
            for over in await standing.lost(self.ask, work_id, self._held.of(self.who.id, work_id)):
                self._held.drop(self.who.id, work_id, over)
        claim = given or self._held.get(self.who.id, work_id) or await self._asked_again(work_id)
        if claim:
            return claim
        raise Invalid(
            f"You do not hold {work_id}: this session did not claim it, or has ended it already.",
            code="tool.not_claimed",
            hint="Claim work with claim_work; list_claimed_work shows what you hold.",
        )

    async def _asked_again(self, work_id: str) -> str:
        """Return the claim of what was claimed before our node was restarted, or with an answer that was lost; else ""."""
        try:
            page = await self.ask("work.claimed", worker=self.who.name, id=work_id)
        except Invalid:  # this is no work that can be claimed
            return ""
        for task in page["tasks"]:
            self.holds(task["id"], task["claim"], task["step"])
        return self._held.get(self.who.id, work_id)

    def done_with(self, work_id: str, claim: str = "") -> None:
        """Forget a claim that the agent holds no longer, every one on this work when none is named."""
        self._held.drop(self.who.id, work_id, claim)


def _reply(frame: serve.Frame) -> dict[str, Any]:
    """Return the reply in the last frame of an op; raises the error that is in it instead."""
    if frame.kind == "error":
        raise from_wire(codec.decode(frame.data))
    reply: dict[str, Any] = codec.decode(frame.data)
    return reply


async def play(
    name: str, arguments: Any, caller: Caller, node: NodeControl, held: Held, *, key: str = ""
) -> AsyncGenerator[Progress | Outcome, None]:
    """Call a tool: any number of `Progress`, then its `Outcome`. Raises `NotFound` (`tool.unknown`) alone.

    Closing it early cancels what the tool does. A call without a `key` gets one: it may be made again here.
    """
    tool = catalog.find(name)
    key = key or (secrets.token_hex(8) if name in again.KEYED else "")
    pieces: asyncio.Queue[Progress | Outcome] = asyncio.Queue(PIECES_MAX)

    def tell(piece: Progress) -> None:
        if not pieces.full():  # who does not listen misses some
            pieces.put_nowait(piece)

    async def run() -> None:
        await pieces.put(await outcome_of(tool, arguments, OpSession(caller, node, held, tell, key)))

    outcome: Outcome | None = None
    async with background() as group:
        group.create_task(run())
        try:
            while outcome is None:
                piece = await pieces.get()
                if isinstance(piece, Outcome):
                    outcome = piece
                else:
                    yield piece
        except GeneratorExit:  # the group must not see it: it would take it for an error of its own
            return
    yield outcome


async def outcome_of(tool: Tool, arguments: Any, session: OpSession) -> Outcome:
    """Return what a call gave; whatever is wrong becomes part of it."""
    try:
        result = await _patiently(tool, {} if arguments is None else arguments, session)
    except KnotworkError as error:
        halves = wording.halved(arguments) if error.code == "wire.not_json" and isinstance(arguments, dict) else []
        return refused(wording.half_a_character(halves) if halves else error)
    except Exception as error:  # whatever a handler raises, the agent gets an answer
        log.exception("tool %s failed", tool.name)
        return refused(KnotworkError.of(error))
    text = tool.text(result) if tool.text is not None else wording.text_of(result)
    return Outcome(text, result)


async def _patiently(tool: Tool, arguments: Any, session: OpSession) -> dict[str, Any]:
    """Return the result of a call; one that may be made again outlasts that NATS is away for a moment."""
    loop, pauses = asyncio.get_running_loop(), Pauses(most_s=1.0)
    began_s = loop.time()
    until_s = began_s + AWAY_S
    while True:
        asked_s = loop.time()
        given = check(tool, again.later(tool.name, arguments, asked_s - began_s))
        try:
            return await _within(tool, given, session)
        except KnotworkError as error:
            now_s = loop.time()
            if now_s - asked_s > AWAY_S:  # it waited for something meanwhile
                until_s = now_s + AWAY_S
            harmless = again.may(tool.name, tool.hints.annotations())
            if error.code not in _AWAY or not harmless or now_s >= until_s:
                raise
        await pauses.wait()


async def _within(tool: Tool, given: Any, session: OpSession) -> dict[str, Any]:
    """Return a result that is not too long: a page with fewer rows, and if need be with shorter texts."""
    result = await tool.handler(given, session)
    while tool.rows and wording.size(result) > wording.RESULT_MAX_CHARS and tool.hints.repeats:
        limit, shown = getattr(given, "limit", 0), len(result[tool.rows])
        fewer = min(limit, shown) // 2
        if fewer < 1 or not _turns_pages(given):
            break
        given = given.model_copy(update={"limit": fewer})
        result = await tool.handler(given, session)
    fitting: dict[str, Any] = wording.fit(result)
    if fitting is not result and (left := _left_out(result, fitting)):
        fitting["left_out"] = left
    return fitting


def _left_out(result: dict[str, Any], fitting: dict[str, Any]) -> dict[str, int]:
    """Return how many rows each list of a result lost, by the list's name."""
    lists = ((name, value, fitting.get(name)) for name, value in result.items() if isinstance(value, list))
    return {
        name: len(value) - len(kept) for name, value, kept in lists if isinstance(kept, list) and len(kept) < len(value)
    }


def _turns_pages(given: Any) -> bool:
    return "cursor" in type(given).model_fields and "limit" in type(given).model_fields


def check(tool: Tool, arguments: Any) -> Any:
    """Return the checked arguments of a tool; raises `Invalid` (`tool.bad_arguments`) naming all that is wrong.

    An argument that is null counts as left out: models write it for what they do not need.
    """
    if not isinstance(arguments, Mapping):
        raise Invalid(
            f"The arguments of {tool.name} must be an object.", code="tool.bad_arguments", hint=_expected(tool)
        )
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return tool.input.model_validate(given)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    problems = [_problem(tool, one) for one in found[:PROBLEMS_MAX]]
    what = "One argument is" if len(found) == 1 else f"{len(found)} arguments are"
    raise Invalid(
        f"{what} wrong:\n" + "\n".join(f"- {line}" for line in problems),
        code="tool.bad_arguments",
        hint=_expected(tool),
    )


_KINDS = {
    "list_type": "it must be a list", "string_type": "it must be a text", "dict_type": "it must be an object",
    "model_type": "it must be an object", "model_attributes_type": "it must be an object",
}  # fmt: skip
"""What is said of a value of another kind, in the words of JSON, by the library's name for that."""


def _problem(tool: Tool, found: Any) -> str:
    where = ".".join(wording.clean(str(part))[:64] for part in found["loc"])
    message = str(found["msg"]).removeprefix("Value error, ")[:300]
    match found["type"]:
        case "extra_forbidden":
            if len(found["loc"]) > 1:  # within an argument, which says what it holds
                return f"{where}: there is no such field" + _described(tool, str(found["loc"][0]))
            near = get_close_matches(where, arguments_of(tool.input), 1)
            return f"{where}: there is no such argument" + (f"; did you mean {near[0]}?" if near else "")
        case "missing":
            return f"{where}: it is needed" + _described(tool, where)
        case "string_pattern_mismatch":
            said, hint = words.misfit(str(found.get("ctx", {}).get("pattern", "")))
            return f"{where}: {said}. {hint}".rstrip()
    message = _KINDS.get(found["type"], message)
    return f"{where}: {message}" if where else message


def _described(tool: Tool, name: str) -> str:
    known = arguments_of(tool.input).get(name)
    return f" ({known.description})" if known is not None and known.description else ""


def _expected(tool: Tool) -> str:
    known = arguments_of(tool.input)
    if not known:
        return f"{tool.name} takes no arguments."
    told = [f"{name} (needed)" if about.is_required() else name for name, about in known.items()]
    return f"{tool.name} takes: {', '.join(told)}."


def refused(error: KnotworkError) -> Outcome:
    """Return what an agent is told of an error: what happened, why, and what to do."""
    said, hint = wording.clean(spoken.for_agents(error.message)), wording.clean(spoken.for_agents(error.hint))
    text = f"Error: {said}"
    if hint:
        text += f"\n{hint}"
    if error.retry_after_s:
        text += f"\nTry again in {error.retry_after_s:g} s."
    told: dict[str, Any] = {"code": error.code, "message": said} | ({"hint": hint} if hint else {})
    text = f"{text}\n({error.code})"
    return Outcome(wording.fit(text), {"error": wording.fit(told)}, is_error=True)

"""How is an op carried out, whatever door the request came in by? Bytes in, frames out, never an exception.

A door authenticates, makes a `Caller`, feeds `dispatch` and sends the frames on. It must close the generator when the
caller goes away: that is what cancels the work.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Literal, NamedTuple

import msgspec
import pydantic
import pydantic_core

from knotwork.bus import away, codec
from knotwork.bus.request_size import REQUEST_MAX_BYTES, too_large
from knotwork.ops import table, words
from knotwork.ops.ports import NodeControl
from knotwork.ops.replies import Progress
from knotwork.sdk.errors import (
    Denied,
    Internal,
    Invalid,
    KnotworkError,
    NotFound,
    Unreachable,
    guess,
)

log = logging.getLogger(__name__)

PROBLEMS_MAX = 50
_deep = msgspec.json.Encoder(enc_hook=dict)
"""Writes what is nested too deep for pydantic (255 levels): all that `codec.decode` takes can be answered as well."""
Kind = Literal["chunk", "progress", "result", "error"]


class Frame(NamedTuple):
    """One piece of an answer. `result` and `error` are last; `data` is JSON (an error's is `KnotworkError.to_wire`)."""

    kind: Kind
    data: bytes


async def dispatch(
    name: str,
    raw: bytes | table.Request,
    caller: table.Caller,
    node: NodeControl,
    rows: Mapping[str, table.Op] = table.TABLE,
) -> AsyncGenerator[Frame, None]:
    """Carry out op `name` with the request `raw`, as JSON or `admitted`: any pieces, then one `result` or `error` frame."""
    try:
        op = find(name, rows)
        if not op.streams:
            yield await whole(op, raw, caller, node)
            return
        request = admitted(op, raw, caller)
        async with aclosing(_pieces(op, request, caller, node)) as frames:
            async for frame in frames:
                yield frame
    except KnotworkError as error:
        yield _refused(error, caller)
    except Exception as error:  # whatever a handler raises, the caller gets an answer and the door stays open
        log.exception("op %s failed", name)
        yield _refused(KnotworkError.of(error), caller)


def admitted(op: table.Op, raw: bytes | table.Request, caller: table.Caller) -> table.Request:
    """Return the checked request of somebody who may ask for this; raises `Denied`, and what `read` does."""
    _admit(op, caller)
    return read(op, raw) if isinstance(raw, bytes) else raw


async def whole(op: table.Op, raw: bytes | table.Request, caller: table.Caller, node: NodeControl) -> Frame:
    """Carry out an op that has no pieces, and return its `result` or `error`; half the price of `dispatch`."""
    try:
        return Frame("result", encode(await op.handler(admitted(op, raw, caller), node, caller)))
    except KnotworkError as error:
        return _refused(error, caller)
    except Exception as error:  # the same
        log.exception("op %s failed", op.name)
        return _refused(KnotworkError.of(error), caller)


def _refused(error: KnotworkError, caller: table.Caller) -> Frame:
    caller.take_back()
    return failed(told(error))


def told(error: KnotworkError) -> KnotworkError:
    """Return an error as whoever asked gets it: what is away is our NATS, not the node, which has just answered."""
    return away.unavailable(error) if isinstance(error, Unreachable) and error.code.startswith("bus.") else error


def _admit(op: table.Op, caller: table.Caller) -> None:
    if not caller.allows(op.effect):
        raise Denied(
            f"{caller.name} may not use {op.name}: it needs the right {op.effect!r}, and has {caller.may!r}.",
            code="ops.denied",
            hint="Use a token or credentials with that right.",
        )


async def _pieces(
    op: table.Op, request: table.Request, caller: table.Caller, node: NodeControl
) -> AsyncGenerator[Frame, None]:
    async with aclosing(op.handler(request, node, caller)) as pieces:
        async for piece in pieces:
            if isinstance(piece, op.reply):
                yield Frame("result", encode(piece))
                return
            yield Frame("progress" if isinstance(piece, Progress) else "chunk", encode(piece))
    raise Internal(f"{op.name} ended without an answer.", code="ops.no_answer")


DESTROYS = frozenset(
    """archive cancel cleanup close disable drain drop fail forget forget_bulk pause quarantine rebuild reject release
    remove revert rollback stop""".split()  # noqa: SIM905 - twenty lines as a list
)
"""What takes away or ends something: never suggested to one who mistyped, who may well do what he is told."""


def find(name: str, rows: Mapping[str, table.Op] = table.TABLE) -> table.Op:
    """Return the op; raises `NotFound` (`ops.unknown`) with the nearest name."""
    if name in rows:
        return rows[name]
    harmless = [known for known, row in rows.items() if row.verb not in DESTROYS]
    hint = guess(name, harmless) or f"There are: {', '.join(sorted(rows))}."
    raise NotFound(f"There is no op {name[:128]!r}.", code="ops.unknown", hint=hint)


def read(op: table.Op, raw: bytes) -> table.Request:
    """Return the checked request of JSON text; no text counts as `{}`.

    Raises `TooLarge` over 8 MiB, and `Invalid` naming everything that is wrong at once.
    """
    if len(raw) > REQUEST_MAX_BYTES:
        raise too_large()
    fields = codec.decode(raw) if raw else {}
    if not isinstance(fields, dict):
        raise Invalid(
            f"The request of {op.name} must be a JSON object.", code="ops.bad_request", hint='For example {"input": 1}.'
        )
    return check(op, fields)


def check(op: table.Op, fields: Mapping[str, Any]) -> table.Request:
    """Return the request made of plain fields; raises `Invalid` with `detail["problems"]` holding every problem."""
    try:
        return op.request.model_validate(fields)
    except pydantic.ValidationError as error:
        problems = [_problem(op, found) for found in error.errors(include_url=False, include_input=False)]
    shown = "; ".join(f"{problem['field']}: {problem['message']}" for problem in problems[:PROBLEMS_MAX])
    count = f"{len(problems)} problems with" if len(problems) > 1 else "A problem with"
    raise Invalid(
        f"{count} the request of {op.name}: {shown}.",
        code="ops.bad_request",
        hint=next((problem["hint"] for problem in problems if problem["hint"]), ""),
        detail={"problems": problems[:PROBLEMS_MAX]},
    )


def _problem(op: table.Op, found: Any) -> dict[str, str]:
    field = ".".join(str(part)[:64] for part in found["loc"]) or "request"
    message, hint = str(found["msg"]).removeprefix("Value error, "), ""
    if found["type"] == "extra_forbidden":
        message = "no such field"
        hint = guess(field, op.request.model_fields) or f"Fields: {', '.join(op.request.model_fields) or 'none'}."
    elif found["type"] == "string_pattern_mismatch":
        message, hint = words.misfit(str(found.get("ctx", {}).get("pattern", "")))
    return {"field": field, "message": message[:256], "hint": hint, "code": str(found["type"])}


def encode(reply: pydantic.BaseModel) -> bytes:
    """Return a reply as JSON; raises `Internal` for what JSON cannot say."""
    try:
        return reply.__pydantic_serializer__.to_json(reply)  # what `model_dump_json` makes a text of
    except pydantic_core.PydanticSerializationError as error:
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            return _deep.encode(reply)
        raise Internal(f"The answer cannot be written as JSON: {error}.", code="ops.bad_answer") from error


def failed(error: KnotworkError) -> Frame:
    """Return the frame that carries an error."""
    wire = error.to_wire()
    try:
        return Frame("error", pydantic_core.to_json(wire, fallback=str, inf_nan_mode="null"))
    except pydantic_core.PydanticSerializationError:  # an agent may put anything into a message, half a character too
        wire = {"kind": error.kind, "code": error.code, "message": ascii(error.message)}
        return Frame("error", pydantic_core.to_json(wire))

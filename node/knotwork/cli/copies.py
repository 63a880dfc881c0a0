"""How do any number of runs go into a file and come back? One a line, a page or a batch at a time, whatever they weigh together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from knotwork.cli import given, remote, show
from knotwork.cli.options import Shared
from knotwork.sdk.errors import Invalid, KnotworkError

PAGE = 100
BATCH_LINES, BATCH_BYTES = 100, 4 * 1024 * 1024
LINE_MAX_BYTES = 16 * 1024 * 1024
PAGE_TIMEOUT_S = 300.0
TELL_EVERY = TOLD_MAX = 1000
BROKEN = "broken"
"""The only key of the line that ends an export which broke off."""
Request = dict[str, Any]
Reply = dict[str, Any]


def export(shared: Shared, request: Request) -> Reply:
    """Write runs to standard output, one a line, and return what the pages add up to.

    What breaks off in the middle ends with a line that is no run, and that `bring_in` takes for what it is.
    """
    written = _Written()
    try:
        return _export(shared, request, written)
    except KnotworkError as error:
        if written.lines:
            written.add({BROKEN: {"code": error.code, "message": error.message, "lines": written.lines}})
            note = f"what was written is not all, and its last line says so: it breaks off after {written.lines - 1}"
            print(note, file=sys.stderr, flush=True)
        raise


def _export(shared: Shared, request: Request, written: _Written) -> Reply:
    if "id" in request:
        reply = _ask(shared, "run.export", request, written)
        parts = ("part", "more") if reply.get("part") else ()
        written.add({name: reply[name] for name in ("id", "definition", "facts", *parts)})
        return {"exported": 1, "failed": []}
    limit, count, going, failed = request.get("limit"), 0, 0, list[Any]()
    while True:
        page = PAGE if limit is None else min(PAGE, limit - count - len(failed))
        reply = _ask(shared, "run.export", {**request, "limit": page}, written)
        count, failed = count + reply["exported"], [*failed, *reply["failed"]]
        going += reply.get("going", 0)  # left out, and so not part of the limit
        if not reply["next"] or (limit is not None and count + len(failed) >= limit):
            if going:
                told = "1 run has not ended and was" if going == 1 else f"{going} runs have not ended and were"
                print(f"{told} left out", file=sys.stderr, flush=True)
            return {"exported": count, "failed": failed, "going": going, "next": reply["next"]}
        request = {**request, "cursor": reply["next"]}
        if count // TELL_EVERY != (count - reply["exported"]) // TELL_EVERY:
            _tell(shared, f"{count} runs so far")


def bring_in(shared: Shared, word: str) -> Reply:
    """Have the runs kept that a word means: a file, standard input, or JSON; returns what became of each of them."""
    told = _Told()
    lines: list[tuple[int, Any]] = []
    size = 0
    with ExitStack() as stack:
        for number, line in _lines(word, stack):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:  # it is not sent at all
                why = f"it is no JSON: {error}"[:300]
                wrong = {"id": "", "changed": False, "run": "", "why": why, "code": "wire.not_json", "line": number}
                told.add([wrong])
                continue
            if isinstance(value, dict) and BROKEN in value:  # as `export` ends what it could not write whole
                told.add([_broken(value[BROKEN], number)])
                continue
            if lines and (size + len(line) > BATCH_BYTES or len(lines) >= BATCH_LINES):
                told.add(_sent(shared, lines))
                lines, size = [], 0
                _tell(shared, f"{told.count} runs so far")
            lines.append((number, value))
            size += len(line)
    if not told.count and len(lines) == 1:  # of one that is alone, what is wrong is the error
        reply = _ask(shared, "run.import", {"run": lines[0][1]})
        return reply | {"runs": [one | {"line": lines[0][0]} for one in reply["runs"]]}
    told.add(_sent(shared, lines) if lines else [])
    runs = sorted(told.runs, key=lambda one: int(one["line"]))
    return {"runs": runs, "matched": told.count, "done": told.done, "failed": told.failed}


def _broken(told: Any, number: int) -> Reply:
    """Return what is said of the line that ends an export which broke off."""
    message = told.get("message") if isinstance(told, dict) else None
    why = f"the export broke off here, and what follows is missing: {message or 'nobody knows why'}"[:500]
    return {"id": "", "changed": False, "run": "", "why": why, "code": "flow.broken_export", "line": number}


class _Written:
    """What was written to standard output, one JSON value a line."""

    def __init__(self) -> None:
        self.lines = 0

    def add(self, value: Any) -> None:
        """Write one more."""
        sys.stdout.write(f"{show.compact(value)}\n")
        sys.stdout.flush()
        self.lines += 1


class _Told:
    """What became of runs: of many only those of which something is to be said, and not without end."""

    def __init__(self) -> None:
        self.runs: list[Reply] = []
        self.count = self.done = self.failed = 0

    def add(self, runs: list[Reply]) -> None:
        """Add what became of some."""
        for one in runs:
            self.count += 1
            self.done += bool(one["changed"])
            self.failed += bool(one["code"])
            if len(self.runs) < TOLD_MAX or (one["code"] and self.failed <= TOLD_MAX):
                self.runs.append(one)


def _sent(shared: Shared, lines: list[tuple[int, Any]]) -> list[Reply]:
    reply = _ask(shared, "run.import", {"runs": [value for _, value in lines]})
    return [one | {"line": number} for (number, _), one in zip(lines, reply["runs"], strict=True)]


def _lines(word: str, stack: ExitStack) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of what a word means, with their numbers; of JSON that spans several lines, all of it as one."""
    file: IO[bytes] | None = None
    if word == "-":
        file = sys.stdin.buffer
    elif word.startswith("@") and len(word) > 1:
        try:
            file = stack.enter_context(Path(word[1:]).open("rb"))  # noqa: SIM115  closed by the stack
        except OSError as error:
            raise Invalid(f"{word[1:]} cannot be read: {error.strerror}.", code="cli.input_unreadable") from error
    if file is None:
        yield 1, given.read_bytes(word)
        return
    first = file.readline(LINE_MAX_BYTES)
    if first.strip() in (b"{", b"["):  # as `-o json` wrote one
        yield 1, first + file.read(LINE_MAX_BYTES)
        return
    number = 1
    while first:
        if first.strip():
            yield number, first
        number, first = number + 1, file.readline(LINE_MAX_BYTES)


def _ask(shared: Shared, op: str, request: Request, written: _Written | None = None) -> Reply:
    def piece(frame: Any) -> None:
        if written is not None and frame.kind == "chunk":
            written.add(json.loads(frame.data)["data"])

    timeout_s = shared.timeout_s or PAGE_TIMEOUT_S
    raw = remote.ask(shared, op, json.dumps(request).encode(), piece, timeout_s=timeout_s, whole=True)
    reply: Reply = json.loads(raw)
    return reply


def _tell(shared: Shared, text: str) -> None:
    if not shared.quiet and sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)

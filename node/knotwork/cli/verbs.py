"""How does a row of the ops table become a command? Its fields become arguments and flags, its reply a table."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

import click

from knotwork.cli import after, early, fallback, files, given, large, options, remote, runs, show, waiting
from knotwork.cli.options import Shared
from knotwork.ops.form import Field, Row
from knotwork.sdk.errors import TimedOut, Unreachable

ENDLESS_S = 7 * 86400.0
AS_WRITTEN = frozenset({"definition"})
"""Fields that travel as their text, also when that is JSON: whoever reads it tells the line of what is wrong."""
_TYPES: dict[str, Any] = {"text": str, "integer": int, "number": float, "list": str, "json": str}


def command(op: Row, name: str) -> click.Command:
    """Return the click command of an op."""
    return click.Command(
        name,
        params=params(op),
        callback=callback(op),
        help=described(op),
        short_help=op.summary.rstrip("."),
        epilog=examples(op),
    )


def described(op: Row) -> str:
    """Return the help text of an op."""
    return f"{op.summary}\n\n{op.help}" if op.help else op.summary


def examples(op: Row) -> str:
    """Return its examples as shown under the help."""
    lines = [line for example in op.examples for line in (f"  # {example.text}", f"  {typed(op, example.request)}")]
    return "\b\nExamples:\n" + "\n".join(lines) if lines else ""


def typed(op: Row, request: dict[str, Any]) -> str:
    """Return the command line that makes a request."""
    words = ["knotwork", *op.cli.words]
    known = {field.name: field for field in op.fields}
    for name, value in request.items():
        field = known[name]
        flag = field.flag if name not in op.cli.short else f"-{op.cli.short[name]}"
        parts = value if isinstance(value, list) and field.shape == "list" else [value]
        for part in parts:
            text = part if isinstance(part, str) else json.dumps(part)
            if name in op.cli.positional:
                words.append(quoted(text))
            elif field.shape == "flag":
                words.append(flag)
            else:
                words += [flag, f"{text}s" if field.seconds else quoted(text)]
    return " ".join(words)


def quoted(text: str) -> str:
    """Return a word as it is typed into a shell; text with single quotes in it stays readable where that can be."""
    if "'" in text and not set(text) & set('"$`\\!\n'):
        return f'"{text}"'
    return shlex.quote(text)


_LONGEST = "7d"
"""What `--wait` by itself means: as long as may be asked for."""


def params(op: Row) -> list[click.Parameter]:
    """Return arguments, flags and the shared options of an op."""
    made: list[click.Parameter] = []
    known = {field.name: field for field in op.fields}
    shared = [*fallback.params(op.name), *options.answering(), *options.reaching()]
    taken, names = {flag for option in shared for flag in option.opts}, {option.name for option in shared}
    for name in op.cli.positional:
        field = known[name]
        many = field.shape == "list"
        required = field.required and not many
        kind = click.Choice(field.choices) if field.choices else _TYPES[field.shape]
        own = f"{name}_" if name in names else name  # a task's output is not the output of the command
        shown = name.upper() if required else f"[{name.upper()}]" + "..." * many
        made.append(click.Argument([own], required=required, nargs=-1 if many else 1, type=kind, metavar=shown))
    made += [
        _flag(op, field) for field in known.values() if field.name not in op.cli.positional and field.flag not in taken
    ]
    return [*made, *runs.params(op.name), *shared]


def _flag(op: Row, field: Field) -> click.Option:
    names = [field.name, field.flag]
    if field.name in op.cli.short:
        names.append(f"-{op.cli.short[field.name]}")
    default = (
        ""
        if field.default in (None, "", [], False, 0, 0.0)
        else f" [default: {field.default:g}]"
        if field.shape in ("integer", "number")
        else f" [default: {field.default}]"
    )
    about = field.description + default
    if field.shape == "flag":
        return click.Option(names, is_flag=True, default=None, help=about)
    if field.seconds:
        about = about.removeprefix("seconds ")
        if field.name in op.cli.answer_when:  # by itself it says what is wanted: the answer, however long it takes
            about += "; without TIME a week"
            time = options.Duration()
            return click.Option(names, type=time, is_flag=False, flag_value=_LONGEST, metavar="[TIME]", help=about)
        return click.Option(names, type=options.Duration(), metavar="TIME", help=about)
    kind = click.Choice(field.choices) if field.choices else _TYPES[field.shape]
    metavar = None if field.choices else {"integer": "N", "number": "N", "json": "JSON"}.get(field.shape, "TEXT")
    return click.Option(names, type=kind, multiple=field.shape == "list", metavar=metavar, help=about)


def callback(op: Row) -> Callable[..., None]:
    """Return what runs when the command is typed."""

    def run(**values: Any) -> None:
        shared = options.take(values)
        chosen = files.take(values)
        looks = runs.take(op.name, values)
        request = _request(op, {name.removesuffix("_"): value for name, value in values.items()}, shared)
        _run(op, request, shared, chosen, looks=looks)

    return run


def _request(op: Row, values: dict[str, Any], shared: Shared) -> dict[str, Any]:
    """Return the request as plain fields, only those that were given; raises `Invalid` for what is wrong with it."""
    for flag, positional in op.cli.instead.items():
        places = [name for name in op.cli.positional if name in values]
        if values.get(flag) and values.get(places[-1]) is None and places[0] == positional:
            shifted = [values[name] for name in places[:-1]]  # `invoke -c summarize "text"`: the text is the input
            values |= dict(zip(places, [None, *shifted], strict=True))
    _swap_written(op, values)
    request: dict[str, Any] = {}
    for field in op.fields:
        value = values.get(field.name)
        if field.name == "timeout_s" and shared.timeout_s is not None:
            value = shared.timeout_s
        if value is None or value == ():
            continue
        if field.shape == "list":
            value = list(value)
        elif field.name in AS_WRITTEN:
            value = given.read_text(value)
        elif field.shape == "json" and op.name != "run.import":  # that is read line by line
            value = given.read_input(value)
        request[field.name] = value
    return request


def _swap_written(op: Row, values: dict[str, Any]) -> None:
    """Take a definition for one that stands where an id could: `trigger test @nightly.yaml`."""
    names = {field.name for field in op.fields}
    for place in op.cli.positional[:1]:
        for written in names & AS_WRITTEN - {place}:
            if values.get(written) is None and given.is_no_name(values.get(place)):
                values[written], values[place] = values[place], None


def _run(op: Row, request: dict[str, Any], shared: Shared, chosen: files.FileOptions, *, looks: bool) -> None:
    reply = fallback.answer(op.name, request, shared, chosen)
    if reply is None:
        leaving = after.watch(op.name, shared, request)
        reply = early.answer(op.name, shared)
        try:
            if reply is None:
                reply = _ask(op, large.send_ahead(op, request, shared), shared, looks=looks)
        except (Unreachable, TimedOut) as error:
            _check(op.name, request)
            reply = after.rescue(op.name, shared, error, leaving)
        if reply.get("output_blob"):
            large.fetch(reply, shared)
        if leaving is not None:
            leaving.wait(reply)
    if looks and shared.shape == "jsonl":
        reply = {"kind": "result", **reply}  # as of any stream
    _print(op, reply, shared, "output" if looks else _answer(op, request))
    after.leave(op.name, request | {"wait_s": 1.0} if looks else request, reply, shared.shape)


def _ask(op: Row, request: dict[str, Any], shared: Shared, *, looks: bool = False) -> dict[str, Any]:
    """Ask a node, and wait for what takes its time however often that node is restarted meanwhile."""
    own = runs.own(op.name, request, shared, _printer(op, shared), looks=looks)
    if own is not None:
        return own()
    if waiting.splits(op.name, request):
        wait_s = float(request.get("wait_s") or request.get("timeout_s") or op_timeout_s(op))
        start_s = min(options.TIMEOUT_S, shared.timeout_s or options.TIMEOUT_S)
        return waiting.start(shared, op.name, request, wait_s=wait_s, timeout_s=start_s)
    timeout_s = limit_s(op, request, shared)
    if op.name in waiting.AWAITS:
        return waiting.ask(shared, op.name, request, _printer(op, shared), timeout_s=timeout_s)
    if op.name == "blob.get" and "after" not in request:
        return large.write(request["digest"], shared)
    raw = remote.ask(shared, op.name, json.dumps(request).encode(), _printer(op, shared), timeout_s=timeout_s)
    answer: dict[str, Any] = json.loads(raw)
    return answer


def limit_s(op: Row, request: dict[str, Any], shared: Shared) -> float:
    """Return for how long to wait for an answer, in seconds: what an op is given itself, and a little for its answer."""
    own = request.get("timeout_s") or request.get("wait_s")
    if own:
        return float(max(own, shared.timeout_s or 0.0)) + remote.SLACK_S
    if op.live:
        return ENDLESS_S
    if op.name in waiting.STARTS:  # its own time-out is about waiting for the end
        return shared.timeout_s or options.TIMEOUT_S
    if op.name in after.AT_ONCE and not shared.timeout_s:
        return after.DOOR_TIMEOUT_S
    return shared.timeout_s or op_timeout_s(op) + remote.SLACK_S


def _check(name: str, request: dict[str, Any]) -> None:
    """Raise `Invalid` when the node that could not be asked would have refused the request anyway."""
    from knotwork.ops import serve, table  # the models: the node checks with them, we only when there is none

    serve.check(table.TABLE[name], request)


def op_timeout_s(op: Row) -> float:
    """Return how long an op may take when nobody says: its own default, else the usual one."""
    if op.live:
        return 0.0
    field = op.field("timeout_s")
    return float(field.default) if field is not None else options.TIMEOUT_S


def _printer(op: Row, shared: Shared) -> Callable[[Any], None]:
    """Return what prints the pieces of a stream as they come."""
    if op.name == "blob.get":
        return large.print_piece

    def piece(frame: Any) -> None:
        data = json.loads(frame.data)
        if op.live:
            row = data.get("data")
            columns = op.cli.columns if shared.shape == "table" else ()
            print("  ".join(show.cell(row.get(key)) for key in columns) if columns else show.compact(row), flush=True)
        elif shared.shape == "jsonl":
            print(show.compact({"kind": frame.kind, **data}), flush=True)
        elif shared.shape == "table" and not shared.quiet:
            print(_for_people(op, frame.kind, data), file=sys.stderr, flush=True)

    return piece


def _for_people(op: Row, kind: str, data: dict[str, Any]) -> str:
    if kind != "progress":
        piece = data.get("data")
        look = {"task.watch": show.happened, "crew.watch": show.moved}.get(op.name)
        told = look(piece or {}) if look is not None else show.answer(piece)
        return told.removesuffix("\n")  # a line of text brings its own end
    percent = data.get("percent")
    done = "" if percent is None else f"{percent:3.0f} % "
    return done + show.plain(str(data.get("text", "")))


def _answer(op: Row, request: dict[str, Any]) -> str:
    """Return the field that is the answer for people, "" when it is all of them."""
    return next((name for flag, name in op.cli.answer_when.items() if request.get(flag)), op.cli.answer)


def _print(op: Row, reply: dict[str, Any], shared: Shared, answer: str) -> None:
    if op.live or op.cli.silent:
        return
    rows = reply.get(op.cli.rows, []) if op.cli.rows else None
    if shared.shape == "json":
        print(show.pretty(reply))
    elif shared.shape == "jsonl":
        for row in rows if rows is not None else [{"kind": "result", **reply} if op.streams else reply]:
            print(show.compact(row))
    elif answer:
        _print_answer(reply, answer, shared)
    elif rows is not None:
        if rows or not shared.quiet:
            print(show.table(rows, op.cli.columns or list(rows[0])) if rows else f"no {op.cli.rows}")
        below = {name: reply[name] for name in op.cli.below if reply.get(name) not in (None, "", [], {})}
        if below:
            print(f"\n{show.details(below)}")
    elif op.effect == "read" or not shared.quiet:  # that something was done is no answer: the exit code says it
        print(show.details({key: value for key, value in reply.items() if key not in op.cli.hidden}) or "nothing")
    _tell_of_more(op, reply, shared)


def _tell_of_more(op: Row, reply: dict[str, Any], shared: Shared) -> None:
    """Say how to go on behind the page that is shown, where the page itself does not say it."""
    if op.effect == "read" and op.cli.rows and reply.get("next") and shared.shape != "json" and not shared.quiet:
        print(f"there are more: go on with --cursor {show.plain(str(reply['next']))}", file=sys.stderr)


def _print_answer(reply: dict[str, Any], answer: str, shared: Shared) -> None:
    """Print the one field that is the answer; a task that was awaited may have ended without one."""
    awaited = answer == "output" and "state" in reply
    if not awaited or reply["state"] == "completed":
        print(show.answer(reply.get(answer)), flush=True)
    after.tell_task(reply, awaited=awaited, quiet=shared.quiet)

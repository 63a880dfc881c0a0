"""How does a client verb reach a node? One NATS request to the op's subject; its frames come back one by one."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.cli import local
from knotwork.cli.options import TIMEOUT_S, Shared
from knotwork.sdk.errors import Cancelled, ConfigInvalid, Denied, Invalid, KnotworkError, NotFound, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.endpoint import Endpoint
    from knotwork.bus.frames import Frame

CONNECT_TIMEOUT_S = 5.0
SLACK_S = 2.0
"""Added to an op's own time-out, so that the node's answer about it arrives before we give up."""
OF_ONE_NODE = frozenset({"node.stop", "node.drain", "node.reload", "config.rollback", "plugin.restart"})
"""Ops that change the node which answers: with `--url` it must be the only one, or named."""
_ENDS = ("SIGTERM", "SIGHUP")
"""Signals that end a request as Ctrl-C does."""


def ask(
    shared: Shared,
    op: str,
    request: bytes,
    on_piece: Callable[[Frame], None],
    *,
    timeout_s: float,
    patient: bool = True,
    whole: bool = False,
    answer_s: float = 0.0,
) -> bytes:
    """Ask and return the result's JSON; pieces go to `on_piece` as they come. Raises the node's error as it was sent.

    Who is not `patient` is told at once when the link is lost (`node.lost`), because he can ask again. Who needs the
    `whole` of the pieces gets the same when one of them was lost on the way. A node that lives may take `answer_s` longer.
    """
    from knotwork.bus import frames  # nats-py: loaded only when somebody is really asked

    answer: Frame | None = None
    node = None if shared.url else local.ready(local.data_dir(shared.data_dir))
    if node is not None and not shared.on:
        project = shared.project or node.project_of(local.folder_meant())
        if not node.seed_of(project):

            def take(kind: Any, data: bytes) -> None:
                nonlocal answer
                frame = frames.Frame(kind, data)
                if kind in ("result", "error"):
                    answer = frame
                else:
                    on_piece(frame)

            from knotwork.cli import over_http  # only for nodes that have no key to give

            over_http.ask(node, project, op, request, take, timeout_s=timeout_s)
            return _output(answer)
    target = endpoint(shared)
    on = shared.on or (node.node if node is not None else "")  # this machine's node, not just any of the project

    came: list[int] = []

    async def run() -> None:
        nonlocal answer
        from knotwork.bus import client  # the same

        _end_like_ctrl_c(came)
        named = on or (await _only_one(target, timeout_s) if op in OF_ONE_NODE else "")
        pieces: Any = client.call(
            target, op, request, timeout_s=timeout_s, node=named, caller=local.caller() or "cli", patient=patient,
            whole=whole, answer_s=answer_s,
        )  # fmt: skip
        async with aclosing(pieces):
            async for frame in pieces:
                if frame.kind in ("result", "error"):
                    answer = frame
                else:
                    on_piece(frame)

    _carry_out(run(), shared.on, came)
    return _output(answer)


async def _only_one(target: Endpoint, timeout_s: float) -> str:
    """Return the node of the project there; raises `Invalid` (`cli.which_node`) when there are several."""
    from knotwork.bus import client  # nats-py: loaded only when somebody is really asked

    answer: Frame | None = None
    pieces: Any = client.call(target, "nodes.list", b"{}", timeout_s=timeout_s, caller="cli")
    async with aclosing(pieces):
        async for frame in pieces:
            answer = frame
    found = [str(row["node"]) for row in json.loads(_output(answer))["nodes"] if row["state"] != "offline"]
    if len(found) > 1:
        raise Invalid(
            f"Several nodes are there: {', '.join(found)}.",
            code="cli.which_node",
            hint="Name the one that is meant with --on.",
        )
    return found[0] if found else ""


def _carry_out(asking: Coroutine[Any, Any, None], on: str, came: list[int]) -> None:
    """Ask, in a loop of its own; raises what became of it in words of the command line.

    `on` is the node that was named; `came` are signals that came meanwhile.
    """
    try:
        with _handlers_kept(came):
            asyncio.run(asking)
    except asyncio.CancelledError:
        raise Cancelled(
            "Stopped by a signal; the node was told to stop, too.",
            code="call.cancelled", detail={"signal": came[0]} if came else {},
        ) from None  # fmt: skip
    except Unreachable as error:
        if error.code != "bus.no_responders":
            raise
        raise _nobody(on) from None


@contextmanager
def _handlers_kept(came: list[int]) -> Iterator[None]:
    """Give signals back to whoever had them, with the first that `came`: a loop that ends leaves only default handlers."""
    names = [name for name in _ENDS if hasattr(signal, name)]
    before = [(getattr(signal, name), signal.getsignal(getattr(signal, name))) for name in names]
    try:
        yield
    finally:
        for number, handler in before:
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if came and callable(signal.getsignal(came[0])):  # somebody else's to act upon, such as the demo's
            signal.raise_signal(came[0])


def _end_like_ctrl_c(came: list[int]) -> None:
    """Let SIGTERM and a closed terminal, kept in `came`, cancel the request, so that the node is told to stop the work."""
    task = asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        came.append(number)
        task.cancel()

    for name in _ENDS:
        number = getattr(signal, name, None)
        if number is not None and sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(number, end, number)


def _nobody(on: str) -> KnotworkError:
    """Return the error of a request that no node took; `on` is the one that was named."""
    if on:
        return NotFound(f"There is no node {on!r}.", code="node.not_found", hint="See `knotwork nodes`.")
    return Unreachable("No node answers there.", code="node.unreachable", hint="Start one, or check --url.")


def _output(answer: Frame | None) -> bytes:
    """Return the result; raises the error that came instead."""
    from knotwork.bus import frames  # nats-py: loaded only when somebody is really asked

    if answer is None:
        raise Unreachable(
            "The node went away before it answered.",
            code="node.lost",
            hint="What was asked may be done or not; see `knotwork status`.",
        )
    if answer.kind == "error":
        raise frames.read_error(answer.data)
    return answer.data


def endpoint(shared: Shared) -> Endpoint:
    """Return where to go: `--url` with `--creds`, else the node of this machine.

    Raises `Unreachable` (`node.not_running`) when neither is there, `Unavailable` (`node.not_ready`).
    """
    from knotwork.bus.endpoint import Endpoint, check  # nats-py: loaded only when somebody is really asked

    connect_timeout_s = min(CONNECT_TIMEOUT_S, shared.timeout_s or TIMEOUT_S)
    if shared.url:
        if shared.project:
            raise Invalid(
                "--project says nothing where --url is given: the credentials decide the project.",
                code="cli.usage",
                hint="Leave --project out, and give that project's credentials with --creds.",
            )
        seed, creds = _proof(shared.creds)
        named = Endpoint(
            (shared.url,), name="knotwork-cli", connect_timeout_s=connect_timeout_s, seed=seed, creds=creds
        )
        try:
            check(named)
        except ConfigInvalid as error:  # no configuration says it: the command line does
            raise Invalid(error.message, code=error.code, hint=error.hint) from None
        return named
    node = local.ready(local.data_dir(shared.data_dir))
    project = shared.project or node.project_of(local.folder_meant())
    seed = _first_line(Path(node.seed_of(project))) if node.seed_of(project) else ""
    return Endpoint((node.url,), name="knotwork-cli", connect_timeout_s=connect_timeout_s, seed=seed)


def _proof(creds: str) -> tuple[str, str]:
    """Return nkey seed and `.creds` file, one of them empty: the file given may be either."""
    if not creds:
        return "", ""
    text = _first_line(Path(creds))
    return (text, "") if text.startswith("S") and text.isalnum() else ("", creds)


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline(4096).strip()
    except OSError as error:
        raise Denied(
            f"{path} cannot be read: {error.strerror}.",
            code="cli.credentials_unreadable",
            hint="Run the command as the user who started the node, or give --creds.",
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{path} holds no credentials.",
            code="cli.bad_credentials",
            hint="Name a .creds file or one with an nkey seed.",
        ) from error

"""How does an agent's client learn of us? `knotwork connect` writes its configuration, and has the bridge answer once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from knotwork.bus import child
from knotwork.cli import clients, local, options, show
from knotwork.cli.clients import CLIENTS, Client, Machine, Scope
from knotwork.mcp import toolsets
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, NotFound, Unavailable

BACKUP = ".knotwork-backup"
VERIFY_S = 60.0
COLUMNS = ("client", "done", "file", "verified", "why")
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """What was done about one client."""

    client: str
    done: str
    file: str = ""
    verified: str = ""
    why: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was typed."""

    scope: Scope
    folder: Path
    name: str
    command: list[str]
    dry_run: bool = False
    undo: bool = False
    verify: bool = True
    undone: set[Path] = field(default_factory=set)
    """Files out of which we were taken: two clients may share one."""


def _connect(**values: Any) -> None:
    shared = options.take(values)
    folder = local.folder_meant()
    words = ["mcp", *(word for name in values["toolset"] for word in ("--toolset", name))]
    # a file of the project is other people's, too: only what was typed for it stands in it
    named = shared.data_dir or (values["scope"] == "user" and os.environ.get(local.DATA_DIR, ""))
    words += ["--data-dir", str(local.data_dir(shared.data_dir))] if named else []
    wish = Wish(
        values["scope"], folder, values["name"], [*_started(values["scope"]), *words], dry_run=values["dry_run"], undo=values["undo"],
        verify=values["verify"],
    )  # fmt: skip
    meant = _meant(values["client"], every=values["all"], notes=values["agents_md"])
    doing = [(client.name, partial(_one, client, wish, every=values["all"])) for client in meant]
    if values["agents_md"]:
        files = dict.fromkeys(["AGENTS.md", *(client.notes for client in meant if (folder / client.notes).exists())])
        doing += [("agents", partial(_notes, folder / file, wish)) for file in files]
    rows = [do() for _, do in doing] if len(doing) == 1 else [_tried(name, do) for name, do in doing]
    _tell(rows, shared, wish)
    failed = list(dict.fromkeys(row.client for row in rows if row.done == FAILED))
    if failed:
        raise Conflict(
            f"Not all could be done: {', '.join(failed)}.", code="connect.some_failed",
            hint="The others are done. See above why; mend that, and say it again.",
        )  # fmt: skip


def _tried(name: str, do: Callable[[], Row]) -> Row:
    """Do one of several things; what fails says so in its row, and keeps none of the others from being done."""
    try:
        return do()
    except (KnotworkError, OSError) as error:
        return Row(name, FAILED, why=str(error))


connect = click.Command(
    "connect",
    callback=_connect,
    params=[
        click.Argument(["client"], nargs=-1, type=click.Choice(tuple(CLIENTS)), metavar="[CLIENT]..."),
        click.Option(["--all"], is_flag=True, help="every client that is used here"),
        click.Option(
            ["--scope"], type=click.Choice(("user", "project")), default="user",
            help="for all your projects, or in a file of this one that others get, too [default: user]",
        ),
        click.Option(["--toolset"], type=click.Choice(tuple(toolsets.ABOUT)), multiple=True, help="tools to list first"),
        click.Option(["--name"], default="knotwork", metavar="NAME", help="what the client calls us [default: knotwork]"),
        click.Option(["--agents-md"], is_flag=True, help="tell agents how to work together, in this folder's AGENTS.md"),
        click.Option(["--dry-run"], is_flag=True, help="only show what would be written"),
        click.Option(["--undo"], is_flag=True, help="take it out again"),
        click.Option(["--verify/--no-verify"], default=True, help="have it answer once as configured [default: verify]"),
        *options.answering(),
    ],
    short_help="Let an agent's client know of us",
    help="Write the configuration with which a client starts `knotwork mcp`, and try it. What else stands in that file "
    f"stays; a copy of it as it was is kept beside it ({BACKUP}).\n\nClients: {', '.join(CLIENTS)}.",
    epilog="\b\nExamples:\n  # Every client that is used here\n  knotwork connect --all\n"
    "  # See what would be written\n  knotwork connect claude-code --dry-run\n"
    "  # In this project, for everybody who works on it\n  knotwork connect cursor --scope project --agents-md\n"
    "  # As if nothing had been\n  knotwork connect cursor --scope project --undo",
)  # fmt: skip


def program() -> list[str]:
    """Return how this program is started by others."""
    beside = Path(sys.executable).with_name("knotwork.exe" if sys.platform == "win32" else "knotwork")
    return [str(beside)] if beside.exists() and not child.frozen() else child.program()


def _started(scope: Scope) -> list[str]:
    """Return how a client starts this program: in a file that others get, too, by its name alone when that finds it."""
    found = program()
    by_name = shutil.which("knotwork")
    same = by_name is not None and len(found) == 1 and Path(by_name).resolve() == Path(found[0]).resolve()
    return ["knotwork"] if scope == "project" and same else found


def _meant(names: tuple[str, ...], *, every: bool, notes: bool) -> list[Client]:
    if every and names:
        raise Invalid("Name clients, or say --all.", code="connect.unknown_client")
    if every:
        return list(CLIENTS.values())
    if not names and not notes:
        raise Invalid(
            "Which client?", code="connect.unknown_client", hint=f"There are: {', '.join(CLIENTS)}. Or say --all."
        )
    return [CLIENTS[name] for name in dict.fromkeys(names)]


def _one(client: Client, wish: Wish, *, every: bool) -> Row:
    """Do what is wanted about one client, and try what was written."""
    machine = Machine(Path.home(), os.environ, sys.platform)
    with _alone(machine.home if wish.scope == "user" else wish.folder):
        row = _changed(client, wish, machine, every=every)
    if not row.file or wish.dry_run or wish.undo or not wish.verify:
        return row
    return replace(row, verified=_verified(client, Path(row.file), wish))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Change files without another of us that does: each would write over what the other one did."""
    with contextlib.ExitStack() as stack:
        if sys.platform != "win32":
            import fcntl  # everywhere else

            with contextlib.suppress(OSError):  # a folder that cannot be locked, somebody's network drive say
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _changed(client: Client, wish: Wish, machine: Machine, *, every: bool) -> Row:
    used = any(clients.spelled(sign, machine).exists() for sign in client.signs)
    if every and (not used or (wish.scope == "project" and not client.project)):
        return Row(client.name, "not here" if not used else "no project scope")
    file = clients.place(client, wish.scope, wish.folder, machine)
    shown = str(file)
    try:
        before = _text(file)
        foreign = clients.is_foreign(client, before, wish.name, shown)
        if not foreign and not wish.undo:
            return _put_in(client, file, before, wish)
    except Invalid as error:
        if not wish.dry_run or wish.undo:
            raise
        ours = clients.with_server(client, "", wish.name, clients.entry(client, wish.command, wish.scope), shown)
        return Row(client.name, "by hand", shown, why=error.message, text=ours)
    if foreign:
        if every and wish.undo:
            return Row(client.name, "unchanged", shown)
        raise Conflict(
            f"{file} has a server {wish.name} that is none of ours.", code="connect.name_taken",
            hint="It stays. Say `--name` with another name, or take it out by hand.",
        )  # fmt: skip
    after = clients.without_server(client, before, wish.name, shown)
    if after == before and (every or file in wish.undone):
        return Row(client.name, "unchanged", shown)
    wish.undone.add(file)
    return Row(client.name, _taken_out(client, file, before, after, wish), shown, text=after)


def _put_in(client: Client, file: Path, before: str, wish: Wish) -> Row:
    shown = str(file)
    server = clients.entry(client, wish.command, wish.scope)
    after = clients.with_server(client, before, wish.name, server, shown)
    done = "unchanged" if clients.read(client, before, shown) == clients.read(client, after, shown) else "written"
    if wish.dry_run:
        return Row(client.name, "unchanged" if done == "unchanged" else "would be written", shown, text=after)
    if done == "written":
        connected = wish.name in clients.servers(client, before, shown)
        _write(file, before, after, connected=connected, private=wish.scope == "user")
    return Row(client.name, done, shown)


def _taken_out(client: Client, file: Path, before: str, after: str, wish: Wish) -> str:
    if after == before:
        raise NotFound(f"{file} has no server {wish.name}.", code="connect.no_backup", hint="Nothing was to be undone.")
    if wish.dry_run:
        return "would be taken out"
    backup = file.with_name(file.name + BACKUP)
    kept = _text(backup) if backup.exists() else None
    if kept is not None and clients.read(client, kept, str(backup)) == clients.read(client, after, str(file)):
        after = kept  # as it was, to the letter
    if after.strip() or kept is not None:
        _replace(file, after or clients.EMPTY[client.form])
    else:
        file.resolve().unlink()  # a link to a place where nothing was stays one
    with contextlib.suppress(OSError):
        backup.unlink()
    return "taken out"


def _notes(file: Path, wish: Wish) -> Row:
    """Put the block for agents into a file, or take it out."""
    with _alone(wish.folder):
        return _noted(file, wish)


def _noted(file: Path, wish: Wish) -> Row:
    before = _text(file)
    after = clients.without_notes(before) if wish.undo else clients.with_notes(before)
    if after == before:
        return Row("agents", "unchanged", str(file))
    if wish.dry_run:
        return Row("agents", "would be written", str(file), text=after)
    if after.strip():
        _replace(file, after, private=False)
    else:
        file.resolve().unlink()  # where a link leads to: the block stands there
    return Row("agents", "taken out" if wish.undo else "written", str(file))


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", newline="") as opened:  # its line ends are its own
            return opened.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{file} cannot be read: {error}.", code="connect.bad_config", hint="It was not changed."
        ) from error


def _write(file: Path, before: str, after: str, *, connected: bool, private: bool) -> None:
    """Write a file; one that is there is kept beside it as it was before it was `connected` first."""
    backup = file.with_name(file.name + BACKUP)
    if before and not connected:
        _replace(backup, before)
    _replace(file, after, private=private)


def _replace(file: Path, text: str, *, private: bool = True) -> None:
    """Write a file whole or not at all; it keeps its rights, and a link stays a link. Nobody else reads a new `private` one."""
    real = file.resolve()
    fresh = real.with_name(real.name + ".knotwork-new")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8", newline="")
        if real.exists():
            fresh.chmod(real.stat().st_mode & 0o777)
        elif private:
            fresh.chmod(0o600)
        fresh.replace(real)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise Denied(f"{file} cannot be written: {error.strerror}.", code="connect.unwritable") from error


def _verified(client: Client, file: Path, wish: Wish) -> str:
    """Start what the file says, as the client does, and return what it answered; raises `Unavailable`."""
    said = clients.read(client, _text(file), str(file))[client.key][wish.name]
    words = [str(word).replace(clients.WORKSPACE, str(wish.folder)) for word in (said["command"], *said["args"])]
    more = said.get("env")
    env = {str(name): str(value) for name, value in more.items()} if isinstance(more, dict) else {}
    if shutil.which(words[0]) is None:
        raise Unavailable(
            f"There is no {words[0]}.", code="connect.unverified", hint="Is it on the PATH of the client?"
        )
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": client.name, "version": "0"}}
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    try:
        ended = subprocess.run(
            [*words, "--no-start"], input="".join(json.dumps(one) + "\n" for one in asked), capture_output=True,
            text=True, encoding="utf-8", cwd=wish.folder, timeout=VERIFY_S, check=False, env={**os.environ, **env},
        )  # fmt: skip
        answers = {answer["id"]: answer["result"] for answer in map(json.loads, ended.stdout.splitlines())}
        return f"{answers[1]['serverInfo']['name']} {answers[1]['serverInfo']['version']}, {len(answers[2]['tools'])} tools"
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"{' '.join(words)} did not answer: {error}.", code="connect.unverified",
            hint=f"The configuration stands in {file}. Run that command, and see what it says.",
        ) from error  # fmt: skip


def _tell(rows: list[Row], shared: options.Shared, wish: Wish) -> None:
    shown = {"client", "done", "file", "verified"} | ({"text"} if wish.dry_run else set())
    told = [
        {key: value for key, value in asdict(row).items() if key in shown or (key == "why" and value)} for row in rows
    ]
    if shared.shape == "json":
        print(show.pretty({"clients": told}))
    elif shared.shape == "jsonl":
        for one in told:
            print(show.compact(one))
    elif not shared.quiet:
        print(show.table(told, COLUMNS if any(row.why for row in rows) else COLUMNS[:-1]))
        for row in rows:
            if wish.dry_run and row.text and row.done != "unchanged":
                print(f"\n--- {row.file}\n{row.text}", end="")

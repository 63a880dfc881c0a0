"""Where can people look at an orchestration as files? In a folder of the node that spawned it; nothing depends on it.

`<folder>/<orchestration>/` holds `task.md`, `plan.json` and, when there is one, `result.md` or `result.json`; each part has
a folder of its own there with what it is to do, its result, and an empty `workspace/` for whoever works on this machine.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.crew import plan, records
from knotwork.crew.synthesis import text_of
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from knotwork.crew.records import Record

WORKSPACE = "workspace"


class Files:
    """The folder of one node. All of it may block: call it from a thread. Raises `OSError`."""

    def __init__(self, folder: Path) -> None:
        """Write below `folder`, which is made when it is needed."""
        self._folder = folder

    def places(self, record: Record) -> dict[str, str]:
        """Return the workspace of each part, whether it is there or not."""
        return {part.id: str(self._of(record.id) / _safe(part.id) / WORKSPACE) for part in record.parts}

    def spawned(self, record: Record) -> None:
        """Write down what is to be done, and make a workspace for each part."""
        folder = self._made(self._of(record.id))
        _write(folder / "task.md", record.task)
        _write(folder / "plan.json", msgspec.json.format(records.encode(record.parts), indent=2).decode())
        for part in record.parts:
            place = self._made(folder / _safe(part.id))
            self._made(place / WORKSPACE)
            title, words = part.title or part.id, part.instructions.strip()
            if part.title and words and not part.heading:  # they begin with the title
                first, _, words = words.partition("\n")
                title, words = first.lstrip("# "), words.strip()
            lines = [f"# {title}", "", *([words, ""] if words else [])]
            lines += ["Done when:", *(f"- {one}" for one in part.acceptance), ""] if part.acceptance else []
            lines += [f"Needs: {', '.join(part.needs)}", ""] if part.needs else []
            _write(place / "context.md", "\n".join(lines))

    def result(self, record: Record, part: str, output: Any) -> None:
        """Write down what a part gave."""
        _result(self._made(self._of(record.id) / _safe(part)), output)

    def ended(self, record: Record, whole: Any = None) -> None:
        """Write down what came of all of it, and last how it ended."""
        folder = self._made(self._of(record.id))
        if whole is not None:
            _result(folder, whole)
        _write(folder / "state.json", _state(record))

    def is_written(self, record: Record) -> bool:
        """Return whether its end was written down already."""
        try:
            return (self._of(record.id) / "state.json").read_bytes() == _state(record).encode()
        except OSError:
            return False

    def _of(self, orchestration: str) -> Path:
        return self._folder / records.check_id(orchestration)

    def _made(self, folder: Path) -> Path:
        """Return a folder of ours, made; raises `OSError` for what is a link, or lies behind one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in [*reversed([up for up in folder.parents if up.is_relative_to(self._folder)]), folder]:
            with contextlib.suppress(FileExistsError):
                one.mkdir(mode=0o700)
            if one != self._folder and not stat.S_ISDIR(one.lstat().st_mode):
                raise NotADirectoryError(f"{one} is no folder")
        return folder


def _state(record: Record) -> str:
    told = {"phase": record.phase, "error": record.error, "ended_ns": record.ended_ns, "rounds": len(record.rounds)}
    return msgspec.json.format(records.encode(told), indent=2).decode()


def _safe(name: str) -> str:
    """Return the id of a part as the name of a folder; raises `Invalid`: a checked plan has no other."""
    if not plan.is_id(name):
        raise Invalid(f"{name[:80]!r} is not the id of a part.", code="crew.bad_plan")
    return name


def _result(folder: Path, output: Any) -> None:
    name = "result.md" if isinstance(output, str) else "result.json"
    told = (
        text_of(output) if isinstance(output, str) else msgspec.json.format(records.encode(output), indent=2).decode()
    )
    _write(folder / name, told)


def _write(file: Path, text: str) -> None:
    """Write a file of ours: what is a link is not followed, whoever put it there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(file, flags, 0o600), "wb") as opened:
        opened.write(text.encode("utf-8", "replace"))

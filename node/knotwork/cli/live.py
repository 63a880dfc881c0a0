"""How does a run look while it goes on? On a terminal a tree of its steps with bars, drawn in place; else line by line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from knotwork.cli import show
from knotwork.cli.options import Shared

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text
    from rich.tree import Tree

ROWS_MIN, AROUND = 5, 6
"""Fewest steps that are drawn; lines of the terminal that are left to everything else."""
BAR_COLUMNS = 20
TEXT_MAX = 60
A_SECOND = 8
STYLES = {
    "completed": "green", "failed": "red", "dead": "red", "timed-out": "red", "cancelled": "yellow", "running": "cyan",
    "open": "cyan",     "paused": "yellow", "skipped": "dim", "blocked": "dim", "handler": "dim",
}  # fmt: skip
ENDED = frozenset({"completed", "failed", "dead", "timed-out", "cancelled", "skipped"})
_RANKS = {
    "failed": 0,
    "dead": 0,
    "timed-out": 0,
    "cancelled": 1,
    "completed": 3,
    "skipped": 4,
    "blocked": 5,
    "handler": 6,
}


def wanted(shared: Shared) -> bool:
    """Return whether somebody looks on who can be drawn to."""
    drawn = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    return drawn and shared.shape == "table" and not shared.quiet


class Watched:
    """A run as it was told so far; the steps in the order of the definition."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        """Know nothing yet; `now_s` gives the seconds since 1970."""
        self.head: dict[str, Any] = {}
        self.steps: dict[str, dict[str, Any]] = {}
        self._now_s = now_s

    def take(self, told: dict[str, Any]) -> None:
        """Take what changed."""
        if told.get("id") != self.head.get("id"):
            self.steps = {}
        self.head = {key: value for key, value in told.items() if key != "changed"}
        self.steps |= {str(step["id"]): step for step in told.get("changed", ())}

    def drawn(self, rows: int) -> Tree:
        """Return the tree, with `rows` steps at most: those under way and those that failed first."""
        from rich.table import Table
        from rich.tree import Tree

        tree = Tree(self._title(), guide_style="dim")
        ranked = sorted(self.steps.values(), key=lambda step: _RANKS.get(str(step.get("state")), 2))[: max(rows, 1)]
        chosen = {str(step["id"]) for step in ranked}
        for name, step in self.steps.items():
            if name in chosen:
                line = Table.grid(padding=(0, 1))
                line.add_row(*self._cells(step))
                tree.add(line)
        if rest := [step for name, step in self.steps.items() if name not in chosen]:
            counts = Counter(str(step.get("state", "")) for step in rest)
            tree.add(_text(f"and {len(rest)} more: " + ", ".join(f"{n} {state}" for state, n in counts.items()), "dim"))
        return tree

    def _title(self) -> RenderableType:
        from rich.table import Table

        head, line = self.head, Table.grid(padding=(0, 1))
        state = str(head.get("state", ""))
        line.add_row(
            _text(str(head.get("workflow", "")), "bold"), _text(str(head.get("id", "")), "dim"),
            _text(state, STYLES.get(state, "")), _bar(float(head.get("percent", 0.0))),
            _text(f"{head.get('done', 0)}/{head.get('steps', 0)}", ""), _text(self._elapsed(head), "dim"),
        )  # fmt: skip
        return line

    def _cells(self, step: dict[str, Any]) -> list[RenderableType]:
        state, percent = str(step.get("state", "")), step.get("percent")
        items = str(step.get("items", ""))
        done, _, of = items.partition("/")
        if percent is None and of.isdecimal() and done.isdecimal():
            percent = 100 * int(done) / max(1, int(of))
        told = str(step.get("error") or step.get("text") or "")
        attempt = int(step.get("attempt", 0))
        return [
            _text(str(step["id"]), ""),
            _text(state, STYLES.get(state, "")),
            *([_text(f"attempt {attempt}", "yellow")] if attempt > 1 else []),
            *([_text(items, "")] if items else []),
            *(
                [_bar(float(percent)), _text(f"{percent:.0f} %", "")]
                if percent is not None and state not in ENDED
                else []
            ),
            _text(show.cell(told)[:TEXT_MAX] if told else "", "red" if step.get("error") else ""),
            _text(self._elapsed(step), "dim"),
        ]

    def _elapsed(self, one: dict[str, Any]) -> str:
        begun = _seconds(one.get("begun_at") or one.get("started_at"))
        if not begun:
            return ""
        ended = _seconds(one.get("ended_at"))
        return span(max(0.0, (ended or self._now_s()) - begun))


class Drawing:
    """Draws a run in place while it goes on; a context, and what takes the pieces of `run.watch`."""

    def __init__(self, shared: Shared) -> None:
        """Draw on standard output."""
        from rich.console import Console

        self._console = Console(file=sys.stdout, no_color=not shared.color, highlight=False)
        self._watched = Watched()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        from rich.live import Live

        self._live = Live(console=self._console, refresh_per_second=A_SECOND, get_renderable=self._drawn)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave what was drawn last, and the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def __call__(self, frame: Any) -> None:
        """Take one piece; facts are not told beside the tree."""
        told = json.loads(frame.data)
        if frame.kind == "chunk" and isinstance(told.get("data"), dict):
            self._watched.take(told["data"])

    def _drawn(self) -> Tree:
        return self._watched.drawn(max(ROWS_MIN, self._console.size.height - AROUND))


def span(seconds: float) -> str:
    """Return a time as people read it: `4.2s`, `3m05s`, `2h10m`."""
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004  a minute
        return f"{seconds:.1f}s"
    if whole < 3600:  # noqa: PLR2004  an hour
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _bar(percent: float) -> RenderableType:
    from rich.progress_bar import ProgressBar

    done = min(max(percent, 0.0), 100.0)
    # rich's own finished bar is, in 16 colours, the grey of an empty one
    return ProgressBar(
        total=100, completed=done, width=BAR_COLUMNS, style="bright_black", complete_style="cyan",
        finished_style="green",
    )  # fmt: skip


def _text(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(show.plain(text).replace("\n", " "), style=style, no_wrap=True, overflow="ellipsis")


def _seconds(moment: Any) -> float:
    try:
        return datetime.fromisoformat(str(moment)).timestamp() if moment else 0.0
    except ValueError:
        return 0.0

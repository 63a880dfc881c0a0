"""Which options does every command know, and what do they mean? Where to go, how to answer, how long to wait."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import click

Output = Literal["table", "json", "jsonl"]
OUTPUTS: tuple[Output, ...] = ("table", "json", "jsonl")
TIMEOUT_S = 30.0
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_duration = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)?").fullmatch


@dataclass(frozen=True, slots=True)
class Shared:
    """The options every command has; empty means: not given. Times are seconds."""

    output: str = ""
    quiet: bool = False
    no_color: bool = False
    data_dir: str = ""
    url: str = ""
    creds: str = ""
    project: str = ""
    on: str = ""
    timeout_s: float | None = None

    @property
    def shape(self) -> Output:
        """Return how to print: as asked, else a table."""
        return "json" if self.output == "json" else "jsonl" if self.output == "jsonl" else "table"

    @property
    def color(self) -> bool:
        """Return whether colors may be used at all; a pipe gets none anyway."""
        return not (self.no_color or os.environ.get("NO_COLOR"))


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """`30`, `1.5`, `500ms`, `30s`, `5m`, `2h`, `1d` in seconds."""

    name = "duration"

    def __init__(self, *, positive: bool = False) -> None:
        """Refuse 0 where it would mean nothing (`positive`)."""
        self.positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        found = _duration(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no duration: write for example 500ms, 30s or 5m.", param, ctx)
        seconds = float(found[1]) * _UNITS[found[2] or ""]
        if self.positive and seconds <= 0:
            self.fail(f"{value!r} is no time at all: write for example 500ms, 30s or 5m.", param, ctx)
        return seconds


def answering() -> list[click.Option]:
    """Return the options about the answer, which every command has."""
    return [
        click.Option(["-o", "--output"], type=click.Choice(OUTPUTS), help="table (for people), json or jsonl"),
        click.Option(["-q", "--quiet"], is_flag=True, help="print only the answer itself"),
        click.Option(["--no-color"], is_flag=True, help="no colors; NO_COLOR does the same"),
        click.Option(["--data-dir"], metavar="DIR", help="the node's folder [env: KNOTWORK_DATA_DIR]"),
    ]


def reaching() -> list[click.Option]:
    """Return the options about which node is asked."""
    return [
        click.Option(["--url"], envvar="KNOTWORK_URL", metavar="URL", help="a NATS address instead of the local node"),
        click.Option(["--creds"], envvar="KNOTWORK_CREDS", metavar="FILE", help="credentials or nkey seed for --url"),
        click.Option(["--project"], metavar="NAME", help="the project [default: by folder, see KNOTWORK_PROJECT_PATH]"),
        click.Option(["--on"], metavar="NODE", help="ask this node of the project"),
        click.Option(
            ["--timeout", "timeout_s"],
            type=Duration(positive=True),
            metavar="TIME",
            help="wait so long, e.g. 500ms, 30s, 5m",
        ),
    ]


_NAMES = {field.name for field in fields(Shared)}
F = TypeVar("F", bound=Callable[..., Any])


def take(values: dict[str, Any]) -> Shared:
    """Take the shared options out of a command's values; those given before the command fill in what is left out."""
    ctx = click.get_current_context(silent=True)
    outer = ctx.find_root().obj if ctx is not None else None
    given = {name: values.pop(name) for name in list(values) if name in _NAMES}
    merged = {name: getattr(outer, name) for name in _NAMES} if isinstance(outer, Shared) else {}
    merged |= {name: value for name, value in given.items() if value not in (None, "", False)}
    return Shared(**merged)


def shared(*, reach: bool = False) -> Callable[[F], F]:
    """Give a click command the shared options; its function gets them as one argument `shared`."""

    def decorate(function: F) -> F:
        def wrapped(**values: Any) -> Any:
            return function(shared=take(values), **values)

        wrapped.__doc__ = function.__doc__
        wrapped.__name__ = function.__name__
        own = list(getattr(function, "__click_params__", []))
        extra = [*answering(), *(reaching() if reach else [])]
        wrapped.__click_params__ = list(reversed(extra)) + own  # type: ignore[attr-defined]
        return wrapped  # type: ignore[return-value]

    return decorate

"""How does an op look to those who must not load the models? Its words, fields and examples as plain values.

The models need pydantic, which costs a short-lived command more time than everything else it does. So what a shell
has to know of an op is kept beside it as data: `rows.py`, made from the table by `index.py` and compared by a test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Effect = Literal["read", "write", "admin"]
Shape = Literal["text", "integer", "number", "flag", "choice", "list", "json"]


@dataclass(frozen=True, slots=True)
class CliForm:
    """How the op looks at a shell.

    `words` are what is typed after `knotwork`; `positional` the request fields given without a flag. A reply is shown
    as a table of the list field `rows` with `columns` (field names; none: those of the first row), or as key and value lines when `rows` is empty.
    `answer` names the one field that is the answer for people (an invoke's output). `short` gives one-letter flags.
    `hidden` fields are left out for people. `instead` says which flag takes the place of which positional (`invoke -c summarize "text"` needs no target).
    `also` are other words for the same command. `answer_when` names another answer for requests with that flag.
    Of a `silent` one people see the pieces alone. `below` are fields that stand as key and value lines under the table.
    """

    words: tuple[str, ...]
    positional: tuple[str, ...] = ()
    rows: str = ""
    columns: tuple[str, ...] = ()
    answer: str = ""
    hidden: tuple[str, ...] = ()
    short: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    answer_when: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One request worth showing: a sentence, and the request's fields."""

    text: str
    request: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `seconds` marks a duration; `default` is None when the field may be left out without a value."""

    name: str
    shape: Shape
    required: bool
    default: Any
    description: str
    choices: tuple[str, ...] = ()
    seconds: bool = False

    @property
    def flag(self) -> str:
        """Return its long flag: `--drain` for `drain_s`, because a flag takes `30`, `30s`, `5m`."""
        return "--" + self.name.removesuffix("_s" if self.seconds else "").replace("_", "-")


@dataclass(frozen=True, slots=True)
class Row:
    """An op without its models and its handler, which are in `module` of this folder."""

    name: str
    module: str
    effect: Effect
    summary: str
    help: str
    streams: bool
    live: bool
    cli: CliForm
    examples: tuple[Example, ...]
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field | None:
        """Return a field of the request, None when it has no such field."""
        return next((found for found in self.fields if found.name == name), None)


def rows(data: list[dict[str, Any]]) -> tuple[Row, ...]:
    """Return the rows that plain data stands for."""
    return tuple(
        Row(
            **{
                **row,
                "cli": CliForm(**row["cli"]),
                "examples": tuple(Example(**example) for example in row["examples"]),
                "fields": tuple(Field(**part) for part in row["fields"]),
            }
        )
        for row in data
    )

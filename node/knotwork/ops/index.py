"""What stands in `rows.py`? `python -m knotwork.ops.index > node/knotwork/ops/rows.py` writes it after a change of the table."""

from __future__ import annotations

import pprint
import sys
from dataclasses import asdict
from typing import Any

from knotwork.ops import fields, table

_HEAD = '''# ruff: noqa: Q000  (as the standard library writes it)
# fmt: off
"""Which ops are there, for those who must not load the models? Made by `index.py`; edit the table, not this file."""

from typing import Any

ROWS: list[dict[str, Any]] = \\
'''


def data() -> list[dict[str, Any]]:
    """Return every row of the table as plain data."""
    return [
        {
            "name": op.name,
            "module": op.handler.__module__.rpartition(".")[2],
            "effect": op.effect,
            "summary": op.summary,
            "help": op.help,
            "streams": op.streams,
            "live": op.live,
            "cli": asdict(op.cli),
            "examples": [asdict(example) for example in op.examples],
            "fields": [asdict(field) for field in fields.of(op)],
        }
        for op in table.TABLE.values()
    ]


def text() -> str:
    """Return the module as it must be."""
    return _HEAD + pprint.pformat(data(), width=200, compact=True, sort_dicts=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())

"""What a shell knows of the ops agrees with the table, and costs no models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from knotwork.ops import fields, form, index, rows, table


def test_the_rows_are_those_of_the_table():
    written = Path(rows.__file__).read_text(encoding="utf-8")
    assert written == index.text(), "run: python -m knotwork.ops.index > node/knotwork/ops/rows.py"


def test_rows_read_back_as_they_were():
    made = form.rows(rows.ROWS)
    assert [row.name for row in made] == list(table.TABLE)
    for row in made:
        op = table.TABLE[row.name]
        assert row.fields == fields.of(op)
        assert (row.cli, row.examples, row.effect) == (op.cli, op.examples, op.effect)
    assert made[0].field("nothing") is None


def test_rows_load_no_models():
    code = "import sys; from knotwork.ops import form, rows; form.rows(rows.ROWS); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"pydantic", "asyncio", "knotwork.ops.op"} & set(out.split())

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


def test_an_op_loads_its_room_alone_and_every_room_can_be_loaded_first():
    code = """
import sys
from knotwork.ops import listed, table
assert not set(sys.modules) & {f"knotwork.ops.{room}" for room in table.ROOMS}
table.TABLE["blob.put"]
assert "knotwork.ops.blobs" in sys.modules
assert not set(sys.modules) & {"knotwork.ops.crew", "knotwork.ops.memory", "knotwork.ops.runs"}
assert {row.module for row in listed.LISTED.values()} == set(table.ROOMS)
for name, row in reversed(listed.LISTED.items()):
    op = table.TABLE[name]
    assert (op.name, op.handler.__module__) == (name, f"knotwork.ops.{row.module}")
assert list(table.TABLE) == list(listed.LISTED)
assert "no.such" not in table.TABLE
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_op_that_no_row_tells_of_is_found_all_the_same(monkeypatch):
    monkeypatch.setattr(table, "_WHERE", {})
    monkeypatch.setattr(table, "REGISTERED", {})
    assert table.TABLE["task.get"].name == "task.get"

"""`plugin test` tries the file or folder that is named, whoever else offers the same type."""

from __future__ import annotations

import pytest

from knotwork.cli import main, plugin
from knotwork.cli.files import FileOptions
from knotwork.sockets import scaffold


@pytest.mark.parametrize("single_file", [True, False], ids=["file", "folder"])
def test_a_type_that_is_taken_can_be_tested_all_the_same(tmp_path, capsys, single_file):
    """As one is that was installed to run its own tests."""
    scaffold.write("executor", "rehearsal", tmp_path, single_file=single_file)
    what = tmp_path / "rehearsal.py" if single_file else tmp_path
    for tells in (True, False):
        entry = plugin._entry(str(what), "", FileOptions(), imports=False, tells=tells)
        assert (entry.kind, entry.type, entry.source.where) == ("executors", "rehearsal", str(what))
        said = capsys.readouterr().err
        assert ("'rehearsal' (executors) is already offered by bundled" in said) is tells


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("{}", "command is missing"),
        ('{"command": ["cat"], "outptu": "json"}', "outptu"),
        ('{"command": 1}', "command must"),
    ],
)
def test_a_table_that_does_not_fit_is_told_once_and_before_any_test(capsys, table, told):
    assert main.main(["plugin", "test", "process", "--with", table]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert "plugin docs process" in err
    assert "cli.bad_table" in err

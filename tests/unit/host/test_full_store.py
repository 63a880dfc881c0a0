"""A store that lets nothing new in is told as a warning: the node is ready, and a start of it succeeds."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from knotwork.cli import up
from knotwork.cli.options import Shared
from knotwork.host import concerns, layout, node, nodefile
from knotwork.ops import replies
from knotwork.sdk.errors import Denied, Unavailable
from knotwork.view.keeper import Told

NODE = SimpleNamespace(node="n", pid=7, url="nats://x", http="http://x", early=False, state="running", why="")


def health(monkeypatch: pytest.MonkeyPatch, *checks: replies.Check) -> None:
    ready = all(one.ok or not one.needed for one in checks)
    told = replies.NodeHealth(live=True, ready=ready, checks=list(checks)).model_dump_json()
    monkeypatch.setattr(up.local, "read", lambda _: NODE)
    monkeypatch.setattr(up.remote, "ask", lambda *_, **__: told.encode())


@pytest.mark.parametrize("disk_full", [False, True])
def test_only_a_full_disk_makes_a_node_unready(disk_full):
    submitter = SimpleNamespace(no_room="no room", full=lambda: disk_full)
    rooms = {"default": SimpleNamespace(work=SimpleNamespace(submitter=submitter))}
    rooms["default"].view = SimpleNamespace(told=Told)
    (check,) = concerns.of(rooms)
    assert (check.name, check.ok, check.needed, check.why) == ("store default", False, disk_full, "no room")


def test_a_view_that_cannot_be_written_is_told_of_a_node_that_is_ready():
    told = {"default": Told(stuck=True, state="waiting", why="default.db: database or disk is full"), "side": Told()}
    submitter = SimpleNamespace(no_room="")
    rooms = {
        name: SimpleNamespace(work=SimpleNamespace(submitter=submitter), view=SimpleNamespace(told=lambda one=one: one))
        for name, one in told.items()
    }
    (check,) = concerns.of(rooms)
    assert (check.name, check.ok, check.needed) == ("view default", False, False)
    assert "default.db: database or disk is full" in check.why


def test_commons_that_refuses_our_credentials_is_told_of_a_node_that_is_ready():
    refused = Denied("NATS at nats://hub:4222 refuses these credentials.", code="bus.denied")
    link = SimpleNamespace(state="denied", failure=refused)
    (check,) = concerns.of({}, (), link)
    assert (check.name, check.ok, check.needed, check.why) == ("COMMONS", False, False, refused.message)
    assert concerns.of({}, (), SimpleNamespace(state="connected", down_for_s=lambda: 0.0)) == []
    assert concerns.of({}, (), None) == []


@pytest.mark.parametrize("group", [False, True])
def test_a_disk_that_is_full_while_a_node_starts_is_no_bug(tmp_path, monkeypatch, capsys, group):
    """Where the last bytes are taken between the probe of the folder and what is written next."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def begin(*_):
        raise ExceptionGroup("several", [full]) if group else full

    monkeypatch.setattr(nodefile.NodeFile, "begin", begin)
    for name in ("handlers", "level"):
        monkeypatch.setattr(logging.getLogger(), name, getattr(logging.getLogger(), name))
    config = tmp_path / "k.toml"
    config.write_text("[web]\nenabled = false\n")
    code = node.main(node.UpOptions(data_dir=tmp_path / "data", config_files=(config,), quiet=True))
    assert code == Unavailable.exit_code
    said = capsys.readouterr().err
    assert "(node.disk_full)" in said
    assert "Traceback" not in said


def test_a_file_that_could_not_be_written_leaves_no_draft(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(layout.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        layout.write_private(tmp_path / "node.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_start_with_a_full_store_succeeds_and_warns(monkeypatch, capsys):
    health(monkeypatch, replies.Check(name="store default", ok=False, why="no room", needed=False))
    found, why = up._ready(Path("/nowhere"), 7)
    assert why == ""
    assert found["warnings"] == ["store default: no room"]
    up._tell(found, Shared(output="json"))
    out, err = capsys.readouterr()
    assert "warning: store default: no room" in err
    assert json.loads(out)["node"] == "n"


def test_what_is_needed_is_waited_for(monkeypatch):
    health(
        monkeypatch,
        replies.Check(name="project default", ok=False, why="connecting"),
        replies.Check(name="store default", ok=False, why="no room", needed=False),
    )
    assert up._ready(Path("/nowhere"), 7) == (None, "starting: project default: connecting")

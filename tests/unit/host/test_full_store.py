"""A store that lets nothing new in is told as a warning: the node is ready, and a start of it succeeds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from knotwork.cli import up
from knotwork.cli.options import Shared
from knotwork.host.control import Control
from knotwork.ops import replies

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
    (check,) = Control._stores(SimpleNamespace(opened=rooms))
    assert (check.name, check.ok, check.needed, check.why) == ("store default", False, disk_full, "no room")


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

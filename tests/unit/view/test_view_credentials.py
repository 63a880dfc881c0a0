"""A project's process goes by the credentials that its node goes by, whenever it is started."""

from __future__ import annotations

import dataclasses

from knotwork.bus.endpoint import Endpoint
from knotwork.view.keeper import Keeper


def test_other_credentials_are_ordered_once(tmp_path, monkeypatch):
    keeper, sent = Keeper(), []
    monkeypatch.setattr(keeper, "_send", sent.append)
    old = Endpoint(("nats://127.0.0.1:9",), seed="old")
    followed = keeper.follow("default", tmp_path / "x.db", old)
    keeper.go_by(followed, old)  # as after every reconnect
    assert len(sent) == 1
    keeper.go_by(followed, dataclasses.replace(old, seed="new"))
    assert [order.endpoint["seed"] for order in sent] == ["old", "new"]
    assert followed.order is sent[-1]  # what the next process is told
    keeper.leave(followed)
    keeper.go_by(followed, old)
    assert sent[-1].do == "leave"

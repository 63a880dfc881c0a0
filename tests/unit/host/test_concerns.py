"""What a node that runs says is not as it should be."""

from __future__ import annotations

from types import SimpleNamespace

from knotwork.host import concerns


def test_a_router_that_nobody_asks_is_told_of():
    config = SimpleNamespace(routers={"mine": 1, "other": 1}, routing=SimpleNamespace(routers=("mine", "capability")))
    (told,) = concerns.unasked(config)
    assert told.startswith("routers.other: nobody asks it")

"""What is remembered has the time that all nodes share, whatever the machine believes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from knotwork.bus import clock
from knotwork.memory.room import Memory

HOUR_NS = 3600 * 10**9


def test_memories_go_by_the_time_of_all(monkeypatch: pytest.MonkeyPatch):
    nothing: Any = None
    memory = Memory("default", "n1", nothing, nothing, common=False)
    monkeypatch.setattr(clock.SHARED, "_base_ns", clock.SHARED._base_ns + HOUR_NS)
    assert memory.now_ns() - time.time_ns() > HOUR_NS // 2

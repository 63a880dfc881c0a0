"""Fixtures: a stand-in for the node, which keeps the ports protocols."""

from __future__ import annotations

import pytest
from tests.unit.ops import stand_in


@pytest.fixture
def node():
    return stand_in.StandInNode()

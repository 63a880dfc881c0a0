"""Fixtures: a stand-in for the node, which keeps the ports protocols."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

STAND_IN = Path(__file__).parent.parent / "ops" / "stand_in.py"


def load_stand_in() -> ModuleType:
    name = "doors_stand_in"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, STAND_IN)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def node():
    return load_stand_in().StandInNode()

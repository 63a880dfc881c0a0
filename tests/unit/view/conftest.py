"""Fixtures of the view's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


view_lives = load("view_lives")


@pytest.fixture(scope="session")
def streams_of():
    """Return what makes streams: `(seed, count) -> Streams`."""
    return view_lives.make

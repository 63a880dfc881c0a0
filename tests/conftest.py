"""What every test may count on. Rooms have a conftest of their own beside their tests."""

from __future__ import annotations

import compileall
import gc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from _pytest.assertion import rewrite
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
# how long an example takes says nothing but how busy the machine is: a property that hangs ends by pytest's own time-out
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Compile the program once: where bytecode may not be written (PYTHONDONTWRITEBYTECODE), each of the thousand
    processes that the tests start would do it again, half a second for a node."""
    if not hasattr(config, "workerinput"):  # before there are workers
        for folder in ("node", "plugins"):
            compileall.compile_dir(ROOT / folder, quiet=2, workers=0)
        if getattr(config.option, "numprocesses", None):
            rewrite_tests(config)


def rewrite_tests(config: pytest.Config) -> None:
    """Put pytest's own bytecode of every test beside it: else each worker rewrites the assertions of all of them anew."""
    state = config.stash[rewrite.assertstate_key]
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name.startswith("test_") or path.name == "conftest.py":  # what pytest rewrites
            folder = rewrite.get_cache_dir(path)
            kept = folder / (path.stem + rewrite.PYC_TAIL)
            if rewrite._read_pyc(path, kept) is None and rewrite.try_makedirs(folder):
                try:
                    source, code = rewrite._rewrite_test(path, config)
                except (SyntaxError, ValueError):
                    continue  # told when it is collected
                rewrite._write_pyc(state, code, source, kept)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collector away from what collecting makes, here and later: all of it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Let reports of tests about text that is none travel: a worker process can send valid UTF-8 only."""
    report = yield
    return sendable(report)


def sendable(value: Any) -> Any:
    """Return plain data with lone surrogates in its strings written out."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {sendable(key): sendable(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(sendable(item) for item in value)
        case _:
            return value

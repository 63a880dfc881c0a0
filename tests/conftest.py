"""What every test may count on. Rooms have a conftest of their own beside their tests."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


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

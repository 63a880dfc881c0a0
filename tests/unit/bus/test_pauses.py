"""Who tries again waits longer each time, but not for ever; and begins anew when it went well."""

from __future__ import annotations

import asyncio

import pytest

from knotwork.bus.pauses import Pauses


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    async def sleep(delay_s: float) -> None:
        found.append(delay_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


async def test_pauses_double_up_to_the_limit_and_begin_anew(slept: list[float]):
    pauses = Pauses(0.1, 1.0)
    for _ in range(6):
        await pauses.wait()
    pauses.shorten()
    await pauses.wait()
    slept.append(pauses.next_s())
    wholes = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.1, 0.2]
    assert len(slept) == len(wholes)
    assert all(whole / 2 <= pause <= whole for whole, pause in zip(wholes, slept, strict=True))


async def test_two_who_failed_at_once_do_not_come_again_at_once(slept: list[float]):
    many = [Pauses() for _ in range(50)]
    for one in many:
        await one.wait()
    assert len(set(slept)) > 1

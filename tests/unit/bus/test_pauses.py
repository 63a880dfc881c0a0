"""Who tries again waits longer each time, but not for ever; and begins anew when it went well."""

from __future__ import annotations

import asyncio

import pytest

from knotwork.bus.pauses import Pauses, comes_again, insist
from knotwork.sdk.errors import Unavailable


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


async def test_who_insists_goes_on_through_what_may_pass_and_through_bugs(slept: list[float], caplog):
    answers: list[Exception | str] = [Unavailable("away"), ValueError("a bug"), "done"]

    async def work() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await insist(work, "the work", Pauses()) == "done"
    assert len(slept) == 2
    assert "the work failed" in caplog.text
    assert "away" not in "".join(record.message for record in caplog.records if record.levelname == "ERROR")


async def test_what_is_not_wanted_any_more_is_not_insisted_on(slept: list[float]):
    async def work() -> None:
        raise Unavailable("away")

    assert await insist(work, "the work", Pauses(), wanted=lambda: len(slept) < 3) is None
    assert len(slept) == 3


def test_what_comes_again_anyway_is_carried_on_with(caplog):
    for error in (Unavailable("away"), ValueError("a bug")):
        with comes_again("the look"):
            raise error
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["the look failed"]

"""Questions that are answered by links: on any node, once, whatever crashes in between."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.flow import facts
from knotwork.flow.approvals import Approvals, Link, opened, sealed
from knotwork.sdk.errors import Conflict, Denied, KnotworkError, NotFound

HOUR_NS = 3600 * 10**9


async def asking(flow, **step) -> str:
    steps = {"ask": {"kind": "approval", "title": "Ship?", **step}}
    await define(flow, steps=steps, output="steps.ask.output.by")
    run = await start(flow, {"n": 7})
    await until(lambda: _asks(flow, run))
    return run


async def _asks(flow, run) -> bool:
    return "ask.ask" in (await flow.runs.look(run)).run.open


def later() -> int:
    return time.time_ns() + HOUR_NS


async def test_a_link_answers_once_from_any_node(flows):
    one, two = await flows.here("one"), await flows.here("two")
    run = await asking(one)
    text = await one.approvals.link(run, "ask", by="alice", until_ns=later())
    link = await two.approvals.read(text)
    assert link is not None
    for _ in range(3):  # looking spends nothing
        question = await two.approvals.question(link)
        assert (question.state, question.title, question.input) == ("waiting", "Ship?", {"n": 7})
    done = await two.approvals.answer(link, approve=True, comment="yes")
    assert (done.state, done.by, done.comment) == ("approved", "alice", "yes")
    assert output(await ended(one, run)) == "alice"
    again = await one.approvals.answer(link, approve=True, comment="yes")
    assert again.state == "approved"
    with pytest.raises(Conflict) as refused:
        await one.approvals.answer(link, approve=False, comment="")
    assert refused.value.code == "flow.answered"
    with pytest.raises(Conflict) as refused:
        await one.approvals.link(run, "ask", by="alice", until_ns=later())
    assert (refused.value.code, refused.value.detail["comment"]) == ("flow.answered", "yes")


async def test_one_answer_sent_many_times_at_once_stands_for_all(flows):
    flow = await flows.here()
    run = await asking(flow)
    link = await flow.approvals.read(await flow.approvals.link(run, "ask", by="alice", until_ns=later()))
    async with asyncio.TaskGroup() as group:
        said = [group.create_task(flow.approvals.answer(link, approve=True, comment="")) for _ in range(60)]
    assert {one.result().state for one in said} == {"approved"}


async def test_of_answers_at_once_the_late_ones_are_told_which_stands(flows):
    flow = await flows.here()
    run = await asking(flow)
    told = []

    async def say(number: int) -> None:
        try:
            await flow.runs.answer(run, "ask", approve=number % 2 == 0, by=f"p{number}")
            told.append(f"p{number}")
        except Conflict as error:
            assert error.code == "flow.answered"
            told.append(error.detail["by"])

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(say(number))
    assert len(told) == 10
    assert len(set(told)) == 1


async def test_of_many_links_the_first_answer_counts(flows):
    flow = await flows.here()
    run = await asking(flow, approvers=["alice", "bob"])
    with pytest.raises(Denied) as refused:
        await flow.approvals.link(run, "ask", by="eve", until_ns=later())
    assert refused.value.code == "flow.not_approver"
    links = [
        await flow.approvals.read(await flow.approvals.link(run, "ask", by=by, until_ns=later()))
        for by in ("alice", "bob")
    ]
    counted = []

    async def say(link, approve) -> None:
        try:
            counted.append((await flow.approvals.answer(link, approve=approve, comment="")).state)
        except Conflict:
            counted.append("late")

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(say(links[number % 2], number % 2 == 0))
    finish = await ended(flow, run)
    assert sorted(counted) == (["approved"] * 5 if finish.state == "completed" else []) + ["late"] * 5 + (
        ["rejected"] * 5 if finish.state == "failed" else []
    )


async def test_an_answer_survives_the_server_that_took_it(flows):
    flow = await flows.here()
    run = await asking(flow)
    link = await flow.approvals.read(await flow.approvals.link(run, "ask", by="alice", until_ns=later()))
    await flows.bench.kill_server()
    async with asyncio.timeout(60):
        while True:  # as somebody who pushes the button again
            try:
                done = await flow.approvals.answer(link, approve=False, comment="no")
            except (KnotworkError, ConnectionError):
                await asyncio.sleep(0.05)
            else:
                break
    assert (done.state, done.comment) == ("rejected", "no")
    finish = await ended(flow, run)
    assert (finish.error["code"], finish.error["detail"]["by"]) == ("flow.rejected", "alice")
    fresh = Approvals(flow.connection, flow.runs)  # as a node that starts now
    assert (await fresh.answer(link, approve=False, comment="no")).state == "rejected"


async def test_links_end_with_their_time_and_with_the_question(flows):
    flow = await flows.here()
    run = await asking(flow, timeout="300ms")
    text = await flow.approvals.link(run, "ask", by="alice", until_ns=later())
    late = await flow.approvals.read(await flow.approvals.link(run, "ask", by="alice", until_ns=time.time_ns() + 1))
    with pytest.raises(Denied) as refused:
        await flow.approvals.question(late)
    assert refused.value.code == "flow.link_expired"
    assert (await ended(flow, run)).error["code"] == "flow.wait_timeout"
    link = await flow.approvals.read(text)
    assert (await flow.approvals.question(link)).state == "gone"
    with pytest.raises(Conflict):
        await flow.approvals.answer(link, approve=True, comment="")
    for forged in ("", "ka1", text[:-1], text + "x", text.replace("ka1", "kc1"), "ka1." + "A" * 9000):
        assert await flow.approvals.read(forged) is None


def test_a_link_opens_with_its_own_key_alone():
    link = Link("w0198c0ffee", "ask", "alice", 1, "x")
    text = sealed(b"a" * 32, link)
    assert opened(b"a" * 32, text) == link
    assert opened(b"b" * 32, text) is None
    body = text.split(".")
    assert all(
        opened(b"a" * 32, f"{body[0]}.{body[1][:n]}A{body[1][n + 1 :]}.{body[2]}") in (None, link)
        for n in range(len(body[1]))
    )


@pytest.mark.parametrize("ends", ["timeout", "cancel"])
async def test_an_answer_behind_what_ended_the_question_is_not_told_to_stand(flows, monkeypatch, ends):
    """It is looked whether something is asked, and then recorded: what ends the question may be stored in between."""
    flow = await flows.here()
    run = await asking(flow, timeout="1h", on_timeout="value", timeout_value={"by": "nobody"})
    link = await flow.approvals.read(await flow.approvals.link(run, "ask", by="alice", until_ns=later()))
    asked = flow.runs.asked

    async def too_slow(*given):
        found = await asked(*given)
        place = facts.subject(run, "cancel") if ends == "cancel" else facts.subject(run, "fired", "wait-ask")
        await flow.connection.request(place, facts.encode(facts.Wish()) if ends == "cancel" else b"")
        return found

    monkeypatch.setattr(flow.runs, "asked", too_slow)
    with pytest.raises(Conflict) as refused:
        await flow.approvals.answer(link, approve=True, comment="")
    assert (refused.value.code, refused.value.detail["state"]) == ("flow.answered", "gone")
    monkeypatch.undo()
    finish = await ended(flow, run)
    assert finish.state == "cancelled" if ends == "cancel" else output(finish) == "nobody"
    for approve in (True, False):
        with pytest.raises(NotFound) as gone:
            await flow.runs.answer(run, "ask", approve=approve, by="alice")
        assert gone.value.code == "flow.not_asked"


async def test_who_approves_too_late_is_told_so(flows, monkeypatch):
    flow = await flows.here()
    run = await asking(flow, timeout="1h", on_timeout="value", timeout_value={"by": "nobody"})
    asked = flow.runs.asked

    async def too_slow(*given):
        found = await asked(*given)
        await flow.connection.request(facts.subject(run, "fired", "wait-ask"), b"")
        return found

    monkeypatch.setattr(flow.runs, "asked", too_slow)
    with pytest.raises(NotFound, match="too late") as late:
        await flow.runs.answer(run, "ask", approve=True, by="alice")
    assert late.value.code == "flow.not_asked"
    assert output(await ended(flow, run)) == "nobody"

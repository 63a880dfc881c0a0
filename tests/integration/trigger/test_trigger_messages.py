"""Triggers that fire for messages and files, on a real server: one run each, over nodes, gathered and filtered."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.integration.trigger.conftest import define, keep, output, runs_of
from tests.integration.work.conftest import PATIENCE_S, until

from knotwork.bus import publisher, streams, subjects
from knotwork.desk.triggers import TriggerDesk
from knotwork.flow import listing
from knotwork.ops.flow_ports import NewRun
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Denied, Invalid
from knotwork.trigger import following, watching
from knotwork.trust.who import Who


async def publish(flow, *bodies: bytes, kind: str = "order.paid") -> None:
    for body in bodies:
        await flow.events.publish(kind, body)


async def at_once(flow, *bodies: bytes) -> None:
    """Publish events without a pause between them, however slow we are."""
    place = subjects.event("order.paid")
    answers = await publisher.publish_many(flow.connection, [(place, body, b"") for body in bodies])
    assert all(isinstance(one, publisher.Ack) for one in answers)


async def outputs(flow, count: int, name: str = "t") -> list:
    async def enough() -> list[str]:
        found = list((await runs_of(flow, name)).values())
        return found if len(found) >= count else []

    return [await output(flow, run) for run in await until(enough)]


async def settled(triggers, flow, name: str = "t") -> None:
    """Return when everything published so far was looked at."""
    place = (await streams.api(flow.connection, "STREAM.INFO.EVENTS"))["state"]["last_seq"] + 1

    async def there() -> bool:
        state, _ = await triggers.store.state(name)
        return state.place >= place and not state.windows and not state.pending

    await until(there)


async def test_one_run_for_each_message_that_is_meant(nodes):
    flow, triggers = await nodes.here("one")
    await nodes.here("two")
    await define(flow)
    await publish(flow, b'{"n": 99}')  # before: none of its business
    await keep(triggers, subject="event.order.*", filter="body.n > `1`")
    await publish(flow, *(b'{"n": %d}' % n for n in range(5)))
    await publish(flow, b'{"n": 9}', kind="other")
    await publish(flow, b"garbage")
    await settled(triggers, flow)
    assert sorted(one["n"] for one in await outputs(flow, 3)) == [2, 3, 4]
    start = (await flow.runs.look(next(iter((await runs_of(flow)).values())))).start
    assert start.labels["trigger_kind"] == "subject"


async def test_all_there_is_and_text_bodies(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await publish(flow, b"hello", b"[1]")
    await keep(triggers, subject="event.>", begin="all")
    assert sorted(map(str, await outputs(flow, 2))) == ["[1]", "hello"]


async def test_messages_are_runs_once_though_who_follows_is_killed(nodes):
    flow, triggers = await nodes.here("one")
    others = [await nodes.process(name) for name in ("two", "three")]
    await define(flow)
    names = [f"t{number}" for number in range(6)]
    for name in names:
        await keep(triggers, name, subject="event.order.paid", begin="all")
    for number in range(60):
        await publish(flow, b"%d" % number)
        if number == 20:
            os.kill(others[0].pid, signal.SIGKILL)
    for name in names:
        assert sorted(await outputs(flow, 60, name)) == list(range(60))
        await settled(triggers, flow, name)
        assert len(await runs_of(flow, name)) == 60


async def test_batches(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, subject="event.order.paid", batch={"count": 3, "within": "300ms"})
    await at_once(flow, *(b"%d" % n for n in range(7)))
    assert sorted(await outputs(flow, 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    await settled(triggers, flow)
    assert len(await runs_of(flow)) == 3


async def test_debounce_by_key(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, subject="event.order.paid", debounce={"key": "body.id", "quiet": "500ms", "max_wait": "1m"})
    await at_once(flow, *(b'{"id": %d, "n": %d}' % (n % 2, n) for n in range(10)))
    found = await outputs(flow, 2)
    await settled(triggers, flow)
    assert len(await runs_of(flow)) == 2
    assert sorted((one["id"], one["n"]) for one in found) == [(0, 8), (1, 9)]


async def test_any_stream_the_operator_names(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    with pytest.raises(Invalid) as none:
        await keep(triggers, subject="sensors.>")
    assert none.value.code == "trigger.no_stream"
    await streams.ensure(flow.connection, streams.StreamSpec("SENSORS", ("sensors.>",)))
    with pytest.raises(Invalid):
        await keep(triggers, subject="sensors.>", stream="OTHER")
    await keep(triggers, subject="sensors.*.hot", stream="SENSORS", mapping={"where": "subject", "t": "body"})
    await publisher.publish(flow.connection, "sensors.attic.hot", b"41")
    assert await outputs(flow, 1) == [{"where": "sensors.attic.hot", "t": 41}]


@pytest.mark.parametrize("later", [False, True])
async def test_a_stream_that_answers_no_direct_requests(nodes, later):
    """What other clients make has `allow_direct` off; it may also be switched off while it is followed."""
    flow, triggers = await nodes.here()
    await define(flow)
    shut = streams.StreamSpec("SENSORS", ("sensors.>",), {"allow_direct": False})
    await streams.ensure(flow.connection, streams.StreamSpec("SENSORS", ("sensors.>",)) if later else shut)
    for number in range(5):  # before: none of its business
        await publisher.publish(flow.connection, "sensors.attic.hot", b"%d" % -number)
    await keep(triggers, subject="sensors.*.hot", mapping={"n": "body"})
    if later:
        await publisher.publish(flow.connection, "sensors.attic.hot", b"1")
        await outputs(flow, 1)
        await streams.ensure(flow.connection, shut)
    await publisher.publish(flow.connection, "sensors.attic.cold", b"77")
    for number in (1, 2, 3)[later:]:
        await publisher.publish(flow.connection, "sensors.attic.hot", b"%d" % number)
    assert sorted(one["n"] for one in await outputs(flow, 3)) == [1, 2, 3]


async def test_what_is_gathered_from_a_stream_that_answers_no_direct_requests(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await streams.ensure(flow.connection, streams.StreamSpec("SENSORS", ("sensors.>",), {"allow_direct": False}))
    for number in range(3):
        await publisher.publish(flow.connection, "sensors.hot", b"%d" % number)
    await keep(triggers, subject="sensors.hot", begin="all", batch={"count": 3, "within": "1m"})
    assert await outputs(flow, 1) == [[0, 1, 2]]


async def test_a_trigger_that_turns_to_another_stream_begins_there(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    for name in ("LONG", "SHORT"):
        await streams.ensure(flow.connection, streams.StreamSpec(name, (f"{name.lower()}.>",)))
    for _ in range(9):
        await publisher.publish(flow.connection, "long.x", b"0")
    await publisher.publish(flow.connection, "short.x", b"0")  # before: none of its business
    await keep(triggers, subject="long.x")
    await publisher.publish(flow.connection, "long.x", b"1")
    assert await outputs(flow, 1) == [1]
    await keep(triggers, subject="short.x")
    for body in (b"2", b"3"):
        await publisher.publish(flow.connection, "short.x", body)
    assert sorted(await outputs(flow, 3)) == [1, 2, 3]
    await keep(triggers, cron="0 0 1 1 *")  # and by way of another kind
    await keep(triggers, subject="long.x")
    await publisher.publish(flow.connection, "long.x", b"4")
    assert sorted(await outputs(flow, 4)) == [1, 2, 3, 4]


async def test_messages_that_were_gathered_run_one_by_one_when_nothing_is_gathered_any_more(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, subject="event.order.*", batch={"count": 9, "within": "1h"})

    async def gathered() -> bool:
        state, _ = await triggers.store.state("t")
        return [len(one.messages) for one in state.windows.values()] == [3]

    await publish(flow, b"1", b"2", b"3")
    await until(gathered)
    await keep(triggers, subject="event.order.*", filter="body > `1`")
    await publish(flow, b"4")
    assert sorted(await outputs(flow, 4)) == [1, 2, 3, 4]  # what was meant when it came
    await settled(triggers, flow)


async def test_what_is_gathered_is_no_more_than_a_run_can_be_given(nodes, monkeypatch):
    monkeypatch.setattr(following, "TOGETHER_MAX_BYTES", 2000)
    flow, triggers = await nodes.here()
    await define(flow, steps={"a": {"capability": "do", "input": "length(input)"}})
    await keep(triggers, subject="event.order.paid", batch={"count": 5, "within": "1h"})
    await at_once(flow, *[b'"%s"' % (b"x" * 898)] * 4, *[b"1"] * 4)
    assert sorted(await outputs(flow, 2)) == [2, 5]


async def test_queued_messages_run_once_also_when_the_trigger_is_replaced_meanwhile(nodes):
    flow, triggers = await nodes.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    await define(flow, "other")
    await publish(flow, b"1", b"2", b"3")
    await keep(triggers, subject="event.order.paid", overlap="queue", begin="all")

    async def begun(count: int) -> list[str]:
        found = list((await runs_of(flow)).values())
        return found if len(found) == count else []

    (first,) = await until(lambda: begun(1))
    await flow.runs.signal(first, "go", b"1")
    second = next(one for one in await until(lambda: begun(2)) if one != first)
    await keep(triggers, subject="event.order.paid", overlap="queue", workflow="other")
    await flow.runs.signal(second, "go", b"2")
    await settled(triggers, flow)
    assert sorted(start.workflow for _, start, _ in await listing.runs(flow.connection)) == ["other", "w", "w"]


async def test_queued_messages_run_one_after_the_other(nodes):
    flow, triggers = await nodes.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    await keep(triggers, subject="event.order.paid", overlap="queue")
    await publish(flow, b"1", b"2")

    async def count(wanted: int) -> dict[str, str]:
        found = await runs_of(flow)
        return found if len(found) == wanted else {}

    first = next(iter((await until(lambda: count(1))).values()))
    await flow.runs.signal(first, "go", b"1")
    await until(lambda: count(2))


async def test_a_message_that_starts_nothing_stops_no_run(nodes):
    flow, triggers = await nodes.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}}, input_schema={"type": "integer"})
    await keep(triggers, subject="event.order.paid", overlap="cancel")
    await publish(flow, b"1", b'"no number"')

    async def vain() -> bool:
        return any(one.what == "failed" for one in await triggers.firings.last("t", 9))

    await until(vain)
    (run,) = (await runs_of(flow)).values()
    assert (await flow.runs.look(run)).run.phase == "running"


async def test_files_that_come_and_change(nodes, tmp_path):
    flow, triggers = await nodes.here("one")
    await nodes.here("two")  # sees the same folder: still one run
    await define(flow)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "old.csv").write_text("1")
    await keep(triggers, folder=str(folder), pattern="*.csv", changes=["added", "modified", "deleted"])

    async def watched() -> bool:
        return "t" in triggers._watching.seen

    await until(watched)
    (folder / "new.csv").write_text("22")
    (folder / "new.txt").write_text("not meant")
    found = await outputs(flow, 1)
    assert found == [{"path": str(folder / "new.csv"), "change": "added", "size": 2}]
    (folder / "old.csv").write_text("333")
    assert {one["change"] for one in await outputs(flow, 2)} == {"added", "modified"}
    (folder / "old.csv").unlink()
    changed = sorted(one["change"] for one in await outputs(flow, 3))
    assert changed == ["added", "deleted", "modified"]
    async with asyncio.timeout(PATIENCE_S):
        await triggers.switch("t", enabled=False)


@pytest.mark.parametrize("overlap", ["skip", "cancel"])
async def test_nodes_that_see_one_folder_take_the_run_of_a_change_for_no_other(nodes, tmp_path, overlap):
    both = [await nodes.here(name) for name in ("one", "two")]
    flow, triggers = both[0]
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    await keep(triggers, folder=str(tmp_path), overlap=overlap, settle=0)

    def watched(path: str) -> bool:
        seen = [one._watching.seen.get("t") for _, one in both]
        return all(one is not None and (not path or path in one) for one in seen)

    await until(lambda: watched(""))
    file = tmp_path / "new"
    file.write_text("1")
    await until(lambda: watched(str(file)))  # each of them has fired
    (run,) = (await runs_of(flow)).values()
    await flow.runs.signal(run, "go", b"7")
    assert await output(flow, run) == 7
    assert {one.what for one in await triggers.firings.last("t", 9)} == {"started"}


async def test_a_file_that_is_still_written_is_waited_for(nodes, tmp_path):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, folder=str(tmp_path / "later"), changes=["added"], settle="3s")  # it comes later
    await until(lambda: _is("t" in triggers._watching.seen))
    (tmp_path / "later").mkdir()
    file = tmp_path / "later" / "big"
    for size in range(1, 11):
        file.write_text("x" * size)
        await asyncio.sleep(0.05)  # as whoever writes it takes his time
    assert [one["size"] for one in await outputs(flow, 1)] == [10]


async def test_a_trigger_that_is_changed_while_a_file_settles_sees_it_all_the_same(nodes, tmp_path):
    flow, triggers = await nodes.here()
    await define(flow)
    (tmp_path / "old").write_text("x")
    await keep(triggers, folder=str(tmp_path), pattern="n*", settle="1h")
    await until(lambda: _is("t" in triggers._watching.seen))
    (tmp_path / "new").write_text("x")
    await keep(triggers, folder=str(tmp_path), pattern="n*", settle=0, labels={"team": "x"})
    assert [Path(one["path"]).name for one in await outputs(flow, 1)] == ["new"]
    await keep(triggers, folder=str(tmp_path), settle=0)  # what it looks for now was there before
    await until(lambda: _is(len(triggers._watching.seen.get("t", ())) == 2))
    (tmp_path / "newer").write_text("x")
    assert {Path(one["path"]).name for one in await outputs(flow, 2)} == {"new", "newer"}


async def test_a_folder_with_more_files_than_are_looked_at_says_of_none_that_it_is_gone(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "FILES_MAX", 2)
    flow, triggers = await nodes.here()
    await define(flow)
    (tmp_path / "sub").mkdir()
    for name in ("a", "b"):
        (tmp_path / "sub" / name).write_text("old")
    os.mkfifo(tmp_path / "pipe")
    await keep(triggers, folder=str(tmp_path), changes=["added", "deleted"], recursive=True, settle=0)
    await until(lambda: _is("t" in triggers._watching.seen))
    for number in range(2):  # what lies above is looked at before what lies below
        (tmp_path / f"new-{number}").write_text("x")
        found = await outputs(flow, number + 1)
    assert sorted((Path(one["path"]).name, one["change"]) for one in found) == [("new-0", "added"), ("new-1", "added")]
    assert "over 2 such files" in (await TriggerDesk(triggers, str).show("t")).why


async def test_a_file_whose_name_is_no_text_fires_like_others_and_is_no_error(nodes, tmp_path, caplog):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, folder=str(tmp_path), pattern="*.csv", settle=0)
    await until(lambda: _is("t" in triggers._watching.seen))
    for number in range(3):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff%d.csv" % number)).write_text("x")
        (tmp_path / f"{number}.csv").write_text("y")
        found = await outputs(flow, 2 * number + 2)
    names = sorted(Path(one["path"]).name for one in found)
    assert names == ["0.csv", "1.csv", "2.csv", "\ufffd0.csv", "\ufffd1.csv", "\ufffd2.csv"]
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize("folder", ["/" + "a" * 300, "/a\0b"], ids=["long", "nul"])
async def test_a_folder_that_can_never_be_there_harms_no_other_trigger(nodes, folder):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, "odd", kind="file", folder=folder)
    await keep(triggers, subject="event.order.*")
    await until(lambda: triggers.store.known.keys() == {"odd", "t"})
    assert (await TriggerDesk(triggers, str).show("odd")).why == f"there is no folder {folder} on here"
    await publish(flow, b"7")
    assert await outputs(flow, 1) == [7]


async def test_an_agent_keeps_no_trigger_that_opens_a_door_or_watches_a_folder(nodes, tmp_path):
    flow, triggers = await nodes.here()
    await define(flow)
    desk, agent = TriggerDesk(triggers, str), Caller("ann", may="write")
    fields = {"id": "t", "workflow": "w"}
    for more in (
        {"folder": str(tmp_path)},
        {"kind": "webhook", "path": "in", "unsigned": True},
        {"kind": "webhook", "path": "in", "secret": {"file": "/etc/hostname"}},
        {"kind": "http", "path": "in", "unsigned": True},
    ):
        with pytest.raises(Denied) as refused:
            await desk.create(None, fields | more, agent, replace=True)
        assert refused.value.code == "trigger.not_yours"
    assert await desk.all() == []
    assert (await desk.create(None, fields | {"cron": "@daily"}, agent, replace=False)).kind == "cron"
    assert (
        await desk.create(None, fields | {"folder": str(tmp_path)}, Caller("ann", may="admin"), replace=True)
    ).new is False


async def test_an_agent_changes_its_own_triggers_alone(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    desk, person = TriggerDesk(triggers, str), Caller("ann", may="admin")
    first, second = (Caller("x", may="write", who=Who(one, one, "default", "ann")) for one in ("one", "two"))
    fields = {"workflow": "w", "cron": "@daily"}
    await desk.create(None, fields | {"id": "hers"}, person, replace=False)
    await desk.create(None, fields | {"id": "its"}, first, replace=False)
    for name, other in (("hers", first), ("its", second)):
        for changing in (
            desk.create(None, fields | {"id": name, "cron": "@hourly"}, other, replace=True),
            desk.switch(name, other, enabled=False),
            desk.remove(name, other),
        ):
            with pytest.raises(Denied, match="not yours to change") as refused:
                await changing
            assert refused.value.code == "trigger.not_yours"
    renamed = Caller("x", may="write", who=Who("one", "another-name", "default", "ann"))
    assert (await desk.switch("its", renamed, enabled=False)).enabled is False
    assert (await desk.create(None, fields | {"id": "its", "cron": "@hourly"}, renamed, replace=True)).new is False
    assert (await desk.switch("its", person, enabled=False)).enabled is False
    assert await desk.remove("its", first)
    assert await desk.remove("hers", person)


async def test_a_run_to_come_that_two_agents_want_under_one_key_is_one_run(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    desk, wanted = TriggerDesk(triggers, str), NewRun("w", {"n": 5}, key="one")
    first, second = (Caller("x", may="write", who=Who(one, one, "default", "ann")) for one in ("one", "two"))
    made = await desk.later(wanted, "2h", first)
    for caller in (first, second, Caller("ann", may="admin")):
        again = await desk.later(wanted, "3h", caller)
        assert (again.id, again.started_at, again.new) == (made.id, made.started_at, False)


async def test_a_folder_that_is_away_for_a_while_says_nothing_of_its_files(nodes, tmp_path, monkeypatch):
    flow, triggers = await nodes.here()
    await define(flow)
    folder, desk = tmp_path / "in", TriggerDesk(triggers, str)
    away = []

    def looked(trigger):
        found = look(trigger)
        away.extend([trigger] if found is None else [])
        return found

    look = watching.look
    monkeypatch.setattr(watching, "look", looked)
    await keep(triggers, folder=str(folder), changes=["added", "modified", "deleted"], settle="100ms")
    assert (await desk.show("t")).why == f"there is no folder {folder} on here"
    await keep(triggers, "other", folder=str(folder), node="nobody")
    assert (await desk.show("other")).why == "the node nobody is not there"
    folder.mkdir()
    (folder / "old").write_text("1")
    assert [one["change"] for one in await outputs(flow, 1)] == ["added"]
    assert (await desk.show("t")).why == ""
    away.clear()
    folder.rename(tmp_path / "moved")  # as a file system that is not mounted
    await until(lambda: _is(bool(away)))
    (tmp_path / "moved").rename(folder)
    (folder / "new").write_text("22")
    found = await outputs(flow, 2)
    assert sorted((one["change"], one["size"]) for one in found) == [("added", 1), ("added", 2)]


async def _is(what: bool) -> bool:
    return what


async def test_two_owners_at_once_agree_on_what_belongs_together(nodes):
    flow, triggers = await nodes.here("one")
    _, others = await nodes.here("two")
    for room in (triggers, others):
        room._timed._mine = room._following._mine = lambda _: True
    await define(flow)
    await keep(triggers, subject="event.order.paid", batch={"count": 7, "within": "200ms"})
    await keep(triggers, "d", subject="event.order.paid", debounce={"key": "body.id", "quiet": "200ms"})
    for begin in range(0, 60, 20):
        await publish(flow, *(b'{"id": %d, "n": %d}' % (n % 4, n) for n in range(begin, begin + 20)))
        await settled(triggers, flow)
        await settled(triggers, flow, "d")
    batches = await outputs(flow, 1)
    assert sorted(one["n"] for batch in batches for one in batch) == list(range(60))  # each in one of them
    last = [(one["id"], one["n"]) for one in await outputs(flow, 12, "d")]
    assert len(last) == len(set(last))
    assert {(n % 4, n) for begin in (16, 36, 56) for n in range(begin, begin + 4)} <= set(last)

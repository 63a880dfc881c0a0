"""What becomes of workflows when their files are renamed, or two files hold the same name?"""

from __future__ import annotations

import asyncio
import os

import pytest
import pytest_asyncio
from tests.integration.flow.conftest import define
from tests.integration.work.conftest import until

from knotwork.bus.background import background
from knotwork.desk.runs.desk import FlowDesk
from knotwork.flow.definitions import parsed
from knotwork.host import workflow_files
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Conflict
from knotwork.telemetry.emitter import Emitter


def text(name: str, seconds: int) -> str:
    return f"name: {name}\nsteps:\n  a: {{kind: sleep, duration: {seconds}}}\n"


@pytest_asyncio.fixture
async def looked(flows, tmp_path, monkeypatch):
    """Give a folder that is looked at, and the room its workflows come to."""
    monkeypatch.setattr(workflow_files, "LOOK_S", 0.05)
    monkeypatch.setattr(workflow_files, "RETRY_S", 0.1)
    folder = tmp_path / "workflows"
    folder.mkdir()
    flow = await flows.here()
    async with background() as group:
        group.create_task(workflow_files.follow("n1", lambda: folder, lambda: flow, Emitter("n1")))
        yield folder, flow


async def is_from(flow, name: str, file: str, seconds: int) -> bool:
    named = await flow.definitions.named(name)
    if named is None or named.owner != (f"{file} on n1" if file else ""):
        return False
    return (await flow.definitions.graph(named.digests[-1])).workflow.steps["a"].duration == seconds


async def test_a_renamed_file_takes_its_workflow_along(looked):
    folder, flow = looked
    first, second = folder / "m1.yaml", folder / "m2.yaml"
    first.write_text(text("m1", 1))
    await until(lambda: is_from(flow, "m1", "m1.yaml", 1))
    first.rename(second)
    await until(lambda: is_from(flow, "m1", "m2.yaml", 1))
    second.rename(first)
    first.write_text(text("m1", 2))
    await until(lambda: is_from(flow, "m1", "m1.yaml", 2))
    first.unlink()
    await until(lambda: _none(flow, "m1"))


async def test_a_name_that_is_free_again_goes_to_the_file_that_waited(looked):
    folder, flow = looked
    await define(flow, name="mine", steps={"a": {"kind": "sleep", "duration": 9}})
    (folder / "r1.yaml").write_text(text("r", 1))
    await until(lambda: is_from(flow, "r", "r1.yaml", 1))
    for file, name, seconds in (("r2", "r", 2), ("r3", "r", 1), ("mine", "mine", 1), ("z", "z", 1)):
        (folder / f"{file}.yaml").write_text(text(name, seconds))
    await until(lambda: is_from(flow, "z", "z.yaml", 1))
    assert await is_from(flow, "r", "r1.yaml", 1)
    (folder / "r1.yaml").unlink()
    await until(lambda: is_from(flow, "r", "r3.yaml", 1))  # it says the same
    (folder / "r3.yaml").unlink()
    await until(lambda: is_from(flow, "r", "r2.yaml", 2))
    assert await is_from(flow, "mine", "", 9)
    await flow.definitions.remove("mine")
    await until(lambda: is_from(flow, "mine", "mine.yaml", 1))


async def test_what_a_node_brought_that_is_gone_for_good_can_be_taken_away(looked):
    folder, flow = looked
    flows = FlowDesk(flow, None, str, None)
    left = parsed({"name": "left", "steps": {"a": {"kind": "sleep", "duration": 1}}})
    await flow.definitions.put(left, now_ns=1, owner="left.yaml on another")
    (folder / "left.yaml").write_text(text("left", 2))
    (folder / "z.yaml").write_text(text("z", 1))
    await until(lambda: is_from(flow, "z", "z.yaml", 1))
    with pytest.raises(Conflict, match="another") as refused:
        await flows.remove("left", Caller("ann", may="admin"))
    assert "--force" in refused.value.hint
    with pytest.raises(Conflict):
        await flows.remove("left", Caller("an-agent", may="write"), force=True)
    assert await flows.remove("left", Caller("ann", may="admin"), force=True)
    await until(lambda: is_from(flow, "left", "left.yaml", 2))  # it waited for the name


async def test_a_file_that_another_node_holds_is_refused_when_that_one_goes_on_to_say_something_else(
    flows, tmp_path, caplog
):
    flow, done = await flows.here(), workflow_files._Brought("n1")

    async def look(*, again: bool = False) -> int:
        if again:
            done.retry_at_s, done.late = 0.0, dict.fromkeys(done.late, 0.0)
        await workflow_files._look(tmp_path, flow, Emitter("n1"), done)
        return caplog.text.count("is not taken")

    async def other(seconds: int) -> None:
        made = parsed({"name": "a", "steps": {"a": {"kind": "sleep", "duration": seconds}}})
        await flow.definitions.put(made, now_ns=1, owner="a.yaml on n2")

    file = tmp_path / "a.yaml"
    await other(1)
    file.write_text(text("a", 2))
    assert await look() == 0
    await other(2)  # a moment later
    assert [await look(again=True), await look(again=True)] == [0, 0]
    file.write_text(text("a", 33))
    assert [await look(), await look(again=True), await look(again=True)] == [0, 1, 1]
    (tmp_path / "b.yaml").write_text(text("a", 4))
    assert await look() == 2  # no other node has that


async def test_a_folder_that_cannot_be_looked_at_says_nothing_of_its_files(looked, monkeypatch):
    folder, flow = looked
    (folder / "a.yaml").write_text(text("a", 1))
    await until(lambda: is_from(flow, "a", "a.yaml", 1))
    looks, look = [], workflow_files._stamps

    def counted(where):
        looks.append(where)
        return look(where)

    monkeypatch.setattr(workflow_files, "_stamps", counted)
    folder.rename(away := folder.with_name("away"))
    folder.symlink_to(folder)  # whoever looks there goes round in circles
    seen = len(looks)
    await until(lambda: asyncio.sleep(0, len(looks) > seen + 2))
    assert await is_from(flow, "a", "a.yaml", 1)
    folder.unlink()
    await until(lambda: _none(flow, "a"))
    away.rename(folder)
    await until(lambda: is_from(flow, "a", "a.yaml", 1))


async def test_a_name_that_moves_to_another_file_stays(looked):
    folder, flow = looked
    (folder / "b.yaml").write_text(text("one", 1))
    await until(lambda: is_from(flow, "one", "b.yaml", 1))
    (folder / "a.yaml").write_text(text("one", 3))
    (folder / "b.yaml").write_text(text("two", 1))
    await until(lambda: is_from(flow, "one", "a.yaml", 3))
    await until(lambda: is_from(flow, "two", "b.yaml", 1))


async def _none(flow, name: str) -> bool:
    return await flow.definitions.named(name) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
async def test_a_pipe_in_the_folder_is_refused_and_holds_up_no_other_file(looked):
    folder, flow = looked
    os.mkfifo(folder / "a.yaml")
    (folder / "b.yaml").write_text(text("b", 1))
    await until(lambda: is_from(flow, "b", "b.yaml", 1))
    (folder / "b.yaml").write_text(text("b", 2))
    await until(lambda: is_from(flow, "b", "b.yaml", 2))
    (folder / "a.yaml").unlink()
    (folder / "a.yaml").write_text(text("a", 1))
    await until(lambda: is_from(flow, "a", "a.yaml", 1))

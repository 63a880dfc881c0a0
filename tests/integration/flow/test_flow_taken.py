"""A run that is done again on a real server goes on where its maps and the runs below it were."""

from __future__ import annotations

import json

import msgspec
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.flow import anew, facts

DO = {"do": {"concurrency": 20}}
BELOW = {"one": {"capability": "do"}, "ask": {"kind": "approval", "depends_on": ["one"]}}


async def test_items_and_steps_below_stand(flows, tmp_path):
    """Also when the items are too large for a message; a definition that is another by then begins from nothing."""
    flow = await flows.here(**DO)
    paths = {name: str(tmp_path / name) for name in ("first", "second", "file", "one")}
    await define(flow, name="below", steps=BELOW, output="steps.ask.output.by")
    steps = {
        "m": {"kind": "map", "capability": "do", "items": "input.items"},
        "sub": {"kind": "workflow", "workflow": "below", "input": {"touch": "input.one"}},
    }
    await define(flow, steps=steps, output="[length(steps.m.output), length(steps.m.output[0].pad), steps.sub.output]")
    items = [
        {"touch": paths["first"], "pad": "x" * 600_000},
        {"touch": paths["second"], "until": paths["file"]},
    ]
    run = await start(flow, {"items": items, "one": paths["one"]})

    async def asked(run: str) -> bool:
        child = facts.child_run(run, "sub")
        return await anew.exists(flow.connection, child) and "ask.ask" in (await flow.runs.look(child)).run.open

    async def halfway() -> bool:
        return (await flow.runs.look(run)).run.steps["m"].items.left == 1 and await asked(run)

    await until(halfway)
    await flow.runs.cancel(run)
    assert (await ended(flow, run)).state == "cancelled"

    again, _ = await flow.runs.fork(run)
    await until(lambda: asked(again))
    below = await flow.runs.look(facts.child_run(again, "sub"))
    assert below.start.of == facts.child_run(run, "sub")
    await flow.runs.cancel(again)
    assert (await ended(flow, again)).state == "cancelled"

    (tmp_path / "file").touch()
    third, _ = await flow.runs.fork(again)
    await until(lambda: asked(third))
    await flow.runs.answer(facts.child_run(third, "sub"), "ask", approve=True, by="me")
    assert output(await ended(flow, third)) == [2, 600_000, "me"]
    begun = {name: (tmp_path / name).read_text().count("\n") for name in ("first", "second", "one")}
    assert begun == {"first": 1, "second": 3, "one": 1}
    for one in (run, again, third, below.id):
        assert await flow.runs.replay(one) is None

    seen = below.start
    for changed in ({"circle": "personal"}, {"digest": "another"}):
        start_of = msgspec.structs.replace(seen, given={}, of="", **changed)
        assert await flow.runs.taking.below(start_of, below.id) is start_of
    await define(flow, name="below", steps=BELOW, output="'other'")
    other, _ = await flow.runs.fork(again)
    await until(lambda: asked(other))
    assert (tmp_path / "one").read_text().count("\n") == 2
    value = json.dumps({"items": [], "one": paths["one"]}).encode()
    empty, _ = await flow.runs.fork(again, value=value)
    assert (await flow.runs.look(empty)).start.left == {}


async def test_a_chain_below_goes_on_with_its_last_also_when_it_could_not_be_started_meanwhile(flows, tmp_path):
    flow = await flows.here(**DO)
    below = {
        "one": {"capability": "do", "input": {"touch": "input.touch"}},
        "on": {
            "kind": "continue_as_new", "depends_on": ["one"], "when": "input.n < `2`",
            "input": {"n": "sum([input.n, `1`])", "touch": "input.touch"},
        },
        "ask": {"kind": "approval", "when": "input.n == `2`", "depends_on": ["one"]},
    }  # fmt: skip
    await define(flow, name="below", steps=below, output="input.n")
    sub = {"kind": "workflow", "workflow": "below", "input": {"n": "`0`", "touch": "input"}}
    await define(flow, steps={"sub": sub})
    touched = tmp_path / "touched"
    run = await start(flow, str(touched))

    async def asks() -> bool:
        child = facts.child_run(run, "sub")
        if not await anew.exists(flow.connection, child):
            return False
        last = await flow.runs.latest(child)
        return "ask.ask" in (await flow.runs.look(last)).run.open

    for _ in range(2):
        await until(asks)
        await flow.runs.cancel(run)
        assert (await ended(flow, run)).state == "cancelled"
        await flow.definitions.remove("below")
        run, _ = await flow.runs.fork(run)
        assert (await ended(flow, run)).error["code"] == "flow.no_workflow"
        await define(flow, name="below", steps=below, output="input.n")
        run, _ = await flow.runs.fork(run)
    await until(asks)
    await flow.runs.answer(facts.child_run(run, "sub"), "ask", approve=True, by="me")
    assert output(await ended(flow, run)) == 2
    assert touched.read_text().count("\n") == 3

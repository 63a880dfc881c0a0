"""A run that is done again takes over the items of maps and the steps of runs below that were done, at any depth."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.unit.flow.oracle import Oracle
from tests.unit.flow.play import Play, task
from tests.unit.flow.programs import Program
from tests.unit.flow.simulator import World

from knotwork.flow import again, facts


def mapped(*parents: str, **more: Any) -> dict[str, Any]:
    return task(*parents, kind="map", items="input", **more)


def test_items_that_were_done_are_not_done_again():
    steps = {"m": mapped(parallelism=2)}
    play = Play(steps, [1, 2, 3, 4]).done("m--0", None).fail("m--1").recalled("m--2")
    assert play.failed()
    given, left = again.taken_over(play.run)
    assert (given, msgspec.json.decode(left["m"].items)) == ({}, {"0": None})
    anew = Play(steps, [1, 2, 3, 4], start={"left": left})
    assert anew.open == {"do.m--1", "do.m--2"}
    anew.done("m--1", "b").done("m--2", "c").fail("m--3")
    assert anew.failed()
    _, left = again.taken_over(anew.run)  # what it took over itself counts as well
    assert msgspec.json.decode(left["m"].items) == {"0": None, "1": "b", "2": "c"}
    assert Play(steps, [1, 2, 3, 4], start={"left": left}).done("m--3", "d").completed() == [None, "b", "c", "d"]


def test_a_map_with_nothing_left_to_do_completes_at_once():
    left = {"m": facts.Left(msgspec.Raw(b'{"0":"a","1":"b","7":"not there"}'))}
    assert Play({"m": mapped()}, [1, 2], start={"left": left}).completed() == ["a", "b"]


def test_a_map_that_gave_more_than_can_be_kept_leaves_as_many_items_as_can(monkeypatch):
    monkeypatch.setattr(again, "SIZE_MAX_BYTES", 30)
    steps = {"m": mapped(allowed_failures=1), "x": task("m")}
    play = Play(steps, [1, 2, 3, 4]).fail("m--0").done("m--1", "b" * 8).done("m--2", "c" * 9).done("m--3", "d" * 9)
    assert play.fail("x").failed()
    given, left = again.taken_over(play.run)
    assert (given, msgspec.json.decode(left["m"].items)) == ({}, {"1": "b" * 8})
    assert len(left["m"].items) <= 30
    assert Play(steps, [1, 2, 3, 4], start={"left": left}).open == {"do.m--0", "do.m--2", "do.m--3"}


@pytest.mark.parametrize("handed", [None, [8, 9]])
def test_who_undoes_a_map_that_was_taken_over_is_told_its_items(handed):
    steps = {"m": mapped(input="'x'", compensate="u"), "x": task("m"), "u": task()}
    start = {"given": {"m": facts.StepEnd("completed", msgspec.Raw(b"[1,2]"))}}
    if handed:
        start["handed"] = {"m": facts.Handed(msgspec.Raw(msgspec.json.encode(handed)))}
    play = Play(steps, [5, 6], start=start).fail("x")
    assert play.given("u--0u") == {"step": "m", "input": handed or [5, 6], "output": [1, 2]}


@pytest.mark.parametrize("items", [b"null", b"[1]", b'{"a":1}', b'"x"', b"{"])
def test_what_an_import_says_was_left_may_be_anything(items):
    play = Play({"m": mapped()}, [1], start={"left": {"m": facts.Left(msgspec.Raw(items))}})
    assert play.failed()["code"] == "flow.bad_value"


def test_who_names_the_step_wants_all_of_it_again():
    play = Play({"m": mapped()}, [1, 2]).done("m--0", "a").fail("m--1")
    assert again.taken_over(play.run, "m") == ({}, {})


def test_nothing_is_left_of_a_step_that_follows_what_is_done_again():
    """It might be another list by then."""
    steps = {"a": task(allow_failure=True), "m": mapped("a"), "n": mapped()}
    play = Play(steps, [1, 2]).done("n--0", "x").fail("a").done("m--0", "a").fail("m--1").recalled("n--1")
    _, left = again.taken_over(play.run)
    assert set(left) == {"n"}
    undone = {"a": task(compensate="u"), "m": mapped("a"), "u": task()}
    play = Play(undone, [1, 2]).done("a").done("m--0").fail("m--1").done("u--0u")
    assert play.failed()
    assert again.taken_over(play.run) == ({}, {})


def test_what_never_began_leaves_what_it_took_over():
    steps = {"a": task(), "m": mapped("a"), "s": {"kind": "workflow", "workflow": "kid"}}
    limit = {"max_runs": 1}
    start = {
        "given": {"a": facts.StepEnd("completed", msgspec.Raw(b"1"))},
        "left": {"m": facts.Left(msgspec.Raw(b'{"0":1}')), "s": facts.Left(run="wbefore")},
    }
    play = Play(steps, [1, 2], start=start, concurrency=limit)
    assert play.cancel().failed("cancelled")
    given, left = again.taken_over(play.run)
    assert (set(given), left) == ({"a"}, start["left"])


def test_of_a_run_below_its_id_is_left():
    steps = {"s": {"kind": "workflow", "workflow": "kid"}, "d": {"kind": "workflow", "workflow": "kid", "detach": True}}
    play = Play(steps).fail("d").recalled("s")
    _, left = again.taken_over(play.run)
    assert left == {"s": facts.Left(run=facts.child_run("w1", "s"))}


def test_random_runs_that_fail_are_done_again_until_they_are_done():
    tries, below = 0, 0
    for seed in range(150):
        made = _program(seed)
        world = World(made, seed, owners=1 + seed % 2, faults=(0.0, 0.1, 0.3)[seed % 3])
        world.run()
        for number in range(5):
            if world.runs[world.root].ended.state == "completed":
                break
            tries += 1
            made = replace(made, seed=seed + 1000 * number, fails=0.15 if number < 3 else 0.0, cancel=False)
            before, world = world, World(made, seed + number, faults=0.1, before=world)
            world.run()
            if not any("compensate" in spec for one in made.workflows.values() for spec in one["steps"].values()):
                assert not _done(before) & _begun(world)
                below += any(stored.where for stored in world.runs.values())
        finish = world.runs[world.root].ended
        verdict = Oracle(replace(made, fails=0.0), made.workflows["main"], made.input, "", world.root).judge()
        assert (finish.state, msgspec.json.decode(bytes(finish.output))) == ("completed", verdict.output)
    assert tries > 100
    assert below > 20


def _done(world: World) -> set[tuple[str, str]]:
    return {
        (stored.where, fact.about)
        for stored in world.runs.values()
        for fact in stored.facts
        if fact.what == "outcome" and fact.body.state == "completed" and fact.body.node != "garbage"
    }


def _begun(world: World) -> set[tuple[str, str]]:
    return {
        (stored.where, effect.token)
        for stored in world.runs.values()
        for name, effect in stored.done.items()
        if name.startswith("do.")
    }


def _program(seed: int) -> Program:
    """Return a program of tasks, maps and runs below, two deep, whose workers fail now and then."""
    chance = random.Random(seed)
    made = Program(seed, {"list": list(range(chance.choice((1, 3, 7))))}, fails=0.2, cancel=chance.random() < 0.2)
    kinds = ["task", "map", "workflow", "sleep"]
    for depth, name in enumerate(("low", "mid", "main")):
        steps: dict[str, Any] = {"u": {"kind": "task", "capability": "work"}} if chance.random() < 0.4 else {}
        handlers = set(steps)
        for number in range(chance.randint(1, 5)):
            spec: dict[str, Any] = {"kind": chance.choice(kinds if depth else kinds[:2])}
            match spec["kind"]:
                case "workflow":
                    spec |= {"workflow": ("low", "mid")[depth - 1], "input": "input"}
                case "map":
                    spec |= {"capability": "work", "items": "input.list", "max_items": 9, "allowed_failures": 0}
                    spec["parallelism"] = chance.choice((1, 2, 100))
                case "sleep":
                    spec["duration"] = 1
                case _:
                    spec["capability"] = "work"
            before = [one for one in steps if one not in handlers]
            spec["depends_on"] = chance.sample(before, min(len(before), chance.choice((0, 1, 1, 2))))
            if handlers and chance.random() < 0.3:
                spec["compensate"] = "u"
            steps[f"s{number}"] = spec
        if not any("compensate" in spec for spec in steps.values()):
            steps.pop("u", None)
        made.workflows[name] = {"name": name, "steps": steps}
    return made

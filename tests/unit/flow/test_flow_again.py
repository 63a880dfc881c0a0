"""A recorded history is held against the rules: they agree with every run there was, and say where they part from another."""

from __future__ import annotations

from tests.unit.flow.play import Play, task
from tests.unit.flow.programs import program
from tests.unit.flow.simulator import GARBAGE, World

from knotwork.flow import again, facts


def test_the_rules_agree_with_every_history_there_was():
    for seed in range(200):
        world = World(program(seed, 8), seed, faults=0.2)
        world.run()
        for stored in world.runs.values():
            odd = {(what, about) for what, about, _ in GARBAGE}
            history = [fact for fact in stored.facts if (fact.what, fact.about) not in odd]
            assert again.difference(stored.id, stored.graph, history) is None


def history(play: Play) -> list[facts.Fact]:
    return [facts.Fact("start", "", play.start, 1, 1), *play.facts]


def test_where_the_rules_part_from_a_history_is_told():
    play = Play({"a": task(), "b": task("a")}).done("a").done("b").fact("ended", "", facts.Finish("completed"))
    other = Play({"a": task(), "b": task("a"), "c": task("b")})
    assert again.difference("w1", play.graph, history(play)) is None
    assert again.difference("w1", other.graph, history(play)) == again.Difference(
        4, "ended", "it goes on: it waits for do.c"
    )
    other = Play({"a": task(), "z": task("a")})
    assert again.difference("w1", other.graph, history(play)) == again.Difference(3, "outcome b", "it waits for do.z")
    other = Play({"a": task(), "b": task("a")}, output_schema={"type": "string"})
    assert again.difference("w1", other.graph, history(play)) == again.Difference(4, "ended", "it ends failed")


def test_an_answer_that_came_too_late_is_no_difference():
    play = (
        Play({"a": {"kind": "approval", "timeout": "1m", "allow_failure": True}, "b": task("a")})
        .fire("wait-a")
        .done("a")
        .done("b")
    )
    assert again.difference("w1", play.graph, history(play)) is None

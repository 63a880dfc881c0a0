"""Plans, budgets, phases, what is put together, what a planner may say, and files: the rules of orchestrations alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.crew import budget, definition, phases, plan, planner, records, rights, sight, synthesis
from knotwork.crew.budget import Spent
from knotwork.crew.files import Files
from knotwork.crew.plan import Part
from knotwork.crew.records import Asker, Budget, Checkpoint, Record, Round, Synthesis
from knotwork.flow.definitions import SIZE_MAX_BYTES, text_of, understood
from knotwork.flow.model import Workflow
from knotwork.sdk.errors import Conflict, Denied, Invalid
from knotwork.trust.who import Who

ID = "o0123456789ab"


def test_a_part_is_told_once_what_its_title_says_already():
    def told(title: str, instructions: str) -> str:
        made = definition.definition(
            record(Part("a", title, instructions, "do")), (Part("a", title, instructions, "do"),), (), 60.0
        )
        return made["steps"]["a"]["prompt"]

    assert ".title" not in told("soup", "soup")
    assert ".title" not in told("soup", "soup\nwith salt")
    assert all(word in told("soup", "with salt") for word in (".title", ".instructions"))
    assert ".title" in told("soup", "")
    assert "YOUR PART: a" in told("", ""), "a plan may give no more than an id"
    assert ".title" not in told("Cook the soup of…", "Cook the soup of the day, with salt")


def part(name: str, *needs: str, **fields) -> Part:
    return Part(name, f"The {name}", f"do {name}", **{"capability": "do", **fields}, needs=needs)


def record(*parts: Part, **fields) -> Record:
    return Record(ID, "the task", Asker("me"), parts=parts or (part("a"), part("b", "a")), **fields)


# -- plans ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], "at least one part"),
        ([part("a"), part("a")], "there twice"),
        ([part("A")], "its id"),
        ([part("../etc")], "its id"),
        ([part("a--b")], "its id"),
        ([part("x" * 33)], "its id"),
        ([part("synthesis")], "its id"),
        ([part("task")], "its id"),
        ([part("a", "b")], "needs 'b', which is no part"),
        ([part("a", "a")], "needs itself"),
        ([part("a"), part("b", "a", "a")], "needs a part twice"),
        ([part("a", "c"), part("b", "a"), part("c", "b")], "wait for each other: a → c → b → a"),
        ([part("a", capability="")], "one of the two"),
        ([part("a", agent="x")], "one of the two"),
        ([part("a", capability="no good")], "is no capability"),
        ([part("a", capability="", agent="x/y/z")], "is no agent"),
        ([part(f"p{n}") for n in range(201)], "201 parts, 200 at most"),
        ([Part(f"p{n}", "", "x" * 30_000, "do") for n in range(20)], "bytes together"),
        ([part(f"p{n}", *[f"p{m}" for m in range(max(0, n - 15), n)]) for n in range(200)], "2000 at most"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_with_the_reason(parts, told):
    with pytest.raises(Invalid) as caught:
        plan.checked(parts)
    assert caught.value.code == "crew.bad_plan"
    assert told in caught.value.message


def test_all_that_is_wrong_is_told_at_once():
    assert len(plan.flaws([part("A"), part("b", "z"), part("c", capability="")])) == 3


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=4)))
def test_a_circle_is_found_when_there_is_one(needs):
    found = plan.cycle(needs)
    if found:
        assert found[0] == found[-1]
        assert all(after in needs.get(before, []) for before, after in itertools.pairwise(found))
    else:
        parts = [part(name, *[one for one in of if one in needs]) for name, of in needs.items()]
        done: set[str] = set()
        for group in plan.groups(parts):
            for name in group:
                assert set(next(one.needs for one in parts if one.id == name)) <= done
            done |= set(group)
        assert done == set(needs)


def test_who_follows_whom():
    parts = [part("a"), part("b", "a"), part("c", "b"), part("d")]
    assert plan.followers(parts, ["a"]) == {"a", "b", "c"}
    assert plan.drawn(parts) == "[a+d] → [b] → [c]"


def test_the_largest_plan_becomes_a_workflow_that_can_be_kept():
    ids = [f"part-{n:03d}-" + "x" * 23 for n in range(plan.PARTS_MAX)]
    parts = [part(name, *ids[max(0, n - 10) : n], acceptance=("it's done", "{{ no }}")) for n, name in enumerate(ids)]
    whole = record(*plan.checked(parts), synthesis=Synthesis("agent", capability="write"))
    for made in (definition.definition(whole, whole.parts, (), 60.0), definition.synthesis(whole, ids, 0.0)):
        workflow = Workflow.model_validate(made)
        assert len(understood(workflow).boxes) in (200, 201)
        assert len(text_of(workflow)) <= SIZE_MAX_BYTES


def test_what_people_write_never_becomes_an_expression():
    evil = part("a", acceptance=("{{ run.id }}", "' || input || '"))
    made = definition.definition(
        record(msgspec.structs.replace(evil, instructions="{{ input }}", title="`x`")), [evil], (), 0
    )
    assert "run.id" not in json.dumps(made["steps"])


# -- budgets -------------------------------------------------------------------------------------------------------------


def test_what_is_inherited_is_never_more_than_what_is_left():
    above = record(budget=Budget(2, 50, 100.0, 1000, 5.0), spawned_ns=0)
    above = msgspec.structs.replace(above, spawned_ns=10**9, phase="execution")
    left = budget.inherited(Budget(8, 200, 0.0, 5000, 0.0), above, Spent(400, 2.0), 41 * 10**9)
    assert left == Budget(1, 50, 60.0, 600, 3.0)
    assert budget.inherited(Budget(0, 1, 5.0, 10, 1.0), above, Spent(), 10**9) == Budget(0, 1, 5.0, 10, 1.0)
    with pytest.raises(Conflict) as spent:
        budget.inherited(Budget(), above, Spent(1000, 0), 10**9)
    with pytest.raises(Conflict) as late:
        budget.inherited(Budget(), above, Spent(), 200 * 10**9)
    with pytest.raises(Denied) as deep:
        budget.inherited(Budget(), record(budget=Budget(depth=0)), Spent(), 0)
    assert [one.value.code for one in (spent, late, deep)] == [
        "crew.budget_spent",
        "crew.budget_spent",
        "crew.too_deep",
    ]


def test_one_below_is_charged_once_however_often():
    above = record(budget=Budget(children=5), rounds=(Round("r", ("a", "b")),))
    once = budget.charged(above, "o1", 3)
    assert budget.charged(once, "o1", 3) == once
    with pytest.raises(Denied) as caught:
        budget.charged(once, "o2", 1)
    assert caught.value.code == "crew.too_many_children"


def test_totals_are_added_over_agents_not_over_reports():
    told = [
        Checkpoint("a", "x", 1, tokens=5),
        Checkpoint("a", "y", 2, tokens=7, cost=0.5),
        Checkpoint("", "x", 3, tokens=1),
    ]
    seen = sight.view(record(part("a")), [], {}, told)
    assert (seen.used, seen.parts["a"].used) == (Spent(13, 0.5), Spent(12, 0.5))
    assert budget.exceeded(Budget(), Spent(10**9, 1e9)) == ""
    assert "13 of 13" in budget.exceeded(Budget(tokens=13), Spent(13))
    assert "0.5 of 0.5" in budget.exceeded(Budget(cost=0.5), Spent(0, 0.5))


# -- phases --------------------------------------------------------------------------------------------------------------


def seen(phase, *states, **fields) -> sight.View:
    parts = {f"p{n}": sight.PartSight(f"p{n}", state) for n, state in enumerate(states)}
    made = record(phase=phase, **{"rounds": (Round("r", ("a",)),), **fields})
    return sight.View(made, phase, parts, None, 0.0, Spent(), {}, set())


def test_phases_go_forward_as_facts_allow():
    running, done = seen("execution", "running", "completed"), seen("collection", "completed", "failed")
    assert phases.move(running, "spawning") == phases.move(running, "execution") == "stay"
    assert phases.move(done, "synthesis") == phases.move(done, "complete") == "go"
    assert phases.move(running, "cancelled") == phases.move(done, "failed") == "stop"
    assert phases.move(seen("complete", "completed"), "collection") == "stay"
    for wanted in ("collection", "synthesis", "complete"):
        with pytest.raises(Conflict) as caught:
            phases.move(running, wanted)
        assert (caught.value.code, caught.value.detail["open"]) == ("crew.bad_phase", ["p0"])
    with pytest.raises(Conflict):
        phases.move(seen("assessment", "planned", rounds=()), "execution")
    with pytest.raises(Conflict) as over:
        phases.move(seen("complete", "completed"), "cancelled")
    assert over.value.code == "crew.over"
    assert "crew retry" in over.value.hint


@pytest.mark.parametrize("phase", ["execution", "failed", "cancelled"])
def test_who_would_retry_what_was_stopped_is_not_told_to_retry(phase):
    found = seen(phase, "failed")
    record = msgspec.structs.replace(found.record, stop=records.Stop("failed" if phase == "failed" else "cancelled"))
    told = phases.over(dataclasses.replace(found, record=record))
    assert ("crew retry" in told.hint, "crew assess" in told.hint) == (False, True)
    assert ("being stopped" in told.message) is (phase == "execution")


# -- putting together ----------------------------------------------------------------------------------------------------


def pieces(*outputs, needs=()) -> list[synthesis.Piece]:
    return [
        synthesis.Piece(part(f"p{n}", *(needs if n == len(outputs) - 1 else ())), output)
        for n, output in enumerate(outputs)
    ]


def test_structures_are_joined_and_contradictions_listed():
    made = synthesis.merged(pieces({"a": {"x": 1, "l": [1, 2]}, "same": 1}, {"a": {"y": 2, "l": [2, 3]}, "same": 1}))
    assert (made.output, made.conflicts) == ({"a": {"x": 1, "l": [1, 2, 3], "y": 2}, "same": 1}, [])
    made = synthesis.merged(pieces({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": {"x": 3}}))
    (found,) = made.conflicts
    assert made.output == {"a": {"x": 1}}
    assert (found.path, found.chosen, [one["value"] for one in found.values]) == ("a.x", "p0", [1, 2, 3])


def test_what_others_add_later_is_not_what_a_part_said():
    """Objects grow when others are joined with them, and in conflicts they grew, too."""
    (found, _) = synthesis.merged(pieces({"a": {"b": 1}}, {"a": [1]}, {"a": {"b": 2, "c": 9}})).conflicts
    assert [one["value"] for one in found.values] == [{"b": 1}, [1]]
    said = pieces({"a": 1}, {"a": {"b": 1}}, {"a": {"c": 2}})
    said[1] = synthesis.Piece(part("p1", "p0"), said[1].output)  # its word stands, and grows
    (found,) = synthesis.merged(said).conflicts
    assert [one["value"] for one in found.values] == [1, {"b": 1}]


def test_who_was_given_the_other_result_has_the_last_word():
    made = synthesis.merged(pieces({"x": 1}, {"x": 2}, needs=("p0",)))
    assert (made.output, made.conflicts[0].chosen) == ({"x": 2}, "p1")
    assert "was given" in made.conflicts[0].why


def test_kinds_that_differ_contradict_and_what_is_no_object_has_its_own_place():
    assert synthesis.merged(pieces({"x": {"y": 1}}, {"x": [1]})).conflicts[0].path == "x"
    assert synthesis.merged(pieces({"x": 1}, {"x": True})).conflicts
    assert not synthesis.merged(pieces({"x": 1}, {"x": 1.0})).conflicts
    assert synthesis.merged(pieces("text", [1], None, 3)).output == {"p0": "text", "p1": [1], "p2": None, "p3": 3}
    assert synthesis.merged(pieces('{"a": 1}', '```json\n{"b": 2}\n```', "{no json")).output == {
        "a": 1, "b": 2, "p2": "{no json",
    }  # fmt: skip
    assert synthesis.merged([]).output == {}


def test_long_lists_are_joined_without_repetitions_in_time():
    count, began_s = 40_000, time.process_time()
    rows = [[{"id": number, "of": of} for number in range(count)] for of in ("a", "b")]
    same = [{"of": "a", "id": 7}, {"id": count, "of": "a"}]
    made = synthesis.merged(pieces(*({"rows": one} for one in (*rows, same)))).output["rows"]
    assert made == [*rows[0], *rows[1], {"id": count, "of": "a"}]
    assert time.process_time() - began_s < 30  # each compared with each would take minutes


def test_what_is_nested_too_deep_is_joined_as_far_as_that_goes():
    deep: dict = {}
    at = deep
    for _ in range(500):
        at["d"] = {}
        at = at["d"]
    other = json.loads(json.dumps(deep))
    at["end"] = 1
    assert len(synthesis.merged(pieces(other, deep)).conflicts) == 1


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=3)), max_size=4
    )
)
def test_every_value_stands_or_is_in_a_conflict(outputs):
    made = synthesis.merged(pieces(*outputs))
    for n, output in enumerate(outputs):
        for key, value in output.items():
            told = [one["value"] for one in made.conflicts for one in one.values] if made.conflicts else []
            here = made.output[key]
            stands = here == value or (
                isinstance(value, list) and isinstance(here, list) and all(x in here for x in value)
            )
            assert stands or value in told, (n, key)


def test_texts_stand_under_their_titles_in_the_order_of_the_plan():
    text = synthesis.concatenated(pieces(" one ", {"result": "two"}, {"n": 1}, None))
    assert text.startswith("## The p0\n\none\n\n## The p1\n\ntwo\n\n## The p2\n\n```json\n{")
    assert text.endswith("## The p3\n\n(nothing)\n")


# -- a planner's answer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        None, 7, "no", [], {}, {"parts": {}}, {"parts": [1]}, {"parts": [{}]}, {"parts": [{"id": 3}]},
        {"parts": [{"id": "a", "evil": 1}]}, {"parts": [{"id": "a", "capability": "magic"}]},
        {"parts": [{"id": "a", "agent": "root"}]}, {"parts": [{"id": "a", "needs": ["a"]}]},
        {"parts": [{"id": "../a"}]}, {"parts": [{"id": f"p{n}"} for n in range(11)]},
        {"parts": [{"id": "a", "timeout_s": -1}]}, {"parts": [{"id": "a", "instructions": "x" * 40_000}]},
    ],
)  # fmt: skip
def test_a_planner_that_gives_no_good_plan_is_refused_whole(answer):
    with pytest.raises(Invalid) as caught:
        planner.read(answer, {"do"}, "general", 10)
    assert caught.value.code == "crew.bad_plan"


def test_a_planner_may_answer_as_agents_do():
    wanted = [{"id": "a", "capability": "do"}, {"id": "b", "needs": ["a"]}]
    for answer in (
        wanted,
        {"parts": wanted},
        json.dumps(wanted),
        {"text": f"```json\n{json.dumps({'parts': wanted})}\n```"},
        {
            "text": f"Here it is:\n```json\n{json.dumps({'parts': wanted}, indent=1)}\n```\nTell me if it should be finer."
        },
    ):
        made = planner.read(answer, {"do"}, "general", 10)
        assert [(one.id, one.capability, one.needs) for one in made] == [("a", "do", ()), ("b", "general", ("a",))]


# -- records and files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "w0123456789", "o", "o/../..", "O0123456789", "o" + "a" * 60, "o0123456789\n"])
def test_what_is_no_id_of_an_orchestration_is_refused(text):
    with pytest.raises(Invalid) as caught:
        records.check_id(text)
    assert caught.value.code == "crew.bad_id"


def test_a_record_is_read_back_as_it_was_written():
    made = record(rounds=(Round("r", ("a",)),), notes=(records.Note(1, "x", "y"),), subs={"o1": 2}, held="budget")
    assert records.record(records.encode(made)) == made
    for broken in (b"", b"{}", b'{"id": 3}', b"[" * 100_000, b"\xff"):
        with pytest.raises(Invalid):
            records.record(broken)
        assert records.checkpoint(broken) is None
        assert records.result(broken) is None
    for n in range(records.NOTES_MAX + 5):
        made = records.with_note(made, records.Note(n))
    assert len(made.notes) == records.NOTES_MAX


@pytest.mark.parametrize(
    ("title", "instructions", "text"),
    [
        ("Write tests", "Write tests", "# Write tests\n"),
        ("Write tests", "# Write tests.\n\nFor the parser.", "# Write tests.\n\nFor the parser.\n"),
        ("t" * 256, "t" * 300, "# " + "t" * 300 + "\n"),
        ("Tests", "Write tests", "# Tests\n\nWrite tests\n"),
        ("", "Write tests", "# a\n\nWrite tests\n"),
        ("Write tests", "", "# Write tests\n"),
    ],
)
def test_what_a_part_is_about_is_written_once(tmp_path, title, instructions, text):
    Files(tmp_path).spawned(record(Part("a", title, instructions)))
    assert (tmp_path / ID / "a" / "context.md").read_text() == text


def test_files_stay_in_their_folder_and_follow_no_link(tmp_path):
    files = Files(tmp_path / "crew")
    whole = record()
    files.spawned(whole)
    folder = tmp_path / "crew" / ID
    assert files.places(whole)["a"] == str(folder / "a" / "workspace")
    assert "do b" in (folder / "b" / "context.md").read_text()
    assert not files.is_written(whole)
    files.result(whole, "a", "text")
    files.result(whole, "b", {"n": 1})
    files.ended(whole, "all")
    assert files.is_written(whole)
    (folder / "state.json").write_bytes(b"\xff")  # whoever works there may write what he likes
    assert not files.is_written(whole)
    assert (folder / "a" / "result.md").read_text() == "text"
    assert (folder / "result.md").read_text() == "all"
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (folder / "a" / "result.md").unlink()
    (folder / "a" / "result.md").symlink_to(outside)
    with pytest.raises(OSError, match=r"\w"):
        files.result(whole, "a", "evil")
    assert outside.read_text() == "mine"
    (tmp_path / "there").mkdir()
    os.rename(folder / "b", tmp_path / "there" / "b")  # noqa: PTH104
    (folder / "b").symlink_to(tmp_path / "there")
    with pytest.raises(OSError, match="no folder"):
        files.result(whole, "b", 1)
    for bad in ("../x", "/etc", "a/b"):
        with pytest.raises(Invalid):
            files.result(whole, bad, 1)


@pytest.mark.parametrize(
    ("scope", "seen_by"),
    [("private", {"me", "child"}), ("personal", {"me", "sister"}), ("team", {"me", "child", "sister", "other"})],
)
def test_an_orchestration_is_seen_as_its_scope_says(scope: str, seen_by: set[str]):
    one = Record(ID, "the task", Asker("a", "me", "ann"), parts=(part("a"),), scope=scope, spawner=Asker("p"))  # type: ignore[arg-type]
    known = [
        Who("a", "me", "shop", "ann"), Who("c", "child", "shop", "eve", parent="a"), Who("s", "sister", "shop", "ann"),
        Who("o", "other", "shop", "bob"),
    ]  # fmt: skip
    assert {who.name for who in known if rights.may_look(one, who)} == seen_by
    assert rights.may_look(one, Who("p", "spawner", "shop", "bob"))

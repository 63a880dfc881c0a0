"""Requests about tasks: what is taken, what is refused, and that everything wrong is said at once."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from knotwork.ops import serve, table, task_words, tasks
from knotwork.sdk.errors import Invalid

NOW_NS = 1_700_000_000 * 10**9


def check(name: str, **fields):
    return serve.check(table.TABLE[name], fields)


def problems(name: str, **fields) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        check(name, **fields)
    return {problem["field"]: problem["message"] for problem in caught.value.detail["problems"]}


@pytest.mark.parametrize(
    ("text", "away_s"),
    [("90", 90), ("1.5", 1.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), (" 10s ", 10)],
)
def test_a_duration_counts_from_now(text, away_s):
    assert task_words.moment_ns(text, past=False, now_ns=NOW_NS) == NOW_NS + int(away_s * 1e9)
    assert task_words.moment_ns(text, past=True, now_ns=NOW_NS) == NOW_NS - int(away_s * 1e9)


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20+00:00", "2023-11-14T23:13:20+01:00", "2023-11-14 22:13:20"]
)
def test_a_time_is_that_time(text):
    assert task_words.moment_ns(text, past=False) == NOW_NS


@pytest.mark.parametrize("text", ["tomorrow", "5 minutes", "-5m", "m", "2023-13-01T00:00:00Z"])
def test_anything_else_is_neither(text):
    with pytest.raises(ValueError, match="neither"):
        task_words.moment_ns(text, past=False)


def test_a_deadline_makes_sense():
    assert check("task.submit", target="a", deadline=90).deadline == "90"
    assert check("task.submit", target="a", deadline="1h").deadline == "1h"
    assert "over already" in problems("task.submit", target="a", deadline="0s")["deadline"]
    assert "over already" in problems("task.submit", target="a", deadline="2001-01-01T00:00:00Z")["deadline"]
    assert "ten years" in problems("task.submit", target="a", deadline="4000d")["deadline"]
    assert task_words.moment_ns("", past=False) == 0
    assert task_words.moment_ns("1s", past=False) > time.time_ns()


def test_exactly_one_of_target_and_capability():
    assert check("task.submit", target="node/agent").capability is None
    assert check("task.submit", capability="do").target is None
    for fields in ({}, {"target": "a", "capability": "b"}):
        assert problems("task.submit", **fields) == {"capability": "give either target or capability"}
    assert problems("task.submit", target="Not A Name").keys() == {"target"}


@pytest.mark.parametrize("op", ["task.cancel", "run.cancel", "run.retry"])
def test_ids_and_a_filter_are_not_taken_for_ids_alone(op):
    """Whoever says `--state pending` beside an id does not want it ended when it runs."""
    run = {"task.cancel": "t0123456789abcdef"}.get(op, "w0123456789abcdef")
    assert check(op, ids=[run]).ids == [run]
    assert check(op, ids=[run], labels=[], state=[]).ids == [run]
    (told,) = problems(op, ids=[run], state=["running"], labels=["team=red"]).values()
    assert told == "give either ids or a filter, not both: ids and state, labels"


@pytest.mark.parametrize("op", ["get", "await", "watch", "history", "why", "retry", "cancel"])
def test_the_id_of_a_run_is_not_that_of_a_task(op):
    """Whoever awaits a run by mistake would be told what came of one of its steps, and that it is over."""
    run, key = "w01a204675e52ce954d647d", "ids" if op == "cancel" else "id"
    (told,) = problems(f"task.{op}", **{key: [run] if op == "cancel" else run}).values()
    assert told == "not the id of a task"
    assert check("task.dead_show", id=run).id == run, "a step that died is a dead letter of its run"


def test_a_checkpoint_is_kept_or_read_and_not_wiped_by_saying_neither():
    claim = "kc1.gsR0aGU.c2VhbA"
    assert check("work.checkpoint", claim=claim, data=None).data is None
    assert check("work.checkpoint", claim=claim, read=True).read
    for fields in ({}, {"read": True, "data": 1}):
        (told,) = problems("work.checkpoint", claim=claim, **fields).values()
        assert told.startswith("give ")


def test_one_input():
    digest = "sha256-" + "0" * 64
    assert check("task.submit", target="a", blob=digest).blob == digest
    assert problems("task.submit", target="a", blob=digest, input=1) == {"blob": "give either input or blob"}
    assert problems("task.submit", target="a", blob="md5-0") == {"blob": "not a digest"}


def test_labels_come_as_pairs_or_as_an_object():
    for labels in (["team=red", "n=1=2"], {"team": "red", "n": "1=2"}):
        assert task_words.labels(check("task.submit", target="a", labels=labels).labels) == {"team": "red", "n": "1=2"}
    assert problems("task.submit", target="a", labels=["team"]) == {"labels.0": "not a label"}
    assert problems("task.submit", target="a", labels={"a b": "c"}) == {"labels.0": "not a label"}
    assert problems("task.submit", target="a", labels={"a=b": "c"}) == {
        "labels": "the name of a label holds no =: 'a=b'"
    }
    assert "labels" in problems("task.submit", target="a", labels={f"k{number}": "v" for number in range(65)})


def test_everything_wrong_is_said_at_once():
    wrong = problems(
        "task.submit", target="A", priority=0, deadline="soon", attempt_timeout_s=0, max_attempts=1001, backoff="odd",
        retry_delay_s=-1, retry_max_delay_s=-1, multiplier=0, retry_on=["a b"], max_crashes=0, key="\n", labels=["x"],
        parent="X", boundary="B B", timeout_s=-1, extra=1,
    )  # fmt: skip
    assert wrong.keys() == {
        "target", "priority", "deadline", "attempt_timeout_s", "max_attempts", "backoff", "retry_delay_s",
        "retry_max_delay_s", "multiplier", "retry_on.0", "max_crashes", "key", "labels.0", "parent", "boundary",
        "timeout_s", "extra",
    }  # fmt: skip
    assert wrong["parent"] == "not the id of a task"
    assert wrong["target"] == "not a valid name"


def test_a_batch_must_say_what_it_means():
    assert check("task.cancel", all=True).wanted().empty
    assert not check("task.cancel", state=["pending"]).wanted().empty
    assert "state.0" in problems("task.cancel", state=["sleeping"])
    with pytest.raises(Invalid) as caught:
        check("task.redrive", dry_run=True).meant()
    assert caught.value.code == "work.filter_needed"
    assert check("task.redrive", all=True).meant().limit == 100_000
    assert check("task.drop", code="work.poison").meant().code == "work.poison"


def test_a_filter_is_what_was_asked_for():
    wanted = check("task.list", state=["dead"], agent="a", labels=["k=v"], since="1h", text="word").wanted(text="word")
    assert (wanted.states, wanted.agent, wanted.labels, wanted.text) == ({"dead"}, "a", {("k", "v")}, "word")
    assert 0 < time.time_ns() - wanted.since_ns - 3600 * 10**9 < 60 * 10**9
    assert wanted.until_ns == 0


@pytest.mark.parametrize(
    ("asked", "longest_s"),
    [({}, 300.0), ({"retry_delay_s": 3600}, 3600.0), ({"retry_delay_s": 3600, "retry_max_delay_s": 60}, 60.0)],
)
async def test_a_pause_that_was_asked_for_is_not_cut_short_by_a_default(asked, longest_s):
    heard = []

    async def submit(wanted, _caller):
        heard.append(wanted.retry)
        return SimpleNamespace(id="t0", state="pending")

    node = SimpleNamespace(tasks=lambda *_: SimpleNamespace(submit=submit))
    await tasks.submit(check("task.submit", target="a", **asked), node, SimpleNamespace(project="p", who=None))
    assert heard[0].max_delay_s == longest_s

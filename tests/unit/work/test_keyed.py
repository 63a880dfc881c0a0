"""When are two submissions the same work? Whoever makes them, however they are written, and wherever they are placed."""

from __future__ import annotations

import msgspec
import pytest

from knotwork.sdk.errors import Conflict
from knotwork.work import keyed, records

TASK = records.Task(
    run=keyed.keyed_run("k"), queue="do", capability="do", key="k", input=msgspec.Raw(b'{"a": 1, "b": [2]}'),
    submitted_ns=1, labels={"team": "red", "area": "north"}, retry=records.Retry(on=("net.away", "net.slow")),
)  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"input": msgspec.Raw(b'{"b":[2],"a":1}')}, {"submitted_ns": 2}, {"queue": "other"}, {"by": "cli/me"},
        {"why": "sticky"}, {"deadline_ns": 5}, {"traceparent": "00-1"}, {"asked": "abc"},
        {"labels": {"area": "north", "team": "red"}}, {"retry": records.Retry(on=("net.slow", "net.away"))},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_the_same_work(fields):
    assert keyed.asked(msgspec.structs.replace(TASK, **fields)) == keyed.asked(TASK)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": msgspec.Raw(b'{"a": 1, "b": [3]}')}, {"priority": 9}, {"labels": {}}, {"labels": {"team": "north", "area": "red"}}, {"capability": "other"},
        {"boundary": "corporate"}, {"timeout_s": 5.0}, {"retry": records.Retry(max_attempts=2)}, {"blob": "sha"},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_other_work(fields):
    other = msgspec.structs.replace(TASK, **fields)
    other = msgspec.structs.replace(other, asked=keyed.asked(other))
    with pytest.raises(Conflict):
        keyed.check_same(keyed.asked(TASK), other)


def test_what_is_not_known_any_more_is_not_compared():
    keyed.check_same("", TASK)


def test_what_was_asked_is_kept_when_the_input_is_not():
    task = msgspec.structs.replace(TASK, input=msgspec.Raw(b'"' + b"x" * 10_000 + b'"'))
    task = msgspec.structs.replace(task, asked=keyed.asked(task))
    spared = records.spare(records.decode_task(records.encode(task)))
    assert spared.spared
    keyed.check_same(spared.asked, task)

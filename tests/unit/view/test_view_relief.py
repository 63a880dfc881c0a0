"""What an outcome is without its large input: everything else, as it was."""

from __future__ import annotations

import json

import msgspec
import pytest

from knotwork.view import relief
from knotwork.work import records

BIG = msgspec.Raw(json.dumps({"fill": "x" * relief.SPARED_BYTES}).encode())


def outcome(value: msgspec.Raw) -> records.Outcome:
    task = records.Task("t0198c0ffee00d15ea5e0ddba11", "do", capability="do", input=value, labels={"a": "b"}, number=2)
    return records.Outcome("completed", records.raw(task), output=BIG, node="n", agent="a", started_ns=1, ended_ns=2)


def test_a_large_input_is_left_out_and_says_so():
    assert relief.SPARED_BYTES == records.SPARED_BYTES
    before = outcome(BIG)
    after = records.decode_outcome(relief.lean(records.encode(before)))
    task, kept = records.decode_task(bytes(before.task)), records.decode_task(bytes(after.task))
    assert (bytes(kept.input), kept.spared) == (b"null", True)
    whole = msgspec.structs.replace(kept, input=task.input, spared=False)
    assert records.encode(whole) == records.encode(task)
    assert records.encode(msgspec.structs.replace(after, task=before.task)) == records.encode(before)
    assert records.encode(records.spared_end(before)) == records.encode(after)
    assert relief.lean(records.encode(after)) == records.encode(after)


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"null", b"x" * 9000, b'{"task":1}' + b" " * 9000, records.encode(outcome(msgspec.Raw(b"1")))]
)
def test_what_has_no_large_input_stays_as_it_is(data):
    assert relief.lean(data) == data


@pytest.mark.parametrize("state", ["waiting", "continued", "dead"])
def test_what_another_attempt_needs_is_kept(state):
    before = msgspec.structs.replace(outcome(BIG), state=state)
    assert records.spared_end(before) is before

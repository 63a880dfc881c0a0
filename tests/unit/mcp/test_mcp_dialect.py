"""Lines of the protocol: read whole, refused with what is wrong, answered as their revision writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.mcp import answers, dialect, tasks
from knotwork.mcp.dialect import Asked, Refusal

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
}  # fmt: skip
SERVER = {"name": "knotwork", "version": "0"}


def line(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **fields}).encode()


def test_a_request_of_each_revision_is_read():
    old = dialect.read(line(id=1, method="tools/list"))
    new = dialect.read(line(id="a", method="tools/list", params={"_meta": ENVELOPE}))
    assert old is not None
    assert new is not None
    assert (old.id, old.modern, new.id, new.modern) == (1, False, "a", True)
    assert "resultType" not in dialect.result(old, {"tools": []}, SERVER)["result"]
    told = dialect.result(new, dialect.listed(new, {"tools": []}, ttl_ms=5), SERVER)["result"]
    assert (told["resultType"], told["ttlMs"], told["cacheScope"]) == ("complete", 5, "private")
    assert told["_meta"]["io.modelcontextprotocol/serverInfo"] == SERVER


def test_what_needs_no_answer_gets_none():
    assert dialect.read(line(id=1, result={})) is None
    assert dialect.read(line(id=1, error={"code": 1, "message": "x"})) is None
    told = dialect.read(line(method="notifications/cancelled", params={"requestId": 1}))
    assert told is not None
    assert told.id is None


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", -32700), (b"\xff", -32700), (b"[" * 100_000, -32700), (b"[]", -32600), (b"7", -32600), (b"null", -32600),
        (line(id=1), -32600), (line(id=True, method="x"), -32600), (line(id=None, method="x"), -32600),
        (line(id=1.5, method="x"), -32600), (line(id="x" * 257, method="x"), -32600), (line(id=1, method=7), -32600),
        (json.dumps({"jsonrpc": "1.0", "id": 1, "method": "x"}).encode(), -32600),
        (line(id=1, method="x", params=[1]), -32602),
        (line(id=1, method="x", params={"_meta": {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "1999"}}), -32022),
        (line(id=1, method="x", params={"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}), -32602),
        (line(id=1, method="x", params={"_meta": {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": 7}}), -32602),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(raw: bytes, code: int):
    with pytest.raises(Refusal) as refused:
        dialect.read(raw)
    assert refused.value.code == code
    json.loads(dialect.write(dialect.refusal(refused.value)))


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params", "_meta"]), inner),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_comes_is_read_or_refused(raw: bytes):
    try:
        found = dialect.read(raw)
    except Refusal as refusal:
        json.loads(dialect.write(dialect.refusal(refusal)))
    else:
        assert found is None or isinstance(found.method, str)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [("2025-11-25", "2025-11-25"), ("2024-11-05", "2024-11-05"), ("2026-07-28", "2025-11-25"), (7, "2025-11-25")],
)
def test_the_revision_of_a_handshake_is_agreed_on(wanted: Any, got: str):
    assert dialect.agreed(Asked("initialize", {"protocolVersion": wanted}, 1)) == got


@given(st.text())
def test_any_text_is_written_as_one_line(text: str):
    written = dialect.write({"text": text})
    assert written.endswith(b"\n")
    assert b"\n" not in written[:-1]
    json.loads(written)


def test_half_a_character_is_written_somehow():
    assert json.loads(dialect.write({"text": "a\ud800b"})) == {"text": "a?b"}


def test_work_looks_like_a_task_of_the_extension():
    made = tasks.handle({"work_id": "t1", "status": "pending", "submitted_at": "2026-11-22T10:00:00.000Z"})
    assert (made["resultType"], made["taskId"], made["status"], made["ttlMs"]) == ("task", "t1", "working", None)
    assert made["createdAt"] == made["lastUpdatedAt"] == "2026-11-22T10:00:00.000Z"
    running = tasks.state("t1", {"status": "running", "is_complete": False}, {})
    failed = tasks.state("t1", {"status": "failed", "is_complete": True}, {"isError": False})
    gone = tasks.state("t1", {"status": "cancelled", "is_complete": True}, {})
    assert (running["status"], failed["status"], failed["result"], gone["status"]) == (
        "working", "completed", {"isError": False}, "cancelled",
    )  # fmt: skip
    assert "result" not in running


@pytest.mark.parametrize("told", ["", 7, None, [], "00-zz", f"00-{'0' * 32}-00f067aa0ba902b7-01", "x" * 5000])
def test_a_trace_is_what_it_should_be_or_none(told: Any):
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for said, found in ((told, ""), (good, good)):
        asked = dialect.read(line(id=1, method="tools/call", params={"_meta": {"traceparent": said}}))
        assert asked is not None
        assert answers.trace_of(asked) == found

"""Lines over descriptors, labels of sessions, and what is kept for an agent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.mcp import dialect, labels
from knotwork.mcp.held import Held
from knotwork.mcp.keeping import Keeping
from knotwork.mcp.lines import Lines, Splitter, TooLong
from knotwork.sdk.errors import Conflict, Invalid, Unavailable

WAIT_S = 30.0


@given(st.lists(st.binary(max_size=40).filter(lambda one: b"\n" not in one), max_size=8), st.integers(1, 9))
def test_lines_are_the_same_however_they_come(lines: list[bytes], size: int):
    whole = b"\n".join(lines)
    splitter, found = Splitter(20), list[bytes | TooLong]()
    for start in range(0, len(whole), size):
        found += splitter.feed(whole[start : start + size])
    last = splitter.last()
    found += [last] if last is not None and (isinstance(last, TooLong) or last.strip()) else []
    found = [TooLong(one.begin[:20], one.end) if isinstance(one, TooLong) else one for one in found]
    told = [TooLong(one[:20], one) if len(one) > 20 else one for one in lines if len(one) > 20 or one.strip()]
    assert found == told


@pytest.mark.parametrize(
    ("begin", "end", "number"),
    [
        (b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"a": "', b'"id":8}}', 7),
        (b'{"method":"tools/call","id":"x-1","params":', b"", "x-1"),
        (b'{"method":"tools/call","params":{"id":1', b'aaa"}},"jsonrpc":"2.0","id":9}', 9),
        (b'{"params":{"id":1', b'aaa"}},"id":9,"jsonrpc":"2.0"}\r', 9),
        (b'{"params":{"id":1', b'aaa","id":9}}', None),
        (b'{"params":{"id":1', b'aaa,"id":9}"}', None),
        (b'{"params":{"id":1', b'aaa\\",\\"id\\":\\"9"}', None),
        (b'{"id":99999999999999999999,', b"", None),
    ],
)
def test_the_id_of_a_line_that_is_not_read_is_found_at_its_ends(begin: bytes, end: bytes, number: int | str | None):
    assert dialect.id_of(begin, end) == number


def test_what_is_nested_too_deeply_is_told_so_to_its_request():
    with pytest.raises(dialect.Refusal, match="nested too deeply") as refused:
        dialect.read(b'{"jsonrpc":"2.0","id":5,"method":"x","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert refused.value.request_id == 5


async def test_what_is_written_arrives_in_order_and_an_end_is_told():
    read_fd, to_us = os.pipe()
    from_us, write_fd = os.pipe()
    lines, got, over = Lines(read_fd, write_fd), list[bytes | TooLong](), asyncio.Event()
    lines.start(got.append, over.set)
    os.write(to_us, b"one\n\n  \ntwo\nthree")
    os.close(to_us)
    async with asyncio.timeout(WAIT_S):
        await over.wait()
    assert got == [b"one", b"two", b"three"]
    assert all(lines.send(f"{number}\n".encode()) for number in range(1000))
    lines.close()
    os.close(write_fd)
    with os.fdopen(from_us, "rb") as reader:
        assert reader.read() == b"".join(f"{number}\n".encode() for number in range(1000))
    os.close(read_fd)


async def test_a_reader_that_is_gone_is_noticed():
    read_fd, to_us = os.pipe()
    from_us, write_fd = os.pipe()
    lines, over = Lines(read_fd, write_fd), asyncio.Event()
    lines.start(lambda _: None, over.set)
    os.close(from_us)
    assert lines.send(b"x\n")
    async with asyncio.timeout(WAIT_S):
        await over.wait()  # told at once, not when there is something more to say
    assert not lines.send(b"x\n")
    os.close(to_us)
    lines.close()
    os.close(write_fd)


def test_each_session_of_a_folder_has_a_label_of_its_own(tmp_path: Path):
    with labels.held(tmp_path, "/a", "") as one, labels.held(tmp_path, "/a", "") as two:
        assert (one, two) == ("1", "2")
        with labels.held(tmp_path, "/b", "") as other, labels.held(tmp_path, "/a", "parent") as child:
            assert (other, child) == ("1", "1")
    with labels.held(tmp_path, "/a", "") as again:
        assert again == "1"
    with labels.held(tmp_path, "/a", "", "me") as mine, labels.held(tmp_path, "/a", "", "me") as also:
        assert (mine, also) == ("me", "me-2")


def test_sessions_of_one_folder_through_two_data_folders_have_labels_of_their_own_and_keep_them(tmp_path: Path):
    first, second, beside = tmp_path / "a", tmp_path / "b", tmp_path / "user"
    with (
        labels.held(first, "/x", "", beside=beside) as one,
        labels.held(second, "/x", "", beside=beside) as two,
        labels.held(first, "/x", "", beside=beside) as three,
    ):
        assert (one, two, three) == ("1", "2", "3")
        with labels.held(first, "/x", "", "me", beside) as me, labels.held(second, "/x", "", "me", beside) as also:
            assert (me, also) == ("me", "me-2")
    with labels.held(second, "/x", "", beside=beside) as two, labels.held(first, "/x", "", beside=beside) as one:
        assert (one, two) == ("1", "2")
    with labels.held(second, "/x", "", "me", beside) as me:  # who names its label is that one, from wherever
        assert me == "me"


def test_a_home_that_cannot_be_written_keeps_nobody_out(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with labels.held(tmp_path / "a", "/x", "", beside=tmp_path / "file" / "sessions") as one:
        assert one == "1"


@pytest.mark.parametrize("label", ["A", "a b", "", "-a", "a" * 49, "../x", "ä"])
def test_a_bad_label_is_refused(tmp_path: Path, label: str):
    if not label:
        assert labels.token_of("  ") == ""
        return
    with pytest.raises(Invalid), labels.held(tmp_path, "/a", "", label):
        pass
    assert labels.token_of("Claude Code (beta)") == "claude-code-beta"


def test_the_label_of_one_that_was_killed_is_free_at_once(tmp_path: Path):
    code = (
        "import sys, pathlib; from knotwork.mcp import labels\n"
        "with labels.held(pathlib.Path(sys.argv[1]), '/a', ''): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with labels.held(tmp_path, "/a", "") as second:
        assert second == "2"
    process.kill()
    process.communicate()
    with labels.held(tmp_path, "/a", "") as first:
        assert first == "1"


async def test_leases_are_extended_until_they_are_lost():
    said: list[str] = []
    again = asyncio.Event()

    async def extend(work_id: str, claim: str, lease_s: float) -> None:
        said.append(work_id)
        if work_id == "lost":
            raise Conflict("gone", code="claim.expired")
        if said.count("away") == 1 and work_id == "away":
            raise Unavailable("away")
        if said.count("kept") >= 3 and said.count("away") >= 2:
            again.set()

    keeping = Keeping(extend)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(keeping.run())
        for work_id in ("kept", "lost", "away"):
            keeping.took(work_id, f"claim of {work_id}", 0.06)
        await again.wait()
        running.cancel()
    assert keeping.all() == [("kept", "claim of kept"), ("away", "claim of away")]
    assert said.count("lost") == 1
    keeping.heard("complete_work", {"work_id": "kept"}, {"status": "completed"})
    assert await keeping.claim_of("kept", stand("kept")) == ""


def stand(*claims: str) -> Any:
    """Return a node at which these claims stand, and no others."""

    async def ask(op: str, **fields: Any) -> dict[str, Any]:
        assert (op, fields["read"]) == ("work.checkpoint", True)
        if fields["claim"] not in claims:
            raise Conflict("gone", code="claim.expired")
        return {}

    return ask


async def test_every_part_of_a_run_is_kept_by_itself():
    async def extend(*_: Any) -> None:
        raise AssertionError

    keeping = Keeping(extend)
    for step in ("a", "b", "c"):
        told = {"claimed": True, "work_id": "w1", "step": step, "claim": f"claim-{step}", "lease_secs": 60}
        keeping.heard("claim_work", {}, told)
    with pytest.raises(Invalid) as raised:
        await keeping.claim_of("w1", stand("claim-a", "claim-b", "claim-c"))
    assert "claim-a" in raised.value.message
    assert "claim-b" in raised.value.message
    keeping.heard("complete_work", {"work_id": "w1", "claim": "claim-a"}, {"status": "completed"})
    keeping.lost({"event": "lost", "id": "w1", "step": "c", "why": "expired"})
    assert keeping.all() == [("w1", "claim-b")]
    assert await keeping.claim_of("w1", stand()) == "claim-b"  # the only one is judged by the op that is shown it
    keeping.took("w1", "claim-d", 60, "d")
    assert await keeping.claim_of("w1", stand("claim-d")) == "claim-d"  # b was lost without a word
    assert keeping.all() == [("w1", "claim-d")]


def test_who_holds_several_parts_of_a_run_says_which_one_is_meant(monkeypatch):
    held = Held()
    held.add("ann", "w1", "claim-a", "a")
    assert held.get("ann", "w1") == "claim-a"
    held.add("ann", "w1", "claim-b", "b")
    with pytest.raises(Invalid) as raised:
        held.get("ann", "w1")
    assert (raised.value.code, "claim" in raised.value.hint) == ("tool.several_claims", True)
    assert "- a: claim-a\n- b: claim-b" in raised.value.message
    assert held.get("bob", "w1") == ""
    held.add("ann", "w1", "claim-a2", "a")  # it was taken from her, and claimed again
    held.drop("ann", "w1", "claim-a")
    held.drop("ann", "w1", "claim-b")
    assert held.get("ann", "w1") == "claim-a2"
    held.drop("ann", "w1")
    assert held.get("ann", "w1") == ""
    monkeypatch.setattr("knotwork.mcp.held.HELD_MAX", 2)
    for step in ("a", "b", "c"):
        held.add("ann", "w2", f"claim-{step}", step)
    held.drop("ann", "w2", "claim-c")
    assert held.get("ann", "w2") == "claim-b"

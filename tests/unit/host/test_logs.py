"""What nobody reads is counted, and what was said before the end is written."""

from __future__ import annotations

import logging
import os
import threading

from knotwork.host import logs


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, __file__, 1, text, None, None)


def test_what_waits_has_a_limit_and_what_is_lost_is_told(monkeypatch):
    monkeypatch.setattr(logs, "WAITING_MAX", 50)
    monkeypatch.setattr(logs, "FLUSH_S", 0.0)
    out, into = os.pipe()
    lines = logs.Lines(into)
    long = "x" * 100_000  # more than a pipe takes: the thread stands
    lines.emit(record(f"0 {long}"))
    read = [os.read(out, 1)]  # it stands from now on
    for number in range(1, 200):
        lines.emit(record(f"{number} {long}"))
    lines.flush()
    ended = threading.Event()

    def all_of_it() -> None:
        while b" were lost" not in b"".join(read[-2:]):
            read.append(os.read(out, 1 << 20))
        ended.set()

    threading.Thread(target=all_of_it, daemon=True).start()
    assert ended.wait(30)
    told = b"".join(read).decode().splitlines()
    written = [line for line in told if line.endswith("x")]
    assert [int(line.split()[0]) for line in written] == list(range(len(written)))
    assert len(written) == 1 + logs.WAITING_MAX
    assert told[-1] == f"{200 - len(written)} lines of the log were lost: nobody read it"


def test_flush_waits_until_all_is_written():
    out, into = os.pipe()
    lines = logs.Lines(into)
    for number in range(100):
        lines.emit(record(str(number)))
    lines.flush()
    assert os.read(out, 1 << 16).decode().split() == [str(number) for number in range(100)]


def test_a_line_that_cannot_be_written_as_utf8_is_written_all_the_same():
    out, into = os.pipe()
    lines = logs.Lines(into)
    lines.emit(record("a lone \ud800"))
    lines.flush()
    assert os.read(out, 100) == b"a lone \\ud800\n"

"""Secrets: read late, never written."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import select
import sys
import time
from pathlib import Path

import pytest
from pydantic import Field

from knotwork.config import secrets
from knotwork.sdk import Invalid, PluginConfig, SecretRef, Unavailable

CANARY = 'canary-7f3a"q/ü'


def test_a_variable_a_file_and_a_command(tmp_path):
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbffile-secret\r\nsecond line\n")
    assert secrets.resolve(SecretRef(env="A"), env={"A": "env-secret"}) == "env-secret"
    assert secrets.resolve({"file": "token"}, folder=tmp_path) == "file-secret"
    assert secrets.resolve(SecretRef(file=str(tmp_path / "token"))) == "file-secret"
    command = (sys.executable, "-c", "import os; print(os.environ.get('K', 'none') + '-secret'); print('more')")
    assert (
        secrets.resolve(SecretRef(cmd=command), child_env=lambda extra: {**os.environ, **extra, "K": "cmd"})
        == "cmd-secret"
    )


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"env": "KN_GONE"}, "KN_GONE holds no secret"),
        ({"file": "/nowhere/at/all"}, "no such file"),
        ({"file": "/"}, "cannot be read"),
        ({"cmd": ["/nowhere/program"]}, "cannot be started"),
        ({"cmd": ["a\0b"]}, "cannot be started"),
        ({"cmd": [sys.executable, "-c", "import sys; print('leak-me'); sys.exit(3)"]}, "status 3"),
        ({"cmd": [sys.executable, "-c", ""]}, "empty"),
        ({"cmd": [sys.executable, "-c", "print('x' * 70000)"]}, "more than 64 KiB"),
        ({"cmd": [sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'\\xff')"]}, "UTF-8"),
    ],
)
def test_what_cannot_be_had_is_said(reference, expected):
    with pytest.raises(Unavailable, match=expected) as caught:
        secrets.resolve(reference)
    assert caught.value.code == "config.secret_unavailable"
    assert "leak-me" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unavailable):
        secrets.resolve({"file": "pipe"}, folder=tmp_path)


@pytest.mark.parametrize("reference", ["plain", {}, {"env": "A", "file": "B"}, {"vault": "x"}, {"cmd": "text"}, None])
def test_what_is_no_reference_is_refused_without_repeating_it(reference):
    with pytest.raises(Invalid, match="no secret reference") as caught:
        secrets.resolve(reference)
    assert "plain" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_slow_command_is_stopped_with_all_its_children(monkeypatch, tmp_path):
    monkeypatch.setattr(secrets, "COMMAND_TIMEOUT_S", 3.0)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="longer than 3 s"):
        secrets.resolve({"cmd": ["sh", "-c", "(echo up; exec sleep 60) > pipe & wait"]}, folder=tmp_path)
    assert time.monotonic() - started < 50
    heard = b""
    while part := _part_of(reader):  # ends when nobody holds the other end any more
        heard += part
    os.close(reader)
    assert heard == b"up\n"


def _part_of(reader: int) -> bytes:
    readable, _, _ = select.select([reader], [], [], 40)
    assert readable, "a child of the command is still there"
    return os.read(reader, 100)


def test_a_value_is_redacted_in_every_form():
    secrets.resolve({"env": "A"}, env={"A": CANARY})
    encoded = base64.b64encode(CANARY.encode()).decode()
    for text in (
        CANARY,
        f"x{CANARY}y",
        json.dumps({"k": CANARY}),
        json.dumps([CANARY], ensure_ascii=False),
        repr([CANARY]),
        encoded,
    ):
        clean = secrets.redact(text)
        assert "7f3a" not in clean
        assert encoded not in clean
        assert secrets.REDACTED in clean
    from urllib.parse import quote

    assert "7f3a" not in secrets.redact(f"nats://u:{quote(CANARY, safe='')}@h")
    assert secrets.redact_tree({"a": [CANARY, 1, {CANARY: None}]}) == {
        "a": [secrets.REDACTED, 1, {secrets.REDACTED: None}]
    }


def test_longer_secrets_win_over_their_parts_and_short_ones_are_no_secrets():
    secrets.remember("part-of-it")
    secrets.remember("part-of-it-all")
    secrets.remember("abc")
    assert secrets.redact("part-of-it-all part-of-it abc") == "[redacted] [redacted] abc"


def test_the_memory_of_secrets_is_bounded():
    for number in range(secrets.REMEMBERED_MAX + 5):
        secrets._known._values[f"filler-{number:05}"] = None
    secrets.remember("the-last-one")
    assert len(secrets._known._values) == secrets.REMEMBERED_MAX
    assert secrets.redact("the-last-one") == secrets.REDACTED


def test_logs_are_redacted_with_tracebacks():
    secrets.remember("log-canary-9")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(secrets.SecretLogFilter())
    log = logging.getLogger("knotwork.test.secrets")
    log.propagate = False
    log.addHandler(handler)
    try:
        log.warning("got %s and %d", "log-canary-9", 3)
        log.warning("in the format log-canary-9", stack_info=True)
        try:
            int("log-canary-9")
        except ValueError:
            log.exception("oh %s", "dear")
    finally:
        log.removeHandler(handler)
    text = stream.getvalue()
    assert "log-canary-9" not in text
    assert text.count(secrets.REDACTED) >= 3
    assert "got [redacted] and 3" in text
    assert "ValueError: invalid literal for int() with base 10: '[redacted]'" in text


class Nested(PluginConfig):
    token: SecretRef | None = None
    values: dict[str, SecretRef] = Field(default_factory=dict)
    n: int = 0


def test_a_fingerprint_follows_the_value_behind_a_reference(tmp_path):
    file = tmp_path / "secret"

    def mark(table: object) -> str:
        return secrets.fingerprint(table, lambda ref: secrets.resolve(ref, folder=tmp_path))

    table = Nested(token=SecretRef(file="secret"), values={"a": SecretRef(file="secret")})
    missing = mark(table)
    file.write_text("first-value")
    first = mark(table)
    assert first == mark(Nested(token=SecretRef(file="secret"), values={"a": SecretRef(file="secret")}))
    file.write_text("second-value")
    second = mark(table)
    assert len({missing, first, second, mark(Nested()), mark(Nested(n=1)), mark({"n": 1}), mark({"n": True})}) == 7
    assert "second-value" not in second


def test_plain_tables_that_look_like_references_are_not_run(tmp_path):
    mark = tmp_path / "ran"
    secrets.fingerprint({"hook": {"cmd": ["touch", str(mark)]}})
    assert not mark.exists()
    assert Path(tmp_path).is_dir()

"""The forms of the Synadia Agent Protocol that need no server."""

import json

import pytest

from knotwork.bus import subjects
from knotwork.mesh import prompts
from knotwork.sdk import errors


@pytest.mark.parametrize(
    ("executor", "token"),
    [
        ("claude-code", "claude-code"),
        ("./agents/my_executor.py", "my-executor"),
        ("Old Thing!", "old-thing"),
        ("???", "agent"),
        ("x" * 100, "x" * 64),
    ],
)
def test_every_executor_type_has_a_token(executor, token) -> None:
    assert prompts.kind(executor) == token
    assert subjects.prompt("prompt", token, "n", "a") == f"agents.prompt.{token}.n.a"


@pytest.mark.parametrize(
    ("count", "text"), [(8 * 1024**2, "8MB"), (1000, "1000B"), (1536 * 1024, "1536KB"), (1024**3, "1GB")]
)
def test_sizes(count, text) -> None:
    assert prompts.size(count) == text


@pytest.mark.parametrize("error", errors.ALL)
def test_every_error_has_a_code_of_the_protocol(error) -> None:
    lines = prompts.error_head(error("it\r\nbroke" * 100)).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:-2])
    assert headers["Nats-Service-Error-Code"] in {"400", "401", "403", "404", "409", "429", "500"}
    assert 0 < len(headers["Nats-Service-Error"]) <= 200
    assert len(lines) == 5, "a message may not add headers"


@pytest.mark.parametrize(
    ("pieces", "output", "rest"),
    [
        ([], "all", "all"),
        ([], None, ""),
        ([""], "all", "all"),
        (["Hello"], "Hello world", " world"),
        (["Hello "], "Hello", ""),
        (["Hel", "lo"], {"text": "Hello, you", "turns": 1}, ", you"),
        (["a", "b"], "a\nb\n", ""),
        (["a", "b"], ["a", "b"], ""),
        (["a", "b"], ["a", "c"], '["a","c"]'),
        (["thinking"], "answer", "answer"),
        (["one. two."], "two.", ""),
        (["one\n"], "one\ntwo", "two"),
        (["one\n"], "one\n\ntwo", "\ntwo"),
        (["one"], "one\ntwo", "\ntwo"),
        (["one\n", "two\n"], "one\ntwo", ""),
        (["x" * 5_000_000], "x", "x"),
        (["x"], None, ""),
    ],
)
def test_what_is_left_to_say(pieces, output, rest) -> None:
    said = prompts.Said()
    for piece in pieces:
        said.add(piece)
    assert said.rest(output) == rest


def test_pieces_of_text_are_small_whatever_is_in_it() -> None:
    text = "\x00" * 100_000 + "😀" * 100_000
    chunks = list(prompts.responses(text))
    assert all(len(chunk) < 512 * 1024 for chunk in chunks)
    assert "".join(json.loads(chunk)["data"] for chunk in chunks) == text

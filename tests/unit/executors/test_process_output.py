"""Is what a command says understood the same, however the bytes are cut?"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knotwork_plugins.executors.process.outputs import Answer, LastWords, Lines, NotJson, ProgressWords, TooMuchOutput

LINES = st.lists(
    st.sampled_from(
        [
            b"",
            b"text",
            b"@progress 5% x",
            b"@progress",
            b"@pro",
            b'{"progress": 7}',
            b'{"a": 1}',
            b"\xff",
            b"  @progress 1",
            b"7",
        ]
    )
)
CUTS = st.lists(st.integers(1, 12), min_size=1)


def pieces(data: bytes, cuts: list[int]):
    place = turn = 0
    while place < len(data):
        size = cuts[turn % len(cuts)]
        yield data[place : place + size]
        place, turn = place + size, turn + 1


def words(said: list, prefix: str = "@progress") -> ProgressWords:
    return ProgressWords(prefix, json_lines=True, report=lambda percent, text: said.append((percent, text)))


@given(LINES, CUTS, st.booleans(), st.booleans())
def test_text_is_what_is_left_without_progress_lines(lines, cuts, ends, live):
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    said: list = []
    answer = Answer("text", 10_000, words(said), trim=False, live=live)
    chunks = [chunk for piece in pieces(data, cuts) for chunk in answer.feed(piece)] + answer.finish()
    kept = [line for line in data.split(b"\n") if not line.startswith(b"@progress")]
    value = answer.value()
    assert value.split("\n") == [line.decode(errors="replace") for line in kept] or value.rstrip("\n") == "\n".join(
        line.decode(errors="replace") for line in kept
    ).rstrip("\n")
    assert len(said) == sum(line.startswith(b"@progress") for line in data.split(b"\n"))
    assert "".join(chunks) == (value if live else "")
    assert all(chunk.find("\n") in (-1, len(chunk) - 1) for chunk in chunks)  # a line each


@given(LINES, CUTS)
def test_json_lines_do_not_depend_on_the_cuts(lines, cuts):
    data = b"\n".join(line for line in lines if line not in {b"text", b"@pro", b"\xff", b"  @progress 1"})
    said: list = []
    answer = Answer("jsonl", 10_000, words(said), live=True)
    chunks = [chunk for piece in pieces(data, cuts) for chunk in answer.feed(piece)] + answer.finish()
    expected = [json.loads(line) for line in data.split(b"\n") if line in {b'{"a": 1}', b"7"}]
    assert answer.value() == chunks == expected
    assert len(said) == sum(b"progress" in line for line in data.split(b"\n"))


@given(st.binary(max_size=300), CUTS, st.integers(0, 40))
def test_last_words_are_the_end(data, cuts, most):
    said: list = []
    last = LastWords(most, words(said, "@"))
    for piece in pieces(data.replace(b"@", b"").replace(b"{", b""), cuts):
        last.feed(piece)
    end = data.replace(b"@", b"").replace(b"{", b"")[-most:] if most else b""
    assert last.text() == end.decode(errors="replace").strip()
    assert said == []


@given(st.binary(max_size=200), CUTS)
def test_lines_put_together_are_the_data(data, cuts):
    lines = Lines()
    found = [line for piece in pieces(data, cuts) for line in lines.feed(piece)]
    assert b"\n".join([*found, lines.rest()]) == data


@settings(max_examples=30)
@given(CUTS, st.sampled_from(["text", "json", "jsonl"]))
def test_never_more_than_the_limit(cuts, form):
    answer = Answer(form, 100, words([]))
    with pytest.raises(TooMuchOutput):
        for piece in pieces(b"1\n" * 200, cuts):
            answer.feed(piece)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("@progress 12.5% of it", (12.5, "of it")),
        ("@progress 40", (40.0, "")),
        ("@progress 900", (100.0, "")),
        ("@progress: reading", (None, ": reading")),
        ("@progress 3files", (None, "3files")),
        ("@progress " + "9" * 400, (None, "9" * 400)),
        ('{"progress": true, "text": "x"}', (None, "x")),
        ('{"progress": "half"}', (None, "half")),
        ('{"progress": null, "text": 3}', (None, "3")),
    ],
)
def test_progress_lines(line, said):
    heard: list = []
    last = LastWords(100, words(heard))
    last.feed(line.encode() + b"\n")
    assert heard == [said]
    assert last.text() == ""


def test_huge_json_line_that_is_no_progress_is_kept_in_pieces():
    last = LastWords(50, words([]))
    for _ in range(100):
        last.feed(b'{"x' * 1000)
    assert len(last.text()) == 50


def test_no_output_is_no_json():
    answer = Answer("json", 100, words([]))
    with pytest.raises(NotJson, match="no output"):
        answer.value()

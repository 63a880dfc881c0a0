"""What does a text say? YAML 1.2 means what JSON and TOML mean by the same words; what none of them can say is refused."""

from __future__ import annotations

import pytest

from knotwork.flow import source, texts
from knotwork.sdk.errors import Invalid
from knotwork.trigger import source as triggers

ROOM = 1024 * 1024


def said(text: str):
    return texts.read(text, ROOM)[0]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *((word, word) for word in ("yes", "no", "on", "off", "y", "n", "Yes", "OFF", "=", "<<", "1:30", "1_000", "0b11")),
        *((word, word) for word in ("2030-01-01", "2030-01-01T00:00:00Z", "2030-01-01 10:00:00", "190:20:30.15", "tRue")),
        ("true", True), ("True", True), ("FALSE", False), ("null", None), ("~", None), ("", None),
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("-12", -12), ("+3", 3), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0),
        ("-1.5E-2", -0.015), ("'true'", "true"), ('"1"', "1"), ("!!str 1", "1"), ("!!int 7", 7), ("!!float 7", 7.0),
    ],
)  # fmt: skip
def test_plain_words_mean_what_yaml_1_2_says(word, meant):
    found = said(f"a: {word}\nb: [x, {word or 'null'}]\n")["a"]
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize("key", ["on", "yes", "1", "007", "true", "null", "~", "2030-01-01", "1.5", "<<"])
def test_keys_are_texts_whatever_they_look_like(key):
    assert said(f"{key}: 1\nb: {{{key}: 2}}\n") == {key: 1, "b": {key: 2}}


def test_on_means_the_key_on():
    made = source.check("name: w\nsteps:\n  on:\n    capability: x\n    retry:\n      on: [call.timed_out]\n").workflow
    assert made.steps["on"].retry.on == ("call.timed_out",)


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        ("a: &x {b: 1}\nc: *x\n", 2, 4, "aliases (*name) are not taken"),
        ("a: !!timestamp 2030-01-01\n", 1, 4, "'!!timestamp' is not taken"),
        ("a: !!python/object:os.system x\n", 1, 4, "is not taken"),
        ("a: !!binary aGk=\n", 1, 4, "'!!binary' is not taken"),
        ("a: !mine {b: 1}\n", 1, 4, "'!mine' is not taken"),
        ("a: !!int x\n", 1, 4, "'x' is no int"),
        ("a: !!bool [x]\n", 1, 4, "'' is no bool"),
        ("? [a, b]\n: 1\n", 1, 3, "a key is a word"),
        ("1: a\n'1': b\n", 2, 1, "'1' is in line 1 already"),
        ("a: 1\n---\nb: 1\n", 2, 1, "another document"),
        ("x: 1\na: .nan\n", 2, 1, "nan is no number that can be kept"),
        ("x: 1\na: [1, -.inf]\n", 2, 8, "-inf is no number that can be kept"),
        ("a: 99999999999999999999\n", 1, 1, "64 bits"),
        (f"a: 0x{'f' * 5000}\n", 1, 4, "40 digits at most"),
        (f"a: {'9' * 5000}\n", 1, 4, "40 digits at most"),
        ("a: b\n  \x01c\n", 2, 3, "#x0001"),
        ("a: " + "[" * 5000, 1, 1, "nested too deeply"),
        ("a: " + "[" * 450 + "]" * 450, 1, 1, "nested too deeply"),
        ('{"x": 1,\n "a": NaN}', 2, 2, "nan is no number"),
        ('{"x": 1,\n "a": -Infinity}', 2, 2, "-inf is no number"),
        ('{"a": "\\ud800"}', 1, 2, "lone surrogate"),
        (f'{{"a": {"9" * 5000}}}', 1, 1, "It is no JSON"),
        ('{"a": 18446744073709551616}', 1, 2, "64 bits"),
        ("x = 1\na = nan\n", 2, 1, "nan is no number"),
        ("x = 1\na = 99999999999999999999\n", 2, 1, "64 bits"),
        (f"a = {'9' * 5000}\n", 1, 1, "It is no TOML"),
        ("a = 1\na = 2\n", 2, 6, "It is no TOML"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_told_with_its_place(text, line, column, told):
    with pytest.raises(texts.Unreadable) as refused:
        said(text)
    assert (refused.value.line, refused.value.column) == (line, column), refused.value
    assert told in refused.value.message


def test_times_of_toml_are_texts():
    text = "a = 2030-01-01T10:00:00Z\nb = 2030-01-01T10:00:00+02:00\nc = 2030-01-01\nd = [10:30:00]\n"
    meant = {"a": "2030-01-01T10:00:00Z", "b": "2030-01-01T10:00:00+02:00", "c": "2030-01-01", "d": ["10:30:00"]}
    assert said(text) == meant


def test_a_mark_of_the_byte_order_is_no_part_of_a_text():
    for text in ('{"a": 1}', "a: 1\n"):
        assert said(f"\ufeff{text}") == {"a": 1}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("2030-01-01T00:00:00Z", "'2030-01-01T00:00:00Z'"),
        ("'2030-01-01T00:00:00+02:00'", "'2030-01-01T00:00:00+02:00'"),
        ("1893456000", "`1893456000`"),
        ("input.at", "input.at"),
    ],
)
def test_a_pause_lasts_until_a_time_as_people_write_it(written, kept):
    assert source.check(f"name: w\nsteps:\n  a: {{kind: sleep, until: {written}}}\n").workflow.steps["a"].until == kept
    if not written.startswith("'"):
        quoted = f'"{written}"' if written[0] == "i" else written
        made = source.check(f'name = "w"\n[steps.a]\nkind = "sleep"\nuntil = {quoted}\n')
        assert made.workflow.steps["a"].until == kept


@pytest.mark.parametrize("at", ["at: 2030-01-01T00:00:00Z", "at: 2030-01-01", 'at: "2030-01-01T02:00:00+02:00"'])
def test_a_trigger_takes_its_moment_without_quotes(at):
    assert triggers.trigger(f"id: t\nworkflow: w\n{at}\n").at == "2030-01-01T00:00:00Z"
    toml = at.replace("at:", "at =")
    assert triggers.trigger(f'id = "t"\nworkflow = "w"\n{toml}\n').at == "2030-01-01T00:00:00Z"


def test_a_number_in_place_of_a_text_is_told_to_be_quoted():
    [flaw] = source.check("name: w\nversion: 1.10\nsteps:\n  a: {capability: x}\n").flaws
    assert flaw.message == 'it is a text: write it in quotes, "1.1"'


def test_what_a_trigger_cannot_say_has_its_place_too():
    with pytest.raises(Invalid, match=r"line 4, column 1: input: nan is no number") as refused:
        triggers.trigger("id: t\nworkflow: w\ncron: 0 3 * * *\ninput: .nan\n")
    assert refused.value.detail["problems"][0]["path"] == "input"

"""What trigger does a text mean, and what is said of one that makes none?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from knotwork.flow import texts
from knotwork.ops.triggers import CreateRequest
from knotwork.sdk.errors import Invalid, NotFound
from knotwork.trigger import source
from knotwork.trigger.envelope import Firing, as_json, input_of, is_meant, labels
from knotwork.trigger.store import route, shown

TOML = 'id = "t"\nworkflow = "w"\nkind = "cron"\ncron = "0 3 * * *"\ngrace = "5m"\n'
YAML = "id: t\nworkflow: w\nkind: cron\ncron: 0 3 * * *\ngrace: 5m\n"
JSON = '{"id": "t", "workflow": "w", "kind": "cron", "cron": "0 3 * * *", "grace": "5m"}'
BASE: dict[str, Any] = {"id": "t", "workflow": "w"}


def made(**fields: Any) -> Any:
    return source.trigger({**BASE, **fields})


def test_three_languages_one_trigger():
    found = [source.trigger(text) for text in (TOML, YAML, JSON)]
    assert found[0] == found[1] == found[2]
    assert found[0].grace == 300.0
    assert shown(found[0]) == {"id": "t", "workflow": "w", "kind": "cron", "cron": "0 3 * * *", "grace": 300.0}


@pytest.mark.parametrize("value", [0, False, "", [], {}, "text", {"a": None}])
def test_any_input_is_one(value: Any):
    request = CreateRequest(id="t", workflow="w", cron="@daily", input=value)
    assert source.trigger(request.definition, **request.given()).input == value


def test_fields_count_more_and_tell_the_kind():
    assert source.trigger(TOML, workflow="other").workflow == "other"
    assert source.trigger(None, id="t", workflow="w", at="2030-01-01T02:00:00+02:00").at == "2030-01-01T00:00:00Z"
    assert made(subject="event.a").kind == "subject"
    assert made(folder="f").kind == "file"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "kind"),
        ({"kind": "moon"}, "moon"),
        ({"cron": "0 3 * * *", "id": "No Name"}, "id"),
        ({"cron": "every day"}, "no time"),
        ({"cron": "0 0 31 2 *"}, "no time"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, "Mars"),
        ({"cron": "0 3 * * *", "crom": 1}, "did you mean 'cron'"),
        ({"cron": "0 3 * * *", "grace": "soon"}, "write a duration"),
        ({"cron": "0 3 * * *", "missed": "some"}, "missed"),
        ({"cron": "0 3 * * *", "mapping": {"a": "b["}}, "no expression"),
        ({"at": "tomorrow"}, "write a time"),
        ({"subject": "run.>"}, "not for triggers"),
        ({"subject": "$JS.API.>"}, "not for triggers"),
        ({"subject": ">"}, "not for triggers"),
        ({"subject": "a.>.b"}, "at the end"),
        ({"subject": "a b"}, "subject"),
        ({"subject": "event.a", "filter": "]"}, "no expression"),
        ({"subject": "event.a", "batch": {}, "debounce": {}}, "one of the two"),
        ({"subject": "event.a", "batch": {}, "overlap": "skip"}, "cannot be skipped"),
        ({"kind": "webhook", "path": "a"}, "give a secret"),
        ({"kind": "webhook", "path": "a", "unsigned": True, "secret": {"env": "A"}}, "give a secret"),
        ({"kind": "webhook", "path": "../a", "unsigned": True}, "path"),
        ({"kind": "webhook", "path": "/a", "unsigned": True}, "path"),
        ({"kind": "webhook", "path": "a", "secret": {"cmd": ["rm"]}}, "not run for triggers"),
        ({"kind": "webhook", "path": "a", "secret": "in-the-open"}, "secret"),
        ({"kind": "http", "path": "a", "unsigned": True, "overlap": "queue"}, "answered now"),
        ({"kind": "http", "path": "a", "unsigned": True, "body_schema": {"type": 7}}, "no JSON Schema"),
        ({"kind": "http", "path": "a", "unsigned": True, "timeout": 0}, "timeout"),
        ({"folder": "a", "changes": ["eaten"]}, "changes"),
    ],
)
def test_what_makes_no_trigger(fields: dict[str, Any], told: str):
    with pytest.raises(Invalid) as refused:
        made(**fields)
    assert refused.value.code == "trigger.bad_definition"
    assert told in refused.value.message


@pytest.mark.parametrize(
    "text", ["", "[", "a", "- a\n- b", "{", "a: &a [*a]", "x = " + "[" * 5000, "{" * 100_000, "\x00"]
)
def test_what_is_no_table(text: str):
    with pytest.raises(Invalid):
        source.trigger(text)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(Invalid) as refused:
        source.trigger({"kind": "cron", "cron": "0 3 * * *", "priority": 11, "overlap": "maybe"})
    assert {one["path"] for one in refused.value.detail["problems"]} == {"id", "workflow", "priority", "overlap"}


def test_a_run_gets_what_came_and_not_the_envelope():
    trigger = made(subject="event.a", labels={"x": "y"})
    firing = Firing("t/1", b'{"n": 5}', 0, 10**18, {"subject": "event.a"})
    assert input_of(trigger, firing) == b'{"n": 5}'
    assert labels(trigger, firing) == {"x": "y", "trigger": "t", "trigger_kind": "subject"}
    mapped = made(subject="event.a", mapping={"n": "body.n", "from": "subject", "at": "fired_at"})
    assert input_of(mapped, firing) == b'{"n":5,"from":"event.a","at":"2001-09-09T01:46:40Z"}'


@pytest.mark.parametrize(("text", "meant"), [("body.n > `3`", True), ("body.n > `9`", False), ("body.n.m", False), ("length(body)", True), ("abs(body)", False)])  # fmt: skip
def test_filters(text: str, meant: bool):
    firing = Firing("t/1", b'{"n": 5}', 0, 1)
    assert is_meant(made(subject="event.a", filter=text), firing) is meant


@pytest.mark.parametrize(("body", "given"), [(b"", b"null"), (b"[1]", b"[1]"), (b"hello", b'"hello"'), (b"\xff", '"\ufffd"'.encode()), (b"[" * 9999, None)])  # fmt: skip
def test_what_is_no_json_is_a_text(body: bytes, given: bytes | None):
    assert as_json(body) == (given if given is not None else b'"' + body + b'"')


def test_routes():
    assert route(made(kind="webhook", path="a/b", unsigned=True)) == "POST /hooks/a/b"
    assert route(made(kind="http", path="a", method="PUT", unsigned=True)) == "PUT /run/a"
    assert route(made(cron="@daily")) == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('id = "t"\nworkflow = "w"\ncron = "0 3 * * *"\npriority = 11\n', {"priority": (4, 1)}),
        (
            "id: t\nworkflow: w\ncron: 0 3 * * *\n  \npriority: 11\novrlap: skip\n",
            {"priority": (5, 1), "ovrlap": (6, 1)},
        ),
        ('{"id": "t",\n "workflow": "w", "subject": "event.a",\n "batch": {"count": 0}}', {"batch.count": (3, 12)}),
        ("id: t\nkind: cron\ncron: 0 3 * * *\n", {"workflow": (1, 1)}),
    ],
)
def test_what_is_wrong_has_its_place(text: str, found: dict[str, tuple[int, int]]):
    with pytest.raises(Invalid) as refused:
        source.trigger(text)
    problems = refused.value.detail["problems"]
    assert {one["path"]: (one["line"], one["column"]) for one in problems} == found
    for line, column in found.values():
        assert f"line {line}, column {column}" in refused.value.message


def test_what_is_said_beside_the_text_has_no_place_in_it():
    with pytest.raises(Invalid) as refused:
        source.trigger("id: t\nworkflow: w\ncron: 0 3 * * *\npriority: 5\n", priority=12)
    (one,) = refused.value.detail["problems"]
    assert (one["path"], one["line"], one["column"]) == ("priority", 0, 0)
    assert "line" not in refused.value.message


def test_a_text_that_cannot_be_read_says_where():
    with pytest.raises(Invalid) as refused:
        source.trigger("id: t\nworkflow: [\n")
    assert refused.value.detail["problems"][0]["line"] == 3


HEAD = "id: No Name\nworkflow: w\n"
WRONG: list[tuple[str, list[tuple[int, int, str, str]]]] = [
    (
        "kind: cron\ncron: every day\ntimezone: Mars\ngrace: soon\nmised: one\n",
        [(4, 1, "cron", "is no time"), (5, 1, "timezone", "no time zone 'Mars'"), (6, 1, "grace", "write a duration"), (7, 1, "mised", "did you mean 'missed'")],
    ),
    (
        "kind: once\nat: tomorrow\nlabels: {a b: 1}\nkeyy: 1\n",
        [(4, 1, "at", "write a time"), (5, 10, "labels.a b", "the name of a label"), (6, 1, "keyy", "did you mean 'key'")],
    ),
    (
        "kind: subject\nsubject: run.>\nbatch: {count: 0, cont: 3}\ndebounce: {quiet: x}\nfilter: ']'\n",
        [(4, 1, "subject", "not for triggers"), (5, 9, "batch.count", "greater than"), (5, 19, "batch.cont", "did you mean 'count'"), (6, 12, "debounce.quiet", "write a duration"), (7, 1, "filter", "no expression")],
    ),
    (
        "kind: subject\nsubject: a.>.b\nbatch: {count: 1}\ndebounce: {quiet: 1}\noverlap: skip\n",
        [(4, 1, "subject", "at the end"), (6, 1, "debounce", "one of the two"), (7, 1, "overlap", "cannot be skipped")],
    ),
    (
        "kind: webhook\npath: /a\nwindow: 1:30\noverlap: queue\nmax_body: 0\nunsigned: false\n",
        [(4, 1, "path", "none in front"), (5, 1, "window", "write a duration"), (6, 1, "overlap", "answered now"), (7, 1, "max_body", "greater than"), (8, 1, "unsigned", "give a secret")],
    ),
    (
        "kind: http\npath: a\nsecret: open\nmethod: get\ntimeout: 0\nbody_schema: {type: 7}\n",
        [(5, 1, "secret", "it is a reference"), (6, 1, "method", "'GET'"), (7, 1, "timeout", "greater than 0"), (8, 1, "body_schema", "no JSON Schema")],
    ),
    (
        "kind: file\nfolder: 1\nchanges: [eaten]\nsettle: x\nnode: A B\n",
        [(4, 1, "folder", 'write it in quotes, "1"'), (5, 11, "changes.0", "'added'"), (6, 1, "settle", "write a duration"), (7, 1, "node", "small letters")],
    ),
    (
        "kind: plugin\nsource: A B\nenabled: maybe\npriority: 11\nmapping: {a: 'b['}\n",
        [(4, 1, "source", "small letters"), (5, 1, "enabled", "boolean"), (6, 1, "priority", "less than"), (7, 1, "mapping", "no expression")],
    ),
    (
        "kind: crn\ncrom: x\npriority: 11\noverlap: maybe\n",
        [(3, 1, "kind", "did you mean 'cron'"), (4, 1, "crom", "did you mean 'cron'"), (5, 1, "priority", "less than"), (6, 1, "overlap", "'allow'")],
    ),
    (
        "kind: moon\npriority: 11\noverlap: maybe\nlabels: 3\n",
        [(3, 1, "kind", "there are cron, once"), (4, 1, "priority", "less than"), (5, 1, "overlap", "'allow'"), (6, 1, "labels", "dictionary")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wrong"), WRONG)
@pytest.mark.parametrize("language", ["yaml", "json", "fields"])
def test_everything_wrong_with_every_kind_is_told_at_once_each_at_its_place(text, wrong, language):
    data = texts.read(HEAD + text, 10_000)[0]
    with pytest.raises(Invalid) as refused:
        if language == "fields":  # as an op is given them
            source.trigger(None, **data)
        else:
            source.trigger(HEAD + text if language == "yaml" else json.dumps(data, indent=1))
    found = refused.value.detail["problems"]
    wanted = [(1, 1, "id", "a name has small letters"), *wrong]
    assert sorted(one["path"] for one in found) == sorted(path for *_, path, _ in wanted)
    for one in found:
        (where,) = [one_wanted for one_wanted in wanted if one_wanted[2] == one["path"]]
        assert where[3] in one["message"]
        assert "^" not in one["message"]
        if language == "yaml":
            assert (one["line"], one["column"]) == where[:2]
        assert bool(one["line"]) == (language != "fields")
        assert one["message"] in refused.value.message


def test_what_does_not_say_its_kind_is_judged_all_the_same():
    with pytest.raises(Invalid) as refused:
        source.trigger("id: t\ncron: daily\ntimezone: Mars\nsubject: run.x\npriority: 12\n")
    found = {one["path"]: one["message"] for one in refused.value.detail["problems"]}
    assert "kind is one of cron, subject" in found[""]
    assert found.keys() == {"", "workflow", "priority", "cron", "timezone", "subject"}


def test_a_request_in_fields_is_judged_as_a_whole():
    request = CreateRequest(id="No Name", workflow="No Name", source="A B", cron="x", timezone="Mars")
    with pytest.raises(Invalid) as refused:
        source.trigger(request.definition, **{**request.given(), "kind": "cron"})
    assert {one["path"] for one in refused.value.detail["problems"]} == {"id", "workflow", "cron", "timezone", "source"}


def test_what_is_named_and_is_not_there_is_told_with_all_that_is_wrong():
    text = "id: t\nworkflow: gone\nkind: subject\nsubject: odd.x\npriority: 12\n"
    read = source.reading(text)
    assert read.named() == {"workflow": "gone", "subject": "odd.x"}
    missing = [
        ("workflow", NotFound("There is no workflow 'gone'.", code="flow.no_workflow")),
        ("subject", Invalid("One stream must take the subject 'odd.x', and none does.", code="trigger.no_stream")),
    ]
    with pytest.raises(Invalid) as refused:
        read.checked(missing)
    told = refused.value.detail["problems"]
    assert refused.value.code == "trigger.bad_definition"
    assert [(one["line"], one["path"]) for one in told] == [(2, "workflow"), (4, "subject"), (5, "priority")]
    sound = source.reading(text.replace("priority: 12", "priority: 2"))
    with pytest.raises(Invalid, match="names is not there") as both:
        sound.checked(missing)
    assert [one["line"] for one in both.value.detail["problems"]] == [2, 4]
    with pytest.raises(NotFound) as one:  # one alone is told as itself, with its place
        sound.checked(missing[:1])
    assert (one.value.code, one.value.detail["problems"][0]["line"]) == ("flow.no_workflow", 2)
    assert sound.checked(()).workflow == "gone"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"workflow": "No Name", "cron": "@daily"}, {}),
        ({"workflow": "w", "subject": "a b", "stream": "S"}, {"workflow": "w"}),
        ({"workflow": "w", "subject": "a.b", "stream": "S"}, {"workflow": "w", "subject": "a.b", "stream": "S"}),
        ({"workflow": "w", "source": "lines"}, {"workflow": "w", "source": "lines"}),
        ({"workflow": "w", "kind": "cron", "source": "lines"}, {"workflow": "w"}),
        ({"workflow": 7}, {}),
    ],
)
def test_only_what_makes_sense_is_looked_for(fields: dict[str, Any], named: dict[str, str]):
    assert source.reading({"id": "t", **fields}).named() == named

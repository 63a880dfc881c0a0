"""Where in a text is what is wrong with it? Also in JSON, and also when a key stands twice."""

from __future__ import annotations

import json

import pytest

from knotwork.flow import graph, source
from knotwork.flow.model import Workflow

PRETTY = json.dumps({"name": "w", "steps": {"a": {"capability": "do", "whne": "input"}}}, indent=2)
STEPS = '{"name": "w",\n "steps": {\n  "a": {"capability": "x"},\n  "a": {"capability": "y"}}}'


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        (PRETTY, 6, 7, "did you mean 'when'?"),
        (PRETTY.replace("  ", "\t"), 6, 4, "did you mean 'when'?"),
        (STEPS, 4, 3, "'a' is in line 3 already"),
        (STEPS.replace("  ", "\t\t"), 4, 3, "'a' is in line 3 already"),
        ("name: w\nsteps:\n  a: {capability: x}\n  'a': {capability: y}\n", 4, 3, "'a' is in line 3 already"),
        ("name: w\nsteps:\n  a: {capability: x, capability: y}\n", 3, 22, "'capability' is in line 3 already"),
        ("name: w\nsteps:\n  a: {kind: agent, agent: x, prompt: p}\n  a: {capability: x}\n", 4, 3, "stands twice"),
        ('name = "w"\n[steps.a]\ncapability = "x"\n[steps.a]\ncapability = "y"\n', 4, 9, "TOML"),
    ],
)
def test_everything_wrong_has_its_place(text, line, column, told):
    checked = source.check(text)
    assert checked.workflow is None
    [flaw] = checked.flaws
    assert (flaw.line, flaw.column) == (line, column), flaw
    assert told in flaw.message


def test_the_same_key_in_two_tables_is_no_matter():
    text = "name: w\nsteps:\n  a: {capability: x}\n  b: {capability: x, depends_on: [a]}\n"
    assert source.check(text).workflow == source.check(json.dumps(source.read(text, 1000)[0])).workflow is not None


# -- all of it in one answer ---------------------------------------------------------------------------------------------

YAML = """\
name: Bad
nmae: x
timeout: soon
concurrency: {key: nope}
input_schema: {type: nonsense}
steps:
  A b: {capability: x}
  a:
    capability: x
    depends_on: [biuld, a]
    when: "lenght(input) && keyz(input) && other"
    timeout: never
    retry: {max_attempts: 0, backoff: never}
  build: {capability: x, agent: y, input: {x: 'steps.a.output', y: "a..b"}}
  t: {kind: aprovall, timeout: 5, on_timeout: shrug}
  u: {kind: nonsense, when: foo}
  s: {kind: sleep, cron: "* * *"}
  s2: {kind: sleep, when: "`1`"}
  c1: {capability: x, depends_on: [c2]}
  c2: {capability: x, depends_on: [c1], output_schema: {pattern: "("}}
  d1: {capability: x, depends_on: [d1], on_failure: h}
  h: {kind: respond, status: 99}
  j: {kind: join}
  n: 5
  task: {capability: x}
  ch: {kind: choice, cases: [{then: [build]}, {when: input}]}
  w: {kind: workflow, on_timeout: 1}
output: {x: steps.zzz.output}
"""
ALL = [
    (1, 1, "name", "a name has small letters"),
    (2, 1, "nmae", "did you mean 'name'?"),
    (3, 1, "timeout", "write a duration"),
    (4, 15, "concurrency.key", "'nope' is not there"),
    (5, 1, "input_schema", "it is no JSON Schema"),
    (7, 3, "steps.A b", "a name has small letters"),
    (10, 5, "steps.a.depends_on", "wait for each other: a → a"),
    (10, 18, "steps.a.depends_on.0", "did you mean 'build'?"),
    (
        11,
        5,
        "steps.a.when",
        "there is no function keyz(); did you mean keys()?; there is no function lenght(); did you mean length()?",
    ),
    (11, 5, "steps.a.when", "'other' is not there"),
    (12, 5, "steps.a.timeout", "write a duration"),
    (13, 13, "steps.a.retry.max_attempts", "greater than or equal to 1"),
    (13, 30, "steps.a.retry.backoff", "'fixed', 'linear'"),
    (14, 3, "steps.build", "one of the two"),
    (14, 44, "steps.build.input.x", "may not have ended"),
    (14, 65, "steps.build.input.y", "is no expression"),
    (15, 7, "steps.t.kind", "did you mean 'approval'?"),
    (15, 35, "steps.t.on_timeout", "'fail' or 'value'"),
    (16, 7, "steps.u.kind", "there are task, agent,"),
    (16, 23, "steps.u.when", "'foo' is not there"),
    (17, 20, "steps.s.cron", "is no time"),
    (18, 3, "steps.s2", "one of duration, until and cron"),
    (18, 21, "steps.s2.when", "it is always the same"),
    (19, 23, "steps.c1.depends_on", "c1 → c2 → c1"),
    (20, 41, "steps.c2.output_schema", "the pattern '('"),
    (21, 23, "steps.d1.depends_on", "d1 → d1"),
    (22, 7, "steps.h.kind", "a step of the kind respond cannot handle a failure"),
    (22, 22, "steps.h.status", "greater than or equal to 200"),
    (23, 3, "steps.j.depends_on", "a join needs steps"),
    (24, 3, "steps.n", "a table"),
    (25, 3, "steps.task", "no step can be called 'task'"),
    (26, 38, "steps.ch.cases.0.then.0", "does not depend on this choice"),
    (26, 47, "steps.ch.cases.1", "it can never be reached"),
    (27, 3, "steps.w.workflow", "required"),
    (27, 23, "steps.w.on_timeout", "unknown key"),
    (28, 10, "output.x", "there is no step 'zzz'"),
]
"""One error of every kind: of the model, of names, of the graph, of expressions and references, of schemas, of times."""


def test_all_that_is_wrong_is_told_at_once():
    found = source.check(YAML).flaws
    assert [(one.line, one.column, one.path) for one in found] == [one[:3] for one in ALL]
    for flaw, (*_, told) in zip(found, ALL, strict=True):
        assert told in flaw.message


def _toml(value, path=()):
    """Write the same as TOML: what is in a table of steps as inline tables."""
    match value:
        case dict() if len(path) < 1:
            tables = {key: inner for key, inner in value.items() if key == "steps"}
            plain = "".join(
                f"{json.dumps(key)} = {_toml(inner, (key,))}\n" for key, inner in value.items() if key not in tables
            )
            rows = "".join(f"{json.dumps(key)} = {_toml(inner, (key,))}\n" for key, inner in tables["steps"].items())
            return f"{plain}[steps]\n{rows}"
        case dict():
            return (
                "{"
                + ", ".join(f"{json.dumps(key)} = {_toml(inner, (*path, key))}" for key, inner in value.items())
                + "}"
            )
        case list():
            return "[" + ", ".join(_toml(inner, path or ("x",)) for inner in value) + "]"
    return json.dumps(value)


@pytest.mark.parametrize("write", [lambda data: json.dumps(data, indent=1), _toml], ids=["json", "toml"])
def test_the_same_is_told_in_other_languages_each_at_its_place(write):
    text = write(source.read(YAML, 10_000)[0])
    found = source.check(text).flaws
    assert sorted((one.path, one.message) for one in found) == sorted(
        (one.path, one.message) for one in source.check(YAML).flaws
    )
    lines = text.splitlines()
    for flaw in found:
        written = flaw.path.rpartition(".")[2]
        here = lines[flaw.line - 1][flaw.column - 1 :]
        missing = flaw.path in ("steps.j.depends_on", "steps.w.workflow")  # they are not there: their step is told
        names = flaw.path.split(".")[1] if missing else written
        assert here.startswith((f'"{names}"', names)) or names.isdecimal(), (flaw, here[:40])


def test_broken_syntax_stands_alone():
    for text in ("name: x\nsteps: [", '{"name": "Bad", "steps": ', 'name = "Bad"\n[steps'):
        [flaw] = source.check(text).flaws
        assert flaw.path == ""


def test_what_is_wrong_hides_nothing_that_only_seems_to_follow():
    text = "name: w\nsteps:\n  a: {capability: x}\n  b: {capability: x, depends_on: [A], input: steps.a.output, timeout: x}\n"
    assert [one.path for one in source.check(text).flaws] == ["steps.b.depends_on.0", "steps.b.timeout"]


@pytest.mark.parametrize(
    ("step", "flaws"),
    [
        ('{capability: x, limit: {rate: 0, key: "a..b"}}', [("limit", "it limits nothing"), ("limit.key", "is no expression")]),
        ("{capability: x, limit: {rate: 1, key: item.x}}", [("limit.key", "'item' is not there")]),
        ("{kind: map, capability: x, limit: {rate: 1, key: '[item.x, index]'}}", []),
        ("""{kind: sleep, until: "'yesterday'"}""", [("until", "always gives 'yesterday'")]),
        ("""{kind: sleep, until: "'2030-01-01T00:00:00Z'"}""", []),
        ("{kind: sleep, until: input.at}", []),
        ('{kind: agent, agent: x, prompt: "say {{ input"}', [("prompt", "never closed")]),
        ("""{kind: agent, agent: x, prompt: "say {{ input }} {{ '{{' }} }}"}""", []),
        ('{kind: sleep, cron: "x", timezone: Mars}', [("cron", "is no time"), ("timezone", "no time zone 'Mars'")]),
        ("{capability: x, input_schema: {type: nonsense}}", [("input_schema", "did you mean 'output_schema'?")]),
        ('{kind: map, capability: x, allowed_failures: "200%"}', [("allowed_failures", 'from "0%" to "100%"')]),
        ("{capability: Bad Name}", [("capability", "small letters, digits")]),
        ("{agent: a/b/c}", [("agent", "node/agent")]),
        ('{kind: approval, title: "x {{ nope }} {{ steps.a.output }} {{ a..b }} {{"}', [("title", "'nope' is not there"),
            ("title", "'a' may not have ended"), ("title", "is no expression"), ("title", "never closed")]),
        ('{kind: approval, title: "x {{ input.y }} {{ run.id }}"}', []),
        ("{kind: map, capability: x, order: true}", [("order", "unknown key")]),
        ("{kind: choice, cases: []}", [("cases", "has 0 items, and needs at least 1")]),
        ("{kind: choice, cases: [{then: b}]}", [("cases.0.then", "it should be a list")]),
        ("{kind: join, depends_on: [b], need: 0}", [("need", '"all", "any", or how many of its steps, from 1 to')]),
        ("{capability: x, labels: [], retry: []}", [("labels", "a table"), ("retry", "a table")]),
        ("{capability: x, time_out: soon}", [("time_out", "did you mean 'timeout'?")]),
        ("{kind: wait_for_event, event: A B}", [("event", "with dots between them")]),
    ],
)  # fmt: skip
def test_what_was_hardly_meant_is_told_in_words_and_hides_nothing(step, flaws):
    found = source.check(f"name: w\nsteps:\n  a: {step}\n  b: {{capability: x}}\n").flaws
    assert [one.path for one in found] == [f"steps.a.{path}" for path, _ in flaws]
    for flaw, (_, told) in zip(found, flaws, strict=True):
        assert told in flaw.message
        assert "^" not in flaw.message


def test_what_was_kept_before_still_runs():
    slip = {"name": "w", "steps": {"a": {"kind": "agent", "agent": "x", "prompt": "say {{ input"}}}
    assert graph.graph(Workflow.model_validate(slip)).roots == ("a",)


@pytest.mark.parametrize("key", [1, 2**63, None, True, 1.5])
def test_keys_that_are_no_texts_are_told_in_a_table_too(key):
    made = {"name": "w", "steps": {"a": {"capability": "x"}}, "labels": {key: None}}
    assert [one.path.split(".")[0] for one in source.check(made).flaws][:1] == ["labels"]

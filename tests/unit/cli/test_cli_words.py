"""The command line without a node: what words mean, how answers look, what errors and help say."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import knotwork
from knotwork.bench import suite
from knotwork.cli import app, exhibits, given, launched, local, main, options, reference, show, topics, trouble, verbs
from knotwork.ops import form, rows, table
from knotwork.sdk import errors

ROOT = Path(__file__).parents[3]
OPS = {row.name: row for row in form.rows(rows.ROWS)}


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run one command line in this process; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("KNOTWORK")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KNOTWORK_DATA_DIR", str(tmp_path / "data"))

    def go(*words):
        code = main.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


def test_the_version_imports_almost_nothing():
    code = "import sys; from knotwork.cli.main import main; main(['--version']); print(len(sys.modules), *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second = out.splitlines()
    assert first == f"knotwork {knotwork.__version__}"
    assert {name for name in second.split() if name.startswith("knotwork")} == {
        "knotwork", "knotwork.cli", "knotwork.cli.main"
    }  # fmt: skip
    assert not {"click", "pydantic", "asyncio", "nats"} & set(second.split())


def test_client_verbs_import_no_server_stack():
    code = (
        "import sys; from knotwork.cli import app; app.run(['status', '--url', 'nats://127.0.0.1:1', '--timeout', '1s']);"
        "print(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(out.split())
    assert "nats" in loaded
    for name in ("starlette", "uvicorn", "mcp", "httpx", "knotwork.host", "knotwork.web", "rich"):
        assert name not in loaded


def test_every_command_has_help_and_an_anchor(run):
    code, out, _ = run("--help")
    assert code == 0
    for word in ("up", "demo", "invoke", "status", "config", "plugin", "stop"):
        assert f"\n  {word} " in out
    tree = app.tree()
    context = click.Context(tree)
    for name in tree.list_commands(context):
        assert tree.get_command(context, name).get_short_help_str(), name  # also of a group that does nothing by itself
    for words, command in reference._walk(tree, ()):
        assert command.short_help, words
        text = command.get_help(click.Context(command, info_name=" ".join(words)))
        assert "Usage:" in text
        if command.name != "version":
            assert "Examples:" in text, words


def test_every_op_has_a_command_with_output_and_timeout():
    tree = app.tree()
    for op in table.TABLE.values():
        command: click.Command = tree
        for word in op.cli.words:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), word)
            assert found is not None, op.name
            command = found
        flags = {flag for param in command.params for flag in param.opts}
        assert {"--output", "--quiet", "--url", "--creds", "--data-dir", "--timeout"} <= flags
        assert len([flag for param in command.params for flag in param.opts]) == len(flags), op.name


def test_the_reference_page_is_the_one_in_docs():
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run: python -m knotwork.cli.reference > docs/cli.md"


def test_exit_codes_are_explained_and_complete(run):
    code, out, _ = run("help", "exit-codes")
    assert code == 0
    for error in errors.ALL:
        assert error.exit_code in topics.EXIT_CODES
        assert error.kind in out
    assert run("help", "environment")[1].count("KNOTWORK_") >= 6
    assert "Usage: knotwork invoke" in run("help", "invoke")[1]


def test_wrong_words_end_with_2_and_name_the_nearest(run):
    code, _, err = run("statsu")
    assert code == 2
    assert "Did you mean status?" in err
    assert run("invoke", "a", "1", "--nope")[0] == 2
    for shape in ((), ("-o", "json")):
        assert "Put -- before a text that begins with -." in run("crew", "assess", "- one\n- two", *shape)[2]
        assert "Put -- before a text that begins with -." in run("invoke", "sum", "-5", *shape)[2]
    assert run()[0] == 2
    assert run("events", "--wait", "soon")[0] == 2
    code, out, err = run("nodes", "--limit", "3", "-o", "json")
    assert (code, out, json.loads(err)["code"]) == (2, "", "cli.usage")


@pytest.mark.parametrize(
    ("words", "seconds"),
    [(["w", "--wait"], 7 * 86400.0), (["w", "--wait", "90s"], 90.0), (["--wait", "-k", "x", "w"], 7 * 86400.0), (["w"], None)],
)  # fmt: skip
def test_to_wait_for_a_run_needs_no_time(words, seconds):
    command = click.Command("start", params=verbs.params(OPS["run.start"]))
    assert command.make_context("start", list(words)).params["wait_s"] == seconds


def test_no_node_is_69_and_says_what_to_do(run, tmp_path):
    for words in (["status"], ["nodes"], ["invoke", "echo", "hi"], ["stop"], ["config", "plan"], ["reload"]):
        code, out, err = run(*words)
        assert (code, out) == (69, ""), words
        assert "knotwork up" in err
    code, _, err = run("status", "-ojson")
    wire = json.loads(err)
    assert (code, wire["code"], wire["exit_code"]) == (69, "node.not_running", 69)
    assert str(tmp_path) in wire["message"]


@pytest.mark.parametrize("token", ["a.b", ">", "", "x" * 10_000])
def test_a_bad_capability_is_refused_before_anybody_is_asked(run, token):
    code, _, err = run("invoke", "-c", token, "1", "-o", "json")
    wire = json.loads(err)
    assert (code, wire["kind"]) == (2, "invalid")
    assert len(err) < 2000


def test_words_as_json(tmp_path, monkeypatch):
    (tmp_path / "in.json").write_text('{"a": [1, 2]}')
    (tmp_path / "latin").write_bytes(b"\xe9")
    assert given.read_input('{"a": 1}') == {"a": 1}
    assert given.read_input("12") == 12
    assert given.read_input("null") is None
    assert given.read_input("bare words") == "bare words"
    assert given.read_input("NaN") == "NaN"
    assert given.read_input('"\\ud83d\\ude00"') == "\U0001f600"
    assert given.read_input("a \\ud800 in bare words") == "a \\ud800 in bare words"
    assert given.read_input("@") == "@"
    assert given.read_input(f"@{tmp_path / 'in.json'}") == {"a": [1, 2]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    assert given.read_input("-") == "from a pipe"
    for bad, code in (
        ('{"a"', "wire.not_json"),
        ("[NaN]", "wire.not_json"),
        ('"\\ud800"', "wire.not_json"),
        ('{"a": ["\\uDC00"]}', "wire.not_json"),
        ("[" * 100_000, "wire.not_json"),
        (f"@{tmp_path / 'latin'}", "cli.not_text"),
        (f"@{tmp_path / 'none'}", "cli.input_unreadable"),
    ):
        with pytest.raises(errors.Invalid) as caught:
            given.read_input(bad)
        assert caught.value.code == code, bad[:20]


def test_what_has_no_end_is_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(given, "READ_MAX_BYTES", 1 << 20)
    for word in ("@/dev/zero", "-"):
        with Path("/dev/zero").open("rb") as zeros:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(zeros.read(2 << 20))))
        with pytest.raises(errors.TooLarge, match="more than 1 MiB") as caught:
            given.read_input(word)
        assert caught.value.code == "cli.input_too_large"
    (tmp_path / "fits").write_bytes(b" " * (1 << 20))
    assert len(given.read_text(f"@{tmp_path / 'fits'}")) == 1 << 20


def test_a_definition_goes_as_it_was_written(tmp_path, monkeypatch):
    pretty = '{\n "name": "w",\n "stps": {}\n}\n'
    (tmp_path / "w.json").write_text(pretty)
    (tmp_path / "latin").write_bytes(b"\xe9")
    for name in ("workflow.check", "workflow.register", "trigger.create"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pretty.encode())))
        for word in (f"@{tmp_path / 'w.json'}", "-", pretty):
            assert verbs._request(OPS[name], {"definition": word}, options.Shared()) == {"definition": pretty}
    with pytest.raises(errors.Invalid) as caught:
        verbs._request(OPS["workflow.check"], {"definition": f"@{tmp_path / 'latin'}"}, options.Shared())
    assert caught.value.code == "cli.not_text"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("1.5", 1.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400)],
)
def test_durations(text, seconds):
    assert options.Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "5 m", "1e9", "s", "1.2.3", "9" * 30])
def test_no_durations(text):
    with pytest.raises(click.BadParameter):
        options.Duration().convert(text, None, None)


def test_tables_line_up_and_nothing_moves_the_cursor():
    rows = [
        {"name": "a", "about": "red \x1b[31m\r\x07alarm", "empty": None},
        {"name": "日本", "about": ["x", "y"], "empty": []},
    ]
    text = show.table(rows, ("name", "about", "empty"))
    lines = text.splitlines()
    assert lines[0] == "NAME  ABOUT"
    assert lines[2] == "日本  x,y"
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\x1b" not in show.details({"message": "a\x1b[2Jb", "nested": {"deep": "\x9b"}})
    assert "\x1b" not in show.answer("\x1b[2J")
    assert show.details({"text": "a\u202eb\nsender  boss"}) == "text\n| a\ufffdb\n| sender  boss"


def test_details_leave_out_what_is_not_there():
    assert show.details({"a": 1, "none": None, "list": [], "memory_bytes": 50_000_000, "ok": False}) == (
        "a             1\nmemory        48 MiB\nok            no"
    )


def test_a_bug_shows_a_traceback_and_an_error_does_not(capsys):
    assert trouble.tell(ZeroDivisionError("x"), as_json=False) == 1
    assert "Traceback" not in capsys.readouterr().out
    assert trouble.tell(errors.Denied("No.", hint="Ask."), as_json=False) == 77
    assert capsys.readouterr().err == "error: No.\n  Ask.\n  (trust.denied)\n"
    group = ExceptionGroup("x", [ExceptionGroup("y", [errors.Busy("full")])])
    assert trouble.tell(trouble.single(group), as_json=True) == 75
    assert json.loads(capsys.readouterr().err)["kind"] == "busy"


def test_a_closed_pipe_is_no_bug():
    script = f"{sys.executable} -m knotwork help environment | true; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.returncode in (0, 1)


def test_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local.data_dir("here", {"KNOTWORK_DATA_DIR": "/other"}) == tmp_path / "here"
    assert local.data_dir(None, {"KNOTWORK_DATA_DIR": "/other"}) == Path("/other")
    assert local.data_dir(None, {}).name == "knotwork"
    assert local.data_dir(None, {"KNOTWORK_LAUNCH": "0123456789abcdef"}) == (
        local.data_dir(None, {}) / "launches" / "0123456789abcdef"
    )
    assert local.data_dir("here", {"KNOTWORK_LAUNCH": "0123456789abcdef"}) == tmp_path / "here"
    assert local.data_dir(None, {"KNOTWORK_LAUNCH": "../../elsewhere"}) == local.data_dir(None, {})


def test_folders_of_launches_that_are_long_over_are_removed(tmp_path):
    names = ("11111111", "22222222", "33333333", "notes")
    for name in names:
        (tmp_path / "launches" / name / "run").mkdir(parents=True)
    folder = tmp_path / "launches" / "11111111"
    assert launched.is_own(folder, {"KNOTWORK_LAUNCH": "11111111"})
    assert not launched.is_own(folder, {})
    launched.sweep(folder, lambda _: False)
    assert {one.name for one in folder.parent.iterdir()} == set(names)
    later_s = time.time() + launched.KEPT_S + 100
    (tmp_path / "launches" / "33333333" / "run" / "node.json").touch()
    os.utime(tmp_path / "launches" / "33333333" / "run" / "node.json", (later_s, later_s))
    launched.sweep(folder, lambda one: one.name == "22222222", now_s=later_s)
    assert {one.name for one in folder.parent.iterdir()} == {"11111111", "22222222", "33333333", "notes"}
    launched.sweep(folder, lambda _: False, now_s=later_s)
    assert {one.name for one in folder.parent.iterdir()} == {"11111111", "33333333", "notes"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1, "projects": 3}', '{"node": "a"}', "[" * 5000, "\x00" * 300_000],
)
def test_a_damaged_description_is_an_error_not_a_crash(tmp_path, text):
    path = local.node_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(errors.Invalid) as caught:
        local.read(tmp_path)
    assert caught.value.code == "cli.node_file_damaged"


def describe(folder, **more):
    path = local.node_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": os.getpid(), "node": "n", "url": "nats://x", "project": "one", **more}))


def test_a_dead_node_counts_as_none(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    describe(tmp_path, pid=gone.pid)
    assert local.read(tmp_path) is None
    describe(tmp_path, pid=-1)
    assert local.read(tmp_path) is None
    describe(tmp_path)
    found = local.read(tmp_path)
    assert found is not None
    assert found.node == "n"


def test_the_folder_decides_the_project(tmp_path):
    work = tmp_path / "work"
    (work / "deep" / "er").mkdir(parents=True)
    projects = {
        "one": {"seed_file": "/k/one", "paths": []},
        "two": {"seed_file": "/k/two", "paths": [str(work)]},
        "three": {"seed_file": "/k/three", "paths": [str(work / "deep")]},
    }
    describe(tmp_path, projects=projects, seed_file="/k/one")
    found = local.find(tmp_path)
    assert found.project_of(tmp_path) == "one"
    assert found.project_of(work / "else") == "two"
    assert found.project_of(work / "deep" / "er") == "three"
    assert found.seed_of("three") == "/k/three"
    with pytest.raises(errors.NotFound, match="four"):
        found.seed_of("four")
    assert local.folder_meant({"KNOTWORK_PROJECT_PATH": str(work / "deep" / ".." / "deep")}) == work / "deep"


def test_the_agent_label(monkeypatch):
    assert local.caller({}) == ""
    assert local.caller({"KNOTWORK_AGENT": "claude@laptop"}) == "claude@laptop"
    for bad in ("a;b", "a\r\nX: y", "ä", "x" * 65, "-x"):
        with pytest.raises(errors.Invalid):
            local.caller({"KNOTWORK_AGENT": bad})


def test_configuration_commands_need_no_node(run, tmp_path):
    code, out, _ = run("init")
    assert code == 0
    assert len((tmp_path / "knotwork.toml").read_text().splitlines()) <= 25
    assert run("init")[0] == 1
    assert run("config", "check")[0] == 0
    code, out, _ = run("config", "show", "mesh.", "--origin", "-o", "json")
    settings = {row["key"]: row for row in json.loads(out)["settings"]}
    assert code == 0
    assert settings["mesh.heartbeat_s"] == {"key": "mesh.heartbeat_s", "value": 10.0, "origin": "default"}
    assert json.loads(run("config", "revisions", "-o", "json")[1]) == {"revisions": []}
    code, out, _ = run("config", "fmt", "--check", "-o", "json")
    assert (code, json.loads(out)) == (0, {"would_change": []})
    (tmp_path / "knotwork.toml").write_text("[node]\nname='x'   # kept\n")
    assert run("config", "fmt", "--check")[0] == 1
    assert run("config", "fmt", "nowhere.toml")[2].count("Check the path") == 1
    assert run("config", "fmt")[0] == 0
    assert "# kept" in (tmp_path / "knotwork.toml").read_text()


def test_all_config_problems_end_with_78(run, tmp_path):
    (tmp_path / "bad.toml").write_text("[node]\nnmae = 'x'\ndrain_s = 'long'\n[executors.a]\ntype = 'proces'\n")
    code, _, err = run("config", "check", "bad.toml", "-o", "json")
    problems = json.loads(err)["detail"]["problems"]
    assert code == 78
    assert [(problem["line"], problem["column"] > 0) for problem in problems] == [(line, True) for line in (2, 3, 5)]
    code, _, err = run("config", "check", "bad.toml")
    assert "bad.toml:2:1" in err
    assert "Traceback" not in err


def test_schema_and_example(run):
    code, out, _ = run("config", "schema")
    assert code == 0
    assert "executors" in json.loads(out)["properties"]
    code, out, _ = run("config", "example")
    assert code == 0
    assert "[mesh]" in out
    assert json.loads(run("config", "example", "-o", "json")[1])["toml"] == out


@pytest.mark.parametrize("words", [("config", "schema"), ("plugin", "docs", "process")])
def test_what_is_a_document_is_one_line_of_json_lines(run, words):
    code, out, _ = run(*words, "-o", "jsonl")
    assert (code, len(out.splitlines())) == (0, 1)
    assert json.loads(out) == json.loads(run(*words, "-o", "json")[1])


def test_plugins_without_a_node(run, tmp_path):
    code, out, _ = run("plugin", "list", "-o", "jsonl")
    assert code == 0
    types = {(row["kind"], row["type"]) for row in map(json.loads, out.splitlines())}
    assert ("executors", "process") in types
    code, out, _ = run("plugin", "info", "process", "-o", "json")
    assert (code, json.loads(out)["kind"]) == (0, "executors")
    code, _, err = run("plugin", "info", "proces")
    assert code == 1
    assert "process" in err
    assert "command" in run("plugin", "docs", "process")[1]
    code, out, _ = run("plugin", "new", "executor", "my-agent", "--single-file")
    assert (code, (tmp_path / "my_agent.py").exists()) == (0, True)
    code, out, _ = run("plugin", "list", "--set", 'plugins.files=["./my_agent.py"]')
    assert "my-agent" in out
    assert run("plugin", "docs", "./my_agent.py")[1].startswith("# executors: `my-agent`")
    assert "plugin.exists" in run("plugin", "new", "executor", "process")[2]
    assert not (tmp_path / "process").exists()
    assert run("plugin", "new", "executor", "a.b")[0] == 2


def test_completion_knows_the_commands(run):
    assert "_KNOTWORK_COMPLETE" in run("completion", "bash")[1]
    env = {**os.environ, "_KNOTWORK_COMPLETE": "bash_complete", "COMP_WORDS": "knotwork sta", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "knotwork"], capture_output=True, text=True, env=env, check=False)
    assert "status" in done.stdout


def test_version_names_its_parts(run):
    code, out, _ = run("version", "-o", "json")
    assert code == 0
    assert {"knotwork", "python", "nats-server", "nats-py", "platform"} == set(json.loads(out))
    assert run("version", "-q")[1] == f"knotwork {knotwork.__version__}\n"


def test_the_help_names_every_bench():
    assert tuple(suite.BENCHES) == exhibits.BENCHES


def test_a_large_value_is_begun_for_people_and_says_where_the_rest_is():
    told = show.details({"input": list(range(20_000)), "text": "x" * 5000, "deep": {"rows": [[1] * 9000]}})
    assert [len(line) < show.VALUE_MAX + 100 for line in told.splitlines()] == [True, False, True, True]
    assert told.count("characters more: -o json)") == 2

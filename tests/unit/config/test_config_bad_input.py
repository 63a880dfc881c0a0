"""Everything that can be wrong with a configuration: refused whole, every problem told with its place."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from knotwork.config import load
from knotwork.config.files import SIZE_MAX, Text
from knotwork.sdk import ConfigInvalid, PluginConfig, SecretRef
from knotwork.sdk.errors import KnotworkError, from_wire


def problems_of(text: str | bytes, tmp_path: Path, env=None, sets=(), name="knotwork.toml"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigInvalid) as caught:
        load.read(load.Sources((file,), None, env or {}, tuple(sets)))
    return caught.value.detail["problems"], caught.value


# (text, environment, what must be said at which place)
CASES = [
    pytest.param("[node\n", {}, "1:6: broken TOML", id="broken header"),
    pytest.param("[node]\nname = \n", {}, "2:8: broken TOML", id="no value"),
    pytest.param('[node]\nname = "x\n', {}, "2:10: broken TOML", id="open string"),
    pytest.param("[node]\nname = edge\n", {}, "2:8: broken TOML.*needs quotes", id="no quotes"),
    pytest.param("[nats]\nprot = 1\n", {}, '2:1: unknown key prot in .nats.. Did you mean "port"', id="unknown key"),
    pytest.param("[exectors.a]\n", {}, '1:2: unknown table .exectors.. Did you mean "executors"', id="unknown table"),
    pytest.param("[executor.a]\n", {}, '1:2: .*Did you mean "executors"', id="singular"),
    pytest.param("heartbeat_s = 3\n", {}, r"1:1: unknown key heartbeat_s. It belongs in \[mesh\]", id="wrong place"),
    pytest.param('[web]\nport = "8080"\n', {}, "2:8: web.port must be a whole number, not text", id="text for number"),
    pytest.param(
        "[web]\nenabled = 1\n", {}, "2:11: web.enabled must be true or false, not a whole", id="number for flag"
    ),
    pytest.param("[web]\nport = 1.0\n", {}, "2:8: web.port must be a whole number", id="float for whole"),
    pytest.param("web = 3\n", {}, "1:7: web must be a table, not a whole number", id="value for table"),
    pytest.param(
        "[nats]\nurls = 'nats://a'\nmode='join'\n", {}, "2:8: nats.urls must be an array", id="text for array"
    ),
    pytest.param(
        "[nats]\nmode='join'\nurls = ['nats://a', 'http://b']\n", {}, r"3:21: nats.urls\[1\] must be a URL", id="item"
    ),
    pytest.param("[web]\nport = 70000\n", {}, "2:8: web.port must be at most 65535", id="range"),
    pytest.param("[mesh]\nheartbeat_s = nan\n", {}, "2:15: mesh.heartbeat_s must be a finite number", id="nan"),
    pytest.param("[node]\nlog_level = 'inf'\n", {}, '2:13: .*must be .debug.*Did you mean "info"', id="choice"),
    pytest.param("[nats]\nmax_payload = '8 apples'\n", {}, "2:15: nats.max_payload: must be a size", id="size"),
    pytest.param("[executors.'a.b']\n", {}, '1:12: executors."a.b": "a.b" is no valid name', id="bad id"),
    pytest.param(
        "[executors.a]\ncapabilities = ['>']\n", {}, r"2:17: executors.a.capabilities\[0\] must be a name", id="token"
    ),
    pytest.param(
        "[executors.a]\n[executors.a]\n", {}, r"2:1: duplicate: \[executors.a\].*at line 1", id="duplicate id"
    ),
    pytest.param(
        "[web]\nport = 1\nport = 2\n", {}, "3:1: duplicate: port is already there, at line 2", id="duplicate key"
    ),
    pytest.param(
        "[node]\nname = '${NOPE}'\n", {}, "2:8: node.name: environment variable NOPE is not set", id="missing env"
    ),
    pytest.param("[node]\nname = '${A:?set A first}'\n", {}, "2:8: .*A: set A first", id="required env"),
    pytest.param("[node]\nname = '${A:?}'\n", {"A": ""}, "2:8: .*A: not set", id="required env is empty"),
    pytest.param("[node]\nname = '${A}'\n", {"A": "x\ny"}, "2:8: .*A holds a line break", id="newline in value"),
    pytest.param("[node]\nname = '${A'\n", {}, "2:8: .*without its", id="open variable"),
    pytest.param("[node]\nname = '${A-b}'\n", {}, "2:8: .*no variable", id="unknown form"),
    pytest.param("[nats]\nmode = 'join'\n", {}, '2:8: mode = "join" needs nats.urls', id="join without urls"),
    pytest.param(
        "[nats]\nmax_file_store = '500MB'\n",
        {},
        "2:18: nats.max_file_store is too small: a project .* at least 576MB",
        id="a store smaller than what is reserved",
    ),
    pytest.param(
        "[nats]\nmax_file_store = '1GB'\n[projects.a]\n[projects.b]\n",
        {},
        "2:18: .*too small: 2 projects .* 1088MB",
        id="a store too small for two projects",
    ),
    pytest.param(
        "".join(f"[projects.p{number}]\n" for number in range(20)),
        {},
        r"1:2: nats.max_file_store \(10GB, its default\) is too small: 20 projects .* 10304MB",
        id="more projects than the store holds that nobody named",
    ),
    pytest.param(
        "[projects.a]\nmax_storage = '100MB'\n",
        {},
        "2:15: it is too small: a project takes at least 576MB",
        id="a project smaller than what is reserved",
    ),
    pytest.param(
        "[projects.a]\nmax_storage = '50GB'\n",
        {},
        r"2:15: the projects take 50GB together, more than nats.max_file_store \(10GB, its default\) has",
        id="a project larger than the store",
    ),
    pytest.param(
        "[nats]\nmax_file_store = '12GB'\n[projects.a]\nmax_storage = '5GB'\n[projects.b]\nmax_storage = '7GB'\n[projects.c]\n",
        {},
        "6:15: the projects take .* together, more than nats.max_file_store has",
        id="projects that are larger than the store together",
    ),
    pytest.param("[nats]\nurls = ['nats://x']\n", {}, "2:8: nats.urls is for joining", id="embedded with urls"),
    pytest.param(
        "[nats]\npassword = 'hunter2'\n",
        {},
        "2:12: nats.password must be a table.*secret as a reference",
        id="plain secret",
    ),
    pytest.param(
        "[mesh]\nstale_beats = 5\noffline_beats = 4\n", {}, "3:17: mesh.offline_beats must be more", id="beats"
    ),
    pytest.param("[routing]\nrouters = ['mine']\n", {}, r"2:12: there is no \[routers.mine\]", id="unknown router"),
    pytest.param(
        "[routing]\nrouters = ['mine']\n[routers.mine]\nenabled = false\n",
        {},
        r"2:12: \[routers.mine\] is not enabled",
        id="router that is off",
    ),
    pytest.param("[executors.a]\nprojects = ['x']\n", {}, r"2:13: there is no \[projects.x\]", id="unknown project"),
    pytest.param(
        "[projects.x]\n[projects.y]\n[executors.a]\n", {}, "3:1: executors.a must say which projects", id="ambiguous"
    ),
    pytest.param("[executors.a]\nmemory_mb = 5\n", {}, "2:13: .*hosted is false", id="memory without process"),
    pytest.param(
        "[memories.sqlite]\nhosted = true\n", {}, "2:10: memories.sqlite cannot run hosted", id="a memory by itself"
    ),
    pytest.param(
        '[targets.a]\ntype = "local"\ncommand = ["x"]\nhosted = true\n',
        {},
        "4:10: targets.a cannot run hosted",
        id="a target by itself",
    ),
    pytest.param(
        '[executors.a]\ntype = "process"\ncommand = ["x"]\nmemory_mb = 5\n',
        {},
        "4:13: .*memory_limit_mb limits the command",
        id="memory of a command",
    ),
    pytest.param("é = 1\n", {}, "1:1: broken TOML", id="not a bare key"),
    pytest.param("[node]\nlabels = { 'ü' = 1 }\n", {}, '2:18: node.labels."ü" must be text', id="column in characters"),
    pytest.param("x = " + "9" * 5000 + "\n", {}, "1:5: .*too many digits", id="endless number"),
    pytest.param("x = " + "[" * 5000, {}, "1:1: .*too deeply", id="deep arrays"),
    pytest.param("[a" + ".a" * 5000 + "]\n", {}, "1:1: .*too deeply", id="deep table"),
    pytest.param("x = [" + "[" * 90 + "]" * 90 + "]", {}, "1:1: .*too deeply", id="rather deep arrays"),
]


@pytest.mark.parametrize(("text", "env", "expected"), CASES)
def test_is_told_with_its_place(text, env, expected, tmp_path):
    problems, error = problems_of(text, tmp_path, env)
    assert len(problems) == 1, [str(problem) for problem in problems]
    assert re.search(re.escape(str(tmp_path / "knotwork.toml")) + ":" + expected, str(error)), str(error)
    problem = problems[0]
    assert (problem["line"], problem["column"]) != (0, 0)
    assert error.exit_code == 78
    assert error.code == problem["code"] != ""


def test_passwords_in_urls_are_refused_and_not_repeated(tmp_path):
    text = (
        '[nats]\nmode = "join"\nurls = ["nats://ok:4222", "nats://hunter2@host"]\n'
        '[executors.a]\ntype = "http"\nurl = "https://me:hunter2@example.com/x"\n'
        '[executors.b]\ntype = "process"\ncommand = ["psql", "--db=postgres://me:hunter2@h/db"]\n'
        '[executors.c]\ntype = "process"\nshell = true\ncommand = "curl https://me:$WORD@h ssh://me@host a@b.c:d"\n'
    )
    problems, error = problems_of(text, tmp_path)
    assert [problem["key"] for problem in problems] == ["nats.urls[1]", "executors.a.url", "executors.b.command[1]"]
    assert [problem["line"] for problem in problems] == [3, 6, 9]
    assert error.code == "config.plain_secret"
    assert "hunter2" not in json.dumps([str(error), problems])


class _Headers(PluginConfig):
    headers: dict[str, str | SecretRef] = Field(default_factory=dict)
    key: SecretRef | None = None


def test_missing_secrets_of_a_table_that_is_wrong_are_told_with_the_rest(tmp_path):
    path = tmp_path / "knotwork.toml"
    path.write_text(
        '[executors.a]\ntype = "h"\nmethd = 1\nkey = { file = "gone" }\n'
        '[executors.a.headers]\nenv = "plain"\nA = { env = "NOPE_A" }\nB = { env = "HERE" }\n'
    )
    loaded = load.read(load.Sources((path,), env={"HERE": "word"}))
    with pytest.raises(ConfigInvalid) as caught:
        load.check_instances(loaded, {"executors": {"h": _Headers}})
    told = [(problem["line"], problem["code"]) for problem in caught.value.detail["problems"]]
    assert told == [(3, "config.unknown_key"), (4, "config.missing_secret"), (7, "config.missing_secret")]


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = (
        "[node]\nname = 'A B'\nnmae = 1\n[web]\nport = 'x'\nhost = '${NOPE}'\n"
        "[executors.a]\nconcurrency = 0\n[routing]\nrouters = ['gone']\n[nats]\nmode = 'join'\n"
    )
    problems, error = problems_of(text, tmp_path, sets=["mesh.stale_beats=no"], env={"KNOTWORK__MESH__X": "1"})
    lines = [problem["line"] for problem in problems if problem["line"]]
    assert lines == [2, 3, 5, 6, 8, 10, 12]
    assert {problem["file"] for problem in problems if not problem["line"]} == {
        "env KNOTWORK__MESH__X",
        "--set mesh.stale_beats",
    }
    assert len(str(error).splitlines()) == len(problems) == 9


def test_several_broken_lines_are_told_with_what_can_still_be_judged(tmp_path):
    text = "x = 1 y\n[node]\nname = edge\n[web]\nport = 'x'\n[executors.a]\n[executors.a]\nfoo = 1\n[mesh\nz = 1\n"
    problems, _ = problems_of(text, tmp_path)
    assert [(problem["line"], problem["code"]) for problem in problems] == [
        (1, "config.syntax"),
        (3, "config.syntax"),
        (5, "config.wrong_type"),
        (7, "config.duplicate"),
        (9, "config.syntax"),
    ]


def test_a_broken_line_causes_no_second_problem(tmp_path):
    problems, _ = problems_of("[nats]\nmode = 'join'\nurls = [nats://a]\n", tmp_path)
    assert [problem["code"] for problem in problems] == ["config.syntax"]
    problems, _ = problems_of("[nats]\nurls = [\n  'a'\n  'b'\n]\nmode = 'join'\n", tmp_path)
    assert [problem["code"] for problem in problems] == ["config.syntax"]


def test_problems_are_counted_when_there_are_too_many(tmp_path):
    problems, error = problems_of("".join(f"k{i} = 1\n" for i in range(5000)), tmp_path)
    assert len(problems) == 100
    assert error.detail["total"] == 5000
    assert str(error).splitlines()[-1] == "… and 4900 more"


def test_the_error_crosses_the_wire_whole(tmp_path):
    _, error = problems_of("[web]\nport = 'x'\n", tmp_path)
    again = from_wire(error.to_wire())
    assert type(again) is ConfigInvalid
    assert (again.code, again.detail, str(again)) == (error.code, error.detail, str(error))


def test_values_are_never_repeated(tmp_path):
    canary = "hunter2-canary"
    text = (
        f"[nats]\npassword = '{canary}'\nport = '{canary}'\n[node]\nlog_level = '{canary}'\nname = '${{S}} {canary}'\n"
    )
    _, error = problems_of(
        text, tmp_path, env={"S": canary, "KNOTWORK__WEB__PORT": canary}, sets=[f"web.enabled={canary}"]
    )
    assert error.detail["total"] == 6
    assert canary not in str(error)
    assert canary not in str(error.to_wire())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("[node]\n".encode("utf-16"), "1:1: the file is UTF-16"),
        ("[node]\n".encode("utf-16-le"), "1:1: the file is UTF-16"),
        ("[node]\n".encode("utf-16-be"), "1:1: the file is UTF-16|1:1: the file holds a NUL"),
        ("[node]\n".encode("utf-32"), "1:1: the file is UTF-32"),
        ("[node]\nname = 'é'\n".encode("latin-1"), "2:9: this byte is not UTF-8"),
        (b"\x00" * 100, "1:1: the file (is UTF-16|holds a NUL)"),
        (b"[node]\nname = 'a\x00b'\n", "2:10: the file holds a NUL"),
        (bytes(range(256)), "2:118: this byte is not UTF-8"),
        (b"#" * (SIZE_MAX + 1), "1:1: the file is larger than 1024 KiB"),
    ],
    ids=["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "zeros", "nul", "all bytes", "huge"],
)
def test_files_that_are_no_text(data, expected, tmp_path):
    problems, error = problems_of(data, tmp_path)
    assert len(problems) == 1
    assert re.search(expected, str(error)), str(error)


def read_path(path: Path) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        load.read(load.Sources((path,), None, {}))
    assert str(path) in str(caught.value)
    return caught.value


def test_a_missing_file(tmp_path):
    assert read_path(tmp_path / "gone.toml").code == "config.not_found"


def test_a_folder_in_place_of_a_file(tmp_path):
    assert read_path(tmp_path).code == "config.unreadable"


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_symbolic_links_in_a_circle(tmp_path):
    one, two = tmp_path / "1.toml", tmp_path / "2.toml"
    one.symlink_to(two)
    two.symlink_to(one)
    assert read_path(one).code == "config.unreadable"
    broken = tmp_path / "3.toml"
    broken.symlink_to(tmp_path / "nothing")
    assert read_path(broken).code == "config.not_found"


def test_a_link_in_a_circle_is_not_skipped_by_the_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("knotwork.toml").symlink_to("knotwork.toml")
    with pytest.raises(ConfigInvalid, match=r"knotwork.toml: config file cannot be read"):
        load.read(load.Sources(env={}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    assert read_path(pipe).code == "config.unreadable"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes are POSIX")
def test_a_file_that_may_not_be_read(tmp_path):
    file = tmp_path / "k.toml"
    file.write_text("")
    file.chmod(0)
    root = os.geteuid() == 0
    if root:  # reads everything, so be somebody else for a moment
        os.seteuid(65534)
    try:
        error = read_path(file)
    finally:
        if root:
            os.seteuid(0)
    assert error.code == "config.unreadable"
    assert "Let user" in str(error)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_file_whose_reading_fails():
    assert read_path(Path("/proc/self/mem")).code == "config.unreadable"


def test_a_config_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigInvalid, match="config folder not found"):
        load.read(load.Sources((), tmp_path / "gone", {}))


def test_two_files_of_a_folder_may_not_say_the_same(tmp_path):
    (tmp_path / "base.toml").write_text("[executors.a]\nconcurrency = 1\n")
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "1.toml").write_text("[web]\nport = 1\nhost = 'localhost'\n[executors.a]\nconcurrency = 2\n")
    (folder / "2.toml").write_text("[executors.b]\n[web]\nenabled = true\nport = 2\n\n[executors.a]\nqueue_max = 1\n")
    with pytest.raises(ConfigInvalid) as caught:
        load.read(load.Sources((tmp_path / "base.toml",), folder, {}))
    one, two = folder / "1.toml", folder / "2.toml"
    assert str(caught.value).splitlines() == [
        f"{two}:4:1: duplicate key: web.port is already in {one}:2. Keep it in one of the two files.",
        f"{two}:6:12: duplicate id: executors.a is already in {one}:4. Keep it in one of the two files.",
    ]


@pytest.mark.parametrize(
    "written",
    [
        "web.port",
        "=3",
        "web..port=3",
        "[web]=3",
        "web.port=1\nx=2",
        "a" + ".a" * 3000 + "=1",
        "web.port=" + "[" * 3000,
        "x=" + "[" * 90 + "]" * 90,
        "web.port=x",
    ],
)
def test_bad_sets(written, tmp_path):
    problems, error = problems_of("# nothing\n", tmp_path, sets=[written])
    assert len(problems) == 1
    assert str(error).startswith("--set ")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("KNOTWORK__WEB__PROT", "1", 'unknown key prot in .web.. Did you mean "port"'),
        ("KNOTWORK__WEB__PORT", "high", "web.port must be a whole number, not text"),
        ("KNOTWORK__WEB__HOST", "a\nb", "line break"),
        ("KNOTWORK__", "1", "leads to no key"),
        ("KNOTWORK__WEB", "1", "web must be a table"),
        ("KNOTWORK" + "__A" * 3000, "1", "nested too deeply"),
        ("KNOTWORK__WEB____PORT", "1", "leads to no key"),
    ],
)
def test_bad_environment(name, value, expected, tmp_path):
    problems, error = problems_of("# nothing\n", tmp_path, env={name: value})
    assert len(problems) == 1
    assert re.search(f"^env {name}: .*{expected}", str(error)), str(error)


class Inner(PluginConfig):
    depth: int = 1


class ProcessConfig(PluginConfig):
    command: list[str]
    inner: Inner = Inner()
    ways: list[Inner] = Field(default_factory=list)


def test_plugin_tables_are_judged_with_their_places(tmp_path):
    file = tmp_path / "k.toml"
    file.write_text(
        "[executors.a]\ntype = 'proces'\n[executors.process]\n"
        "[executors.b]\ntype = 'process'\ncommand = ['x', 1]\ncomand = 1\nconcurency = 2\n"
        "inner = { dept = 1 }\nways = [{ depth = 'x' }]\n[routers.mine]\n"
    )
    loaded = load.read(load.Sources((file,), None, {}))
    with pytest.raises(ConfigInvalid) as caught:
        load.check_instances(loaded, {"executors": {"process": ProcessConfig}, "routers": {"label": PluginConfig}})
    told = str(caught.value).replace(f"{file}:", "").splitlines()
    assert told == [
        "2:8: executors.a: there is no executor of type 'proces'. Did you mean \"process\"?",
        "3:1: executors.process.command is missing",
        '6:17: executors.b.command[1] must be text: "…", not a whole number',
        '7:1: unknown key comand in [executors.b]. Did you mean "command"?',
        '8:1: unknown key concurency in [executors.b]. Did you mean "concurrency"?',
        '9:11: unknown key dept in [executors.b.inner]. Did you mean "depth"?',
        "10:19: executors.b.ways[0].depth must be a whole number, not text",
        "11:1: routers.mine: there is no router of type 'mine' (the id is the type when none is written). Known: label.",
    ]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text(alphabet="[]{}=.'\"#$\n aex_-1,\\", max_size=80)))
def test_no_text_whatever_brings_anything_but_a_typed_error(text):
    try:
        load.read(load.Sources(env={}), texts=(Text(Path("k.toml"), text),))
    except KnotworkError as error:
        assert isinstance(error, ConfigInvalid)
        assert error.detail["problems"]


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["node", "web", "nats", "executors", "mesh", "projects", "routing", "nonsense"]),
        st.recursive(
            st.one_of(st.integers(), st.booleans(), st.text(max_size=5), st.floats()),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.sampled_from(["abc", "name", "urls", "type"]), inner, max_size=3),
            ),
            max_leaves=6,
        ),
    )
)
def test_no_tables_whatever_bring_anything_but_a_typed_error(tables):
    from knotwork.config.keys import literal

    text = "".join(f"{key} = {literal(value)}\n" for key, value in tables.items())
    try:
        loaded = load.read(load.Sources(env={}), texts=(Text(Path("k.toml"), text),))
        load.check_instances(loaded, {"executors": {"process": ProcessConfig}})
    except ConfigInvalid as error:
        for problem in error.detail["problems"]:
            assert 1 <= problem["line"] <= text.count("\n") + 1


@pytest.mark.parametrize("section", ["nats", "web"])
def test_an_address_others_can_reach_must_be_meant(tmp_path, section):
    path = tmp_path / "knotwork.toml"
    path.write_text(f'[{section}]\nhost = "0.0.0.0"\n')
    with pytest.raises(ConfigInvalid) as caught:
        load.read(load.Sources((path,), None, {}))
    assert [problem["code"] for problem in caught.value.detail["problems"]] == ["config.needs_tls"]
    path.write_text(f'[{section}]\nhost = "0.0.0.0"\ninsecure = true\n')
    assert getattr(load.read(load.Sources((path,), None, {})).config, section).host == "0.0.0.0"


@pytest.mark.parametrize("section", ["nats", "web"])
@pytest.mark.parametrize(
    ("host", "code"),
    [("[::1]", "config.bad_value"), ("127.evil.example", "config.needs_tls"), ("127.1", ""), ("::1", "")],
)
def test_what_is_this_machine_and_what_is_no_address_at_all(tmp_path, section, host, code):
    path = tmp_path / "knotwork.toml"
    path.write_text(f'[{section}]\nhost = "{host}"\n')
    if not code:
        assert getattr(load.read(load.Sources((path,), None, {})).config, section).host == host
        return
    with pytest.raises(ConfigInvalid) as caught:
        load.read(load.Sources((path,), None, {}))
    assert [problem["code"] for problem in caught.value.detail["problems"]] == [code]


def test_a_host_header_may_have_brackets_and_a_port(tmp_path):
    path = tmp_path / "knotwork.toml"
    path.write_text('[web]\nallowed_hosts = ["[fd00::1]:8080", "node.example.org"]\n')
    assert load.read(load.Sources((path,), None, {})).config.web.allowed_hosts[0] == "[fd00::1]:8080"

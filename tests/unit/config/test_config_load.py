"""Layers, variables, origins, search: what a good configuration becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from knotwork.config import load
from knotwork.config.files import Text
from knotwork.config.loaded import Loaded
from knotwork.config.model import Config
from knotwork.sdk import ConfigInvalid, PluginConfig, SecretRef


@pytest.fixture
def read(tmp_path: Path):
    def _read(text: str, env=None, sets=(), config_dir=None) -> Loaded:
        file = tmp_path / "knotwork.toml"
        file.write_text(text, encoding="utf-8")
        return load.read(load.Sources((file,), config_dir, env or {}, tuple(sets)))

    return _read


class ProcessConfig(PluginConfig):
    command: list[str]
    count: int = 1
    name: str = ""
    timeout_s: float = 0.0
    key: SecretRef | None = None


def test_a_file_of_comments_is_the_default_configuration(read):
    assert read("# nothing but a comment\n\n").config == Config()


def test_an_empty_file_is_what_something_went_wrong_with(read, tmp_path):
    for nothing in ("", "\n \t\n", "\ufeff"):
        with pytest.raises(ConfigInvalid) as caught:
            read(nothing, sets=["nodes.x=1"])
        assert {one["code"] for one in caught.value.detail["problems"]} == {"config.empty", "config.unknown_key"}
        assert f"{tmp_path}/knotwork.toml:1:1: the file is empty" in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    file = tmp_path / "k.toml"
    file.write_bytes(b'\xef\xbb\xbf[node]\r\nname = "bom"\r\n')
    assert load.read(load.Sources((file,), None, {})).config.node.name == "bom"


def test_layers_win_in_order_key_by_key(read, tmp_path):
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "20.toml").write_text("[mesh]\nheartbeat_s = 3\n")
    (folder / "10.toml").write_text('[web]\nport = 2\n[node]\ndrain_s = 2\nlog_level = "error"\n')
    (folder / "notes.txt").write_text("not toml")
    loaded = read(
        '[web]\nport = 1\nhost = "127.0.0.2"\n[node]\ndrain_s = 1\n',
        env={"KNOTWORK__NODE__DRAIN_S": "4", "KNOTWORK_OTHER": "x", "KNOTWORK__MESH__HEARTBEAT_S": "5"},
        sets=["mesh.heartbeat_s=6"],
        config_dir=folder,
    )
    config = loaded.config
    assert (config.web.port, config.web.host, config.node.drain_s, config.mesh.heartbeat_s) == (
        2,
        "127.0.0.2",
        4.0,
        6.0,
    )
    main = tmp_path / "knotwork.toml"
    assert loaded.origin["web.port"] == f"{folder / '10.toml'}:2"
    assert loaded.origin["web.host"] == f"{main}:3"
    assert loaded.origin["node.drain_s"] == "env KNOTWORK__NODE__DRAIN_S"
    assert loaded.origin["mesh.heartbeat_s"] == "--set"
    assert loaded.origin["mesh.keepalive_s"] == "default"


def test_later_files_override_earlier_ones(tmp_path):
    one, two = tmp_path / "1.toml", tmp_path / "2.toml"
    one.write_text("[executors.a]\nconcurrency = 1\nqueue_max = 5\n")
    two.write_text("[executors.a]\nconcurrency = 2\n")
    table = load.read(load.Sources((one, two), None, {})).config.executors["a"]
    assert (table.concurrency, table.queue_max) == (2, 5)


def test_variables_are_filled_in_after_parsing(read):
    loaded = read(
        '[node]\nname = "${NAME}-${TAIL:-x}"\nlabels = { a = "$${NAME}", b = "$5", c = "${EMPTY:-d}", d = "${Q}" }\n'
        '[web]\nport = "${PORT}"\nenabled = "${ON:-false}"\nallowed_origins = ["${O:?say where}"]\n',
        env={"NAME": "n", "PORT": "8080", "EMPTY": "", "O": "http://o", "Q": 'x"\\ny = 1'},
    )
    config = loaded.config
    assert config.node.name == "n-x"
    assert config.node.labels == {"a": "${NAME}", "b": "$5", "c": "d", "d": 'x"\\ny = 1'}
    assert (config.web.port, config.web.enabled, config.web.allowed_origins) == (8080, False, ("http://o",))


def test_text_of_the_environment_takes_the_type_that_fits(read):
    loaded = read(
        '[executors.a]\ntype = "process"\ncommand = ["${N}"]\n',
        env={
            "N": "7",
            "KNOTWORK__NODE__NAME": "42",
            "KNOTWORK__EXECUTORS__A__COUNT": "3",
            "KNOTWORK__EXECUTORS__A__NAME": "12",
            "KNOTWORK__EXECUTORS__A__TAGS": '["x", "y"]',
        },
    )
    assert loaded.config.node.name == "42"
    assert loaded.config.executors["a"].tags == ("x", "y")
    for _ in range(2):  # asking twice gives the same answer
        found = load.check_instances(loaded, {"executors": {"process": ProcessConfig}})
        assert found["executors", "a"] == ProcessConfig(command=["7"], count=3, name="12")


def test_environment_names_find_ids_with_dashes(read):
    loaded = read("[executors.claude-code]\n", env={"KNOTWORK__EXECUTORS__CLAUDE_CODE__CONCURRENCY": "3"})
    assert loaded.config.executors["claude-code"].concurrency == 3
    assert list(loaded.config.executors) == ["claude-code"]


def test_set_takes_quoted_keys_and_plain_text(read):
    config = read("# nothing\n", sets=['node.labels."a.b"=1=2', "node.name=edge", "web.allowed_hosts=['h']"]).config
    assert config.node.labels == {"a.b": "1=2"}
    assert (config.node.name, config.web.allowed_hosts) == ("edge", ("h",))


def test_executors_get_the_defaults_of_their_id(read):
    table = read("[executors.shout]\n").config.executors["shout"]
    assert (table.type, table.capabilities, table.projects) == ("shout", ("shout",), ("default",))
    table = read('[projects.lab]\n[executors.shout]\ntype = "./x.py"\n').config.executors["shout"]
    assert (table.type, table.projects) == ("./x.py", ("lab",))


def test_keys_of_plugins_wait_in_settings_and_shared_ones_reach_them_too(read):
    loaded = read('[executors.process]\ncommand = ["a"]\ntimeout_s = 4\nsettings = { deep = 1 }\n')
    table = loaded.config.executors["process"]
    assert table.settings == {"command": ["a"], "settings": {"deep": 1}}
    loaded = read('[executors.process]\ncommand = ["a"]\ntimeout_s = 4\n')
    config = load.check_instances(loaded, {"executors": {"process": ProcessConfig}})["executors", "process"]
    assert config == ProcessConfig(command=["a"], timeout_s=4)


def test_disabled_and_broken_plugins_are_not_judged(read):
    loaded = read('[executors.a]\ntype = "gone"\nenabled = false\n[executors.b]\ntype = "broken"\n')
    assert load.check_instances(loaded, {}, broken=[("executors", "broken")]) == {}


def test_sizes_are_read_as_nats_server_reads_them(read):
    nats = read('[nats]\nmax_file_store = "2GB"\nmax_payload = "1M"\n').config.nats
    assert (nats.max_file_store, nats.max_payload) == (2 * 1024**3, 1_000_000)


def test_the_file_is_searched_where_it_belongs(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home / "knotwork", here):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    env = {"XDG_CONFIG_HOME": str(home)}
    if not Path("/etc/knotwork/knotwork.toml").exists():
        assert load.read(load.Sources(env=env)).texts == ()
    (home / "knotwork" / "knotwork.toml").write_text('[node]\nname = "user"\n')
    assert load.read(load.Sources(env=env)).config.node.name == "user"
    (here / "knotwork.toml").write_text('[node]\nname = "here"\n')
    assert load.read(load.Sources(env=env)).config.node.name == "here"
    (tmp_path / "named.toml").write_text('[node]\nname = "named"\n')
    env["KNOTWORK_CONFIG"] = str(tmp_path / "named.toml")
    loaded = load.read(load.Sources(env=env))
    assert loaded.config.node.name == "named"
    assert loaded.folder == tmp_path
    assert loaded.watched == (tmp_path / "named.toml",)


def test_texts_can_stand_in_for_files():
    loaded = load.read(load.Sources(env={}), texts=(Text(Path("/nowhere/k.toml"), '[node]\nname = "old"\n'),))
    assert loaded.config.node.name == "old"


def test_the_digest_follows_files_and_overrides(read):
    plain = read("[web]\nport = 1\n").digest
    assert plain == read("[web]\nport = 1\n").digest
    assert plain != read("[web]\nport = 2\n").digest
    assert plain != read("[web]\nport = 1\n", sets=["web.port=3"]).digest


def test_the_model_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().node.name = "x"  # type: ignore[misc]


def test_the_process_environment_is_the_default(monkeypatch, tmp_path):
    file = tmp_path / "k.toml"
    file.write_text('[node]\nname = "${KN_TEST_NAME}"\n')
    with pytest.raises(ConfigInvalid, match="KN_TEST_NAME"):
        load.read(load.Sources((file,)))
    monkeypatch.setenv("KN_TEST_NAME", "here")
    assert load.read(load.Sources((file,))).config.node.name == "here"


JOIN = '[nats]\nmode = "join"\nurls = ["nats://127.0.0.1:9"]\n'


@pytest.mark.parametrize(
    ("projects", "codes"),
    [
        ('[projects.default]\n[projects.side]\nnkey_seed = { file = "s" }\n', {"config.no_credentials"}),
        ("[projects.default]\n[projects.side]\n", {"config.no_credentials"}),
        ('[projects.a]\nnkey_seed = { file = "s" }\n[projects.b]\nnkey_seed = { file = "s" }\n', {"config.same_account"}),
        ('[projects.a]\nuser = "u"\npassword = { env = "A" }\n[projects.b]\nuser = "u"\n', {"config.same_account"}),
        ('[projects.a]\ncreds = "x"\n[projects.b]\ncreds = "x"\n[projects.c]\n', {"config.same_account", "config.no_credentials"}),
        ('[projects.a]\ncreds = "x"\n[projects.b]\ntoken = { env = "A" }\n', set()),
        ("[projects.only]\n", set()),
    ],
)  # fmt: skip
def test_projects_at_a_nats_of_others_need_credentials_of_their_own(read, projects, codes):
    own = 'nkey_seed = { file = "mine" }\n'
    if not codes:
        assert read(JOIN + own + projects)
        return
    with pytest.raises(ConfigInvalid) as caught:
        read(JOIN + own + projects)
    assert {one["code"] for one in caught.value.detail["problems"]} == codes


def test_projects_at_our_own_server_need_none(read):
    assert read("[projects.default]\n[projects.side]\n")

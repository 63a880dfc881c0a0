"""What is wrong with one key by a rule of its plugin stands at that key, also when other keys are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from knotwork.config import load
from knotwork.config.instances import Known
from knotwork.sdk import ConfigInvalid
from knotwork_plugins.executors.http_call.plugin import HttpConfig
from knotwork_plugins.executors.mcp_tool.config import McpConfig
from knotwork_plugins.executors.process.plugin import ProcessConfig
from knotwork_plugins.spinups.local.plugin import LocalConfig

KNOWN = Known(
    {"executors": {"process": ProcessConfig, "http": HttpConfig, "mcp": McpConfig}, "spinups": {"local": LocalConfig}}
)


def told(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "knotwork.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load.check_instances(
            load.read(load.Sources((file,), None, {}, ()), find_types=lambda _data, _folder: KNOWN), KNOWN
        )
    return [f"{one['line']}:{one['column']}: {one['message']}" for one in caught.value.detail["problems"]]


PROCESS = '[executors.p]\ntype = "process"\ncommand = "ls"\n'


def test_alone(tmp_path):
    assert told(PROCESS, tmp_path) == ['3:11: executors.p.command must be a list, e.g. ["wc"]']


@pytest.mark.parametrize("other", ["max_output = 3", "time_limit_s = -1", 'input_as = "x"'])
def test_beside_another_mistake(tmp_path, other):
    found = told(PROCESS + other, tmp_path)
    assert found[0] == '3:11: executors.p.command must be a list, e.g. ["wc"]'
    assert [one[:2] for one in found] == ["3:", "4:"]


def test_a_switch_that_cannot_be_read_leaves_open_what_the_others_mean(tmp_path):
    (only,) = told(PROCESS + "shell = 3", tmp_path)
    assert only.startswith("4:9: executors.p.shell must be true or false")


@pytest.mark.parametrize("more", ["", "methd = 'x'\n"])
@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("ftp://host/x", "executors.w.url must begin with http:// or https:// and name a host"),
        ("http://{host}/", "executors.w.url: an input may not choose the host"),
    ],
)
def test_a_url(tmp_path, url, wrong, more):
    assert told(f'[executors.w]\ntype = "http"\nurl = "{url}"\n{more}', tmp_path)[0] == f"3:7: {wrong}"


def test_a_target(tmp_path):
    (only,) = told('[targets.t]\ntype = "local"\ncommand = "ls"\n', tmp_path)
    assert only.startswith("3:11: targets.t.command must be a list")


def test_what_is_about_the_whole_table_stands_at_its_head(tmp_path):
    (only,) = told('[executors.m]\ntype = "mcp"\ntool = "t"\n', tmp_path)
    assert only.startswith("1:1: executors.m: write either")
    (only,) = told('[executors.m]\ntype = "mcp"\ntool = "t"\nnone = 1\n', tmp_path)
    assert only.startswith("4:1: unknown key none")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a = {b={b=1, b=2}}", "1:14: duplicate: b is already there"),
        ("x = {'d e' = 2, 'd e' = 3}", "1:17: duplicate: d e is already there"),
    ],
)
def test_a_key_twice_in_one_line(tmp_path, text, wanted):
    assert wanted in told(text, tmp_path)

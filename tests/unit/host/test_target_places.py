"""Where does a target lead? Another type or machine is another place; another image, secret or limit is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.host.capacity import place_of
from knotwork.sdk import PluginConfig
from knotwork.sockets.catalog import AnyConfig
from knotwork_plugins.spinups.docker.config import DockerConfig
from knotwork_plugins.spinups.github_actions.plugin import GithubActionsConfig
from knotwork_plugins.spinups.kubernetes.config import KubernetesConfig
from knotwork_plugins.spinups.local.plugin import LocalConfig
from knotwork_plugins.spinups.ssh.config import SshConfig
from knotwork_plugins.spinups.webhook.plugin import WebhookConfig

TABLES: dict[type[PluginConfig], tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    LocalConfig: ({"command": ["a"]}, [], {"command": ["b"], "detached": True}),
    SshConfig: (
        {"host": "a", "command": ["x"]}, [{"host": "b"}, {"port": 23}, {"user": "u"}, {"state_folder": "/s"}],
        {"command": ["y"], "key_file": "k", "env": {"A": "1"}},
    ),
    DockerConfig: ({"image": "a"}, [{"socket": "/run/other.sock"}], {"image": "b", "memory_limit_mb": 5}),
    KubernetesConfig: ({"image": "a"}, [{"namespace": "n"}, {"context": "c"}, {"kubeconfig": "k"}], {"image": "b"}),
    GithubActionsConfig: (
        {"repo": "a/b", "workflow": "w.yml"}, [{"repo": "a/c"}, {"api_url": "https://x/api"}],
        {"ref": "v2", "token": {"env": "OTHER"}},
    ),
    WebhookConfig: ({"url": "https://a.example/x"}, [{"url": "https://b.example/x"}], {"stop_url": "https://a.example/y"}),
}  # fmt: skip


def place(config: type[PluginConfig], written: dict[str, Any], name: str = "some") -> str:
    found: Any = SimpleNamespace(entry=SimpleNamespace(type=name), config=config.model_construct(**written))
    return place_of(found, written)


@pytest.mark.parametrize("config", TABLES, ids=lambda config: config.__name__)
def test_what_leads_elsewhere_and_what_does_not(config):
    written, moves, stays = TABLES[config]
    assert set(config.place_keys) <= set(config.model_fields)
    here = place(config, written)
    assert here
    assert place(config, {**written, **stays}) == here
    assert place(config, written, "another") != here
    assert all(place(config, {**written, **move}) != here for move in moves)


def test_of_a_broken_plugin_nobody_can_tell():
    assert place(AnyConfig, {"host": "a"}) == ""

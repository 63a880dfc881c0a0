"""Do the bundled spin-ups keep the contract of every spin-up?

`local` runs real processes, `ssh` talks to a real sshd; the others talk to stand-ins that speak the real API.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest

import knotwork_plugins
from knotwork.sdk.testing import SpinUpContract
from knotwork_plugins.spinups.docker import plugin as docker
from knotwork_plugins.spinups.github_actions import plugin as github_actions
from knotwork_plugins.spinups.kubernetes import plugin as kubernetes
from knotwork_plugins.spinups.local import plugin as local
from knotwork_plugins.spinups.ssh import plugin as ssh
from knotwork_plugins.spinups.webhook import plugin as webhook

pytestmark = pytest.mark.timeout(180)  # seconds; the contract itself has less

# It starts children, one of them apart from its group, and minds no gentle word.
STUBBORN = "trap '' TERM; sleep 1000 & setsid sleep 1000 & echo up; while :; do sleep 1000; done"


class TestLocal(SpinUpContract):
    factory = local.FACTORY
    config: ClassVar = {"command": ["sleep", "1000"]}
    bad_configs = (
        {},
        {"command": []},
        {"command": "sleep 1"},
        {"command": ["a"], "shell": True},
        {"command": ["a\0b"]},
        {"command": ["a"], "env": {"a-b": "x"}},
        {"command": ["a"], "env": {"A": "x\0"}},
    )


class TestLocalStubborn(TestLocal):
    config: ClassVar = {"command": STUBBORN, "shell": True, "detached": True}
    grace_s = 0.1


class TestSsh(SpinUpContract):
    factory = ssh.FACTORY
    bad_configs = (
        {"host": "", "command": ["a"]},
        {"host": "-oProxyCommand=x", "command": ["a"]},
        {"host": "a", "user": "-l", "command": ["a"]},
        {"host": "a b", "command": ["a"]},
        {"host": "a", "command": []},
        {"host": "a", "port": 0, "command": ["a"]},
        {"host": "a", "command": ["a"], "options": {"Proxy Command": "x"}},
        {"host": "a", "command": ["a"], "options": {"ProxyCommand": "x\ny"}},
    )
    up_within_s = 90.0
    timeout_s = 170.0

    @pytest.fixture(autouse=True)
    def with_sshd(self, sshd: Any, tmp_path: Path) -> None:
        self.config = {**sshd.table, "state_folder": str(tmp_path / "it's a folder")}


class TestDocker(SpinUpContract):
    factory = docker.FACTORY
    bad_configs = (
        {},
        {"image": ""},
        {"image": "a b"},
        {"image": "a", "pull": "now"},
        {"image": "a", "name_prefix": "-"},
    )

    @pytest.fixture(autouse=True)
    def with_docker(self, docker_api: Any) -> None:
        self.config = {"image": "agent:1", "socket": docker_api.url, "request_timeout_s": 30}


class TestKubernetes(SpinUpContract):
    factory = kubernetes.FACTORY
    up_within_s = 60.0
    timeout_s = 120.0
    bad_configs = ({}, {"image": "a b"}, {"image": "a", "namespace": "A"}, {"image": "a", "cpu": "much"})

    @pytest.fixture(autouse=True)
    def with_cluster(self, cluster: Any, tmp_path: Path) -> None:
        file = cluster.kubeconfig(tmp_path / "kubeconfig")
        file.chmod(0o600)
        self.config = {"image": "agent:1", "kubeconfig": str(file), "request_timeout_s": 30}


class TestGithubActions(SpinUpContract):
    factory = github_actions.FACTORY
    bad_configs = (
        {"repo": "me", "workflow": "a.yml"},
        {"repo": "me/agents", "workflow": "../x"},
        {"repo": "me/agents", "workflow": "a.yml", "api_url": "http://example.com"},
        {"repo": "me/agents", "workflow": "a.yml", "inputs": {"a": "{nothing}"}},
    )

    @pytest.fixture(autouse=True)
    def with_github(self, github: Any) -> None:
        self.config = {"repo": "me/agents", "workflow": "agent.yml", "api_url": github.url, "request_timeout_s": 30}


class TestWebhook(SpinUpContract):
    factory = webhook.FACTORY
    bad_configs = (
        {},
        {"url": "ftp://example.com/"},
        {"url": "http://example.com/"},
        {"url": "https://me:word@example.com/"},
        {"url": "https://{target}.example.com/"},
        {"url": "https://example.com/{env.KNOTWORK_TOKEN}"},
        {"url": "https://example.com/", "body": '{"a": {launch}}'},
        {"url": "https://example.com/", "body": {"a": "{nothing}"}},
        {"url": "https://example.com/", "headers": {"A": "b\r\nC: d"}},
        {"url": "https://example.com/", "status_url": "https://example.com/{task}"},
    )

    @pytest.fixture(autouse=True)
    def with_receiver(self, receiver: Any) -> None:
        agents = f"{receiver.url}/agents/{{answer.id}}"
        self.config = {"url": f"{receiver.url}/launch", "status_url": agents, "stop_url": agents}


class TestWebhookWithoutMore(SpinUpContract):
    """It can only start: nobody can tell how it is, and it cannot be stopped."""

    factory = webhook.FACTORY
    observed = False

    @pytest.fixture(autouse=True)
    def with_receiver(self, receiver: Any) -> None:
        self.config = {"url": f"{receiver.url}/launch", "stop_url": f"{receiver.url}/agents/{{answer.id}}"}


def test_all_are_offered():
    names = [factory.name for factory in knotwork_plugins.spinups()]
    assert names == ["local", "ssh", "docker", "kubernetes", "github-actions", "webhook"]

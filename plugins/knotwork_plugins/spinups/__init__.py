"""Ways of starting agents, one folder each; `words`, `environment`, `places` and `answers` are what they share."""

from knotwork_plugins.spinups.docker import plugin as docker
from knotwork_plugins.spinups.github_actions import plugin as github_actions
from knotwork_plugins.spinups.kubernetes import plugin as kubernetes
from knotwork_plugins.spinups.local import plugin as local
from knotwork_plugins.spinups.ssh import plugin as ssh
from knotwork_plugins.spinups.webhook import plugin as webhook

FACTORIES = tuple(module.FACTORY for module in (local, ssh, docker, kubernetes, github_actions, webhook))

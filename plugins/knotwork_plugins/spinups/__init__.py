"""Ways of starting agents, one folder each; `words`, `environment`, `places` and `answers` are what they share."""

from knotwork_plugins.spinups.local import plugin as local

FACTORIES = tuple(module.FACTORY for module in (local,))

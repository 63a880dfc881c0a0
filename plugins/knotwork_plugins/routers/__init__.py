"""Ways of choosing an agent, one file each."""

from knotwork_plugins.routers import capability

FACTORIES = (capability.FACTORY,)

"""Ways of choosing an agent, one file each."""

from knotwork_plugins.routers import capability, policy, round_robin, sticky

FACTORIES = (capability.FACTORY, policy.FACTORY, round_robin.FACTORY, sticky.FACTORY)

"""The bundled things in the world that start runs; what they need is imported when one is opened."""

from knotwork_plugins.triggers.poll import plugin as poll

FACTORIES = (poll.FACTORY,)

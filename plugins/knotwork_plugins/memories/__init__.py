"""The bundled places to remember things, and what finds memories by meaning; what they need is imported when opened."""

from knotwork_plugins.memories import kv, openai_embeddings
from knotwork_plugins.memories.sqlite import plugin as sqlite

FACTORIES = (kv.FACTORY, sqlite.FACTORY, openai_embeddings.FACTORY)

"""The bundled places to remember things, and what finds memories by meaning; what they need is imported when opened."""

from knotwork_plugins.memories import kv, model2vec, openai_embeddings
from knotwork_plugins.memories.sqlite import plugin as sqlite

FACTORIES = (kv.FACTORY, sqlite.FACTORY, openai_embeddings.FACTORY, model2vec.FACTORY)

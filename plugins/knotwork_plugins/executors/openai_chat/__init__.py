"""A model behind an OpenAI-compatible endpoint as an agent: `plugin` is the executor, `sse` reads its stream."""

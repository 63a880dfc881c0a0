"""A URL as an agent: `plugin` is the executor, `template` puts the input into the URL."""

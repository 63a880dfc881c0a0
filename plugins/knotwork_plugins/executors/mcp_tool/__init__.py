"""A tool of an MCP server as an agent: `plugin` is the executor, `link` holds the server, `config` its options."""

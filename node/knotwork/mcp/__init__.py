"""The door for agents: tools made from ops, over stdio by a thin bridge and over HTTP at `/mcp`."""

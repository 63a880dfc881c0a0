"""Agents that have a command line: one file each for what is special, `agent`, `run` and `heard` for what they share."""

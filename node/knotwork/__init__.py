"""Knotwork: one executable that turns a machine into a node where AI agents and scripts meet."""

__version__ = "0.1.0"

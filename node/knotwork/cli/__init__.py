"""Words typed at a shell become one call of an op."""

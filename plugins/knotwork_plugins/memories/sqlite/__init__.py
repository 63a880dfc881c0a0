"""A place to remember things on one machine: a SQLite database."""

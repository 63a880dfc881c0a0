"""Which tables has the database of a project? Their shape; a file of another version is made anew from the streams."""

from __future__ import annotations

VERSION = 3
"""Raise it with every change below."""

COLUMNS = (
    "id", "state", "capability", "agent", "node", "boundary", "priority", "labels", "submitted_ns", "started_ns",
    "ended_ns", "due_ns", "deadline_ns", "attempts", "iteration", "code", "message", "worker", "target", "parent", "key",
    "submitter", "rank", "seq", "archived",
)  # fmt: skip
"""The columns of a task after its `ord`, as in `evidence.Entry`."""

TABLES = """
CREATE TABLE tasks (
  ord INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  capability TEXT NOT NULL,
  agent TEXT NOT NULL,
  node TEXT NOT NULL,
  boundary TEXT NOT NULL,
  priority INTEGER NOT NULL,
  labels TEXT NOT NULL,
  submitted_ns INTEGER NOT NULL,
  started_ns INTEGER NOT NULL,
  ended_ns INTEGER NOT NULL,
  due_ns INTEGER NOT NULL,
  deadline_ns INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  iteration INTEGER NOT NULL,
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  worker TEXT NOT NULL,
  target TEXT NOT NULL,
  parent TEXT NOT NULL,
  key TEXT NOT NULL,
  submitter TEXT NOT NULL,
  rank INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  archived INTEGER NOT NULL
);
CREATE INDEX tasks_state ON tasks (state);
CREATE INDEX tasks_capability ON tasks (capability);
CREATE INDEX tasks_agent ON tasks (agent) WHERE agent <> '';
CREATE INDEX tasks_node ON tasks (node) WHERE node <> '';
CREATE INDEX tasks_boundary ON tasks (boundary) WHERE boundary <> 'none';
CREATE INDEX tasks_parent ON tasks (parent) WHERE parent <> '';
CREATE INDEX tasks_archived ON tasks (archived) WHERE archived > 0;
CREATE TABLE labels (name TEXT, value TEXT, ord INTEGER, PRIMARY KEY (name, value, ord)) WITHOUT ROWID;
CREATE INDEX labels_ord ON labels (ord);
CREATE TABLE ends (
  id TEXT, iteration INTEGER, number INTEGER, state TEXT, agent TEXT, node TEXT, started_ns INTEGER, ended_ns INTEGER,
  due_ns INTEGER, code TEXT, message TEXT, seq INTEGER,
  PRIMARY KEY (id, iteration, number)
) WITHOUT ROWID;
CREATE TABLE traces (
  id TEXT PRIMARY KEY, attempt INTEGER, started INTEGER, at_ns INTEGER, node TEXT, agent TEXT, released INTEGER,
  claimed INTEGER
) WITHOUT ROWID;
CREATE TABLE counters (
  state TEXT, capability TEXT, boundary TEXT, agent TEXT, count INTEGER,
  PRIMARY KEY (state, capability, boundary, agent)
) WITHOUT ROWID;
CREATE TABLE runs (
  id TEXT PRIMARY KEY, workflow TEXT NOT NULL DEFAULT '', digest TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL DEFAULT 'running', submitter TEXT NOT NULL DEFAULT '', trigger TEXT NOT NULL DEFAULT '',
  parent TEXT NOT NULL DEFAULT '', first TEXT NOT NULL DEFAULT '', number INTEGER NOT NULL DEFAULT 0,
  next TEXT NOT NULL DEFAULT '', labels TEXT NOT NULL DEFAULT '{}', code TEXT NOT NULL DEFAULT '',
  message TEXT NOT NULL DEFAULT '', started_ns INTEGER NOT NULL DEFAULT 0, ended_ns INTEGER NOT NULL DEFAULT 0,
  kept INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX runs_started ON runs (started_ns);
CREATE INDEX runs_workflow ON runs (workflow, started_ns);
CREATE INDEX runs_kept ON runs (kept) WHERE kept > 0;
CREATE TABLE places (stream TEXT PRIMARY KEY, seq INTEGER, created TEXT) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (text);
CREATE VIEW attempts AS
  SELECT id, iteration, number, state, agent, node, started_ns, ended_ns, due_ns, code, message FROM ends
  UNION ALL
  SELECT id, iteration, attempts, state, agent, node, started_ns, ended_ns, due_ns, code, message FROM tasks
  WHERE rank & 1 = 0 OR rank >= 4294967296;
"""
"""`ord` orders tasks by submission. `ends` are attempts that another followed or may follow, `attempts` all of them."""

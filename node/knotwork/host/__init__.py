"""The process: it opens the rooms in order and closes them in reverse.

START HERE: `node.py`. `layout` says where files are, `boot` brings up NATS, `projects` joins each project's mesh,
`world` holds what is configured, `reload` exchanges it, `control` answers the ops, `doors` opens NATS.
"""

"""What can be asked about the past: a local SQLite read model, rebuilt from the streams at any time.

Follow one message: `follow` reads it in a process of its own (`child`, `serving`), `evidence` says what it tells, `fold`
what that changes, `writer` writes it into the `database`. The node asks through `room.View`; `keeper` keeps the process
alive; `lately` reads what a database that is far behind has not. `archive` packs what ended, for every node's view.
"""

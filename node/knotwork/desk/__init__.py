"""What does a node answer to those who ask? Rooms on one side, the ops' replies on the other.

For each group of ops there is a desk, a class that carries out one of the protocols in `ops`: `tasks`, `claims`, `runs`
(workflows, too), `triggers`, `crew`, `agents`, `sessions`, `talk`, `memory`, `targets`, `tools`, `view`, `approvals`. A desk
with several parts is a package, or they stand beside it: `crew_rows`; `seen_agents` and `route_view` beside `agents`. `runs`
knows `tasks`, and not the other way round. `events` and `feed` tell those who look on, `callers` says who asks.
"""

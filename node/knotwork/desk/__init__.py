"""What does a node answer to those who ask? Rooms on one side, the ops' replies on the other.

For each group of ops there is a desk, a class that carries out one of the protocols in `ops`: `tasks`, `claims`, `flows`,
`triggers`, `crew`, `agents`, `sessions`, `talk`, `memory`, `targets`, `tools`, `view`, `approvals`. What one of them is too
large for stands beside it: `task_*`, `new_tasks` and `dead_letters` beside `tasks`; `run_*` and `flow_rows` beside `flows`;
`crew_rows`; `seen_agents` and `route_view` beside `agents`. `events` and `feed` tell those who look on, `callers` says who asks.
"""

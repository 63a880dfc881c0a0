"""Orchestrations: a big job is split among sub-agents, done as a durable workflow, and put together again.

assess (`assess`, pure) → spawn (`starting`) → checkpoint → collect (`sight`, pure) → synthesize (`synthesis`, pure).
`room` wires them for one project; `keeping` carries on what nobody asks for.
"""

"""One thing to do, done once: submit, queue, worker, outcome, dead letter.

Follow one task: `submit` stores it in TASKS, `worker` takes it and has an agent execute it, `settle` decides what its
end means, `recording` stores that as a fact, and `waiting` tells whoever awaits it. `records` says what is stored.
"""

"""A Python function as an agent: `plugin` is the executor, `loading` finds the function, `threads` runs what blocks."""

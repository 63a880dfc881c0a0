"""Capacity that is missing, and capacity that idles: agents are started where they are needed, and stopped again.

Follow one launch: `demand` sees tasks that nobody can take, `ranking` picks the target, `launcher` starts an agent
there and waits until it has registered, `idle` finds that it is not needed any more, `launcher` ends it. Everything a
launch goes through is kept in the TARGETS bucket (`records`), so that any restart goes on where it was.
"""

"""What did a plugin raise? Whatever class it is of, the plugin failed, and nothing else.

Extensions in Rust panic with a `BaseException`, foreign code calls `sys.exit()`: neither may end a node. Two errors alone
are not the plugin's but end the coroutine that asked it: a cancel, and that it is thrown away before its end.
"""

from __future__ import annotations

import asyncio

from knotwork.sdk import KnotworkError, PluginFailed, Unavailable
from knotwork.sdk.errors import leaves
from knotwork.sockets import said

ENDS = (asyncio.CancelledError, GeneratorExit)
"""What goes on through a boundary; whoever knows his task asks it whether that was really meant."""
HARMLESS = (Exception, *ENDS)
"""What ends whoever asked a plugin, and nothing beside him; all else would end the process."""


def thrown_away(task: asyncio.Task[object]) -> bool:
    """Return whether the coroutine of a task is closed from outside: a `GeneratorExit` in it is not its plugin's then."""
    try:
        return asyncio.current_task() is not task
    except RuntimeError:  # there is no loop any more
        return True


def as_ours(error: BaseException) -> KnotworkError:
    """Return one error of ours for whatever was raised; a group of several is told by all its members."""
    found = list(leaves(error))
    ours = [leaf for leaf in found if isinstance(leaf, KnotworkError)]
    if len(ours) == len(found) == 1:
        return ours[0]
    for crash in ours:
        if crash.code == "plugin.crashed":
            return crash  # whatever else is in the group followed from it
    told = "; ".join(text(leaf) for leaf in found[:5])
    patient = [leaf for leaf in ours if isinstance(leaf, Unavailable)]
    return Unavailable(told) if len(patient) == len(found) else PluginFailed(told, code="plugin.raised")


def text(error: BaseException) -> str:
    """Return what an error says, also when that is foreign code which fails."""
    return str(error) if isinstance(error, KnotworkError) else said.crash(error)

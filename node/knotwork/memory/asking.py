"""How is a memory plugin asked? For a while, and whatever else it raises or gives is its own failure, and told as that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from knotwork.memory.settings import Around
from knotwork.sdk.errors import PluginFailed, Unavailable
from knotwork.sdk.memory import Kept
from knotwork.sockets import raised

ASK_S = 20.0
"""How long a plugin may take: longer than NATS or a disk that works at all."""
Answer = TypeVar("Answer")


async def asked(around: Around, instance: str, ask: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Return what the plugin of an instance answers, which is not closed meanwhile; raises what `answered` does."""
    with around.slot(instance).lease() as plugin:
        return await answered(instance, lambda: ask(plugin))


async def answered(instance: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return what a plugin answers; raises what `safely` does, and `Unavailable` (`memory.no_answer`) when it is slow."""
    try:
        async with asyncio.timeout(ASK_S):
            return await safely(instance, ask)
    except TimeoutError as error:
        raise Unavailable(
            f"{instance} did not answer within {ASK_S:g} s. If something was to be written, it may be kept or not.",
            code="memory.no_answer", hint="Look, and try again; see `knotwork status`.",
        ) from error  # fmt: skip


async def safely(instance: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return what a plugin answers.

    Raises what it raises of ours, and `PluginFailed` (`plugin.raised`) for anything else, also for a cancellation that
    is its own.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await ask()
    except GeneratorExit:
        raise
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > before:
            raise
        raise PluginFailed(f"{instance} cancelled whoever asked it.", code="plugin.raised") from error
    except BaseException as error:  # the boundary: whatever a plugin raises is its own failure
        raise raised.as_ours(error) from error


def revision(instance: str, answer: object) -> int:
    """Return the revision that a plugin gave for a change; raises `PluginFailed` (`plugin.failed`) for what is none."""
    if type(answer) is int and answer >= 0:
        return answer
    raise PluginFailed(f"{instance} gave {_shown(answer)} for a revision.", code="plugin.failed")


def kept(instance: str, answer: object) -> Kept | None:
    """Return the record that a plugin gave; raises `PluginFailed` (`plugin.failed`) for what is none."""
    if answer is None or (
        isinstance(answer, Kept) and isinstance(answer.value, bytes) and type(answer.revision) is int
    ):
        return answer
    raise PluginFailed(f"{instance} gave {_shown(answer)} for a record.", code="plugin.failed")


def _shown(answer: object) -> str:
    return f"a {type(answer).__name__}"

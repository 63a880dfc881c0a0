"""Is a target well? It is asked every so often, and at once when its plugin is another than before or runs again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from knotwork.bus import clock
from knotwork.sdk.errors import KnotworkError
from knotwork.sockets import raised

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.sdk.spinup import SpinUp
    from knotwork.spinup.launcher import Own
    from knotwork.spinup.records import Target
    from knotwork.spinup.registry import Registry

PROBE_TIMEOUT_S = 30.0


class Asked(NamedTuple):
    """When a target was asked last, and what it was then: its plugin is None while it does not run."""

    own: Own
    plugin: SpinUp | None
    at_s: float


class Health:
    """The health of one node's targets, written into their records."""

    def __init__(self, registry: Registry) -> None:
        """Have asked none yet."""
        self._registry = registry
        self._asked: dict[str, Asked] = {}

    def edited(self, own: Own) -> bool:
        """Return whether a target is another than when it was asked last: how it did until then tells nothing of it."""
        asked = self._asked.get(own.target)
        return asked is not None and asked.own != own

    def due(self, own: Mapping[str, Own]) -> list[Own]:
        """Return the targets to ask now; they count as asked."""
        self._asked = {name: asked for name, asked in self._asked.items() if name in own}
        now_s, found = time.monotonic(), []
        for name, mine in own.items():
            asked, plugin = self._asked.get(name), _running(mine)
            if mine.enabled and (
                asked is None or asked.own != mine or asked.plugin is not plugin or now_s - asked.at_s > mine.health_s
            ):
                self._asked[name] = Asked(mine, plugin, now_s)
                found.append(mine)
        return found

    async def look(self, own: Own, target: Target) -> None:
        """Ask a target; one that cannot be written down is asked again."""
        with contextlib.suppress(KnotworkError):
            await self.probe(own, target)

    async def probe(self, own: Own, target: Target) -> Target:
        """Ask a target whether it is well and return its record, which says so."""
        why = ""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                with own.lease() as plugin:
                    await plugin.probe()
        except TimeoutError:
            why = f"no answer within {PROBE_TIMEOUT_S:g} s"
        except KnotworkError as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001  whatever a plugin raises is a reason
            why = raised.text(error)
        checked_ns = clock.now_ns()
        return await self._registry.change_target(
            target.node, target.target,
            lambda now: msgspec.structs.replace(
                now, health="unhealthy" if why else "healthy", why=why[:4000], checked_ns=checked_ns
            ),
        )  # fmt: skip


def _running(own: Own) -> SpinUp | None:
    try:
        with own.lease() as plugin:
            return plugin
    except KnotworkError:
        return None

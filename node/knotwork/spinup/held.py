"""What becomes of launches whose target leaves the configuration? Its plugin is held until they are over.

A reload stops a plugin that nobody uses. The plugin of a target with live launches is in use: so it is there to end
them, for as long as a reload lets old plugins finish.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from knotwork.sdk.spinup import SpinUp
    from knotwork.spinup.launcher import Own
    from knotwork.spinup.registry import Registry

log = logging.getLogger(__name__)


class Held:
    """The plugins of one node's targets, in use for as long as launches of theirs live."""

    def __init__(self, registry: Registry, node: str) -> None:
        """Hold none yet."""
        self._registry, self._node = registry, node
        self._held: dict[str, tuple[Own, AbstractContextManager[SpinUp]]] = {}

    def look(self, own: Mapping[str, Own]) -> None:
        """Take note of which targets are configured now, and how."""
        for name in [name for name in self._held if not self._registry.live(self._node, name)]:
            self._drop(name)
        for name, mine in own.items():
            if self._registry.live(self._node, name):
                self.take(mine)

    def take(self, own: Own) -> None:
        """Hold the plugin of a target that is about to launch, or has launched; one that does not run is not there."""
        held = self._held.get(own.target)
        if held is not None and held[0].lease == own.lease:
            self._held[own.target] = own, held[1]
            return
        using = own.lease()
        try:
            using.__enter__()
        except KnotworkError as error:
            log.debug("target %s: %s", own.target, error)
            return
        self._drop(own.target)
        self._held[own.target] = own, using

    def left(self, target: str) -> Own | None:
        """Return a target as it was configured last, None when its plugin does not run any more."""
        own, _ = self._held.get(target, (None, None))
        if own is None:
            return None
        try:
            with own.lease():
                return own
        except KnotworkError:
            self._drop(target)
            return None

    def close(self) -> None:
        """Let go of all of them."""
        for name in list(self._held):
            self._drop(name)

    def _drop(self, name: str) -> None:
        _, using = self._held.pop(name, (None, None))
        if using is not None:
            using.__exit__(None, None, None)

"""What becomes of launches whose target leaves the configuration, or leads elsewhere? Its plugin is held until they are over.

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
    from knotwork.spinup.records import Launch
    from knotwork.spinup.registry import Registry

Key = tuple[str, str]
"""A target, and where it leads."""
log = logging.getLogger(__name__)


class Held:
    """The plugins of one node's targets, in use for as long as launches of theirs live."""

    def __init__(self, registry: Registry, node: str) -> None:
        """Hold none yet."""
        self._registry, self._node = registry, node
        self._held: dict[Key, tuple[Own, AbstractContextManager[SpinUp]]] = {}

    def look(self, own: Mapping[str, Own]) -> None:
        """Take note of which targets are configured now, and how."""
        for key, (mine, _) in list(self._held.items()):
            if not self._has_live(mine):
                self._drop(key)
        for mine in own.values():
            if self._has_live(mine):
                self.take(mine)

    def take(self, own: Own) -> None:
        """Hold the plugin of a target that is about to launch, or has launched; one that does not run is not there."""
        key = (own.target, own.place)
        held = self._held.get(key)
        if held is not None and held[0].lease == own.lease:
            self._held[key] = own, held[1]
            return
        using = own.lease()
        try:
            using.__enter__()
        except KnotworkError as error:
            log.debug("target %s: %s", own.target, error)
            return
        self._drop(key)
        self._held[key] = own, using

    def left(self, launch: Launch) -> Own | None:
        """Return the target of a launch as it was configured then, None when its plugin does not run any more."""
        for key, (own, _) in list(self._held.items()):
            if own.target != launch.target or not own.started(launch):
                continue
            try:
                with own.lease():
                    return own
            except KnotworkError:
                self._drop(key)
        return None

    def close(self) -> None:
        """Let go of all of them."""
        for key in list(self._held):
            self._drop(key)

    def _has_live(self, own: Own) -> bool:
        return any(own.started(launch) for launch in self._registry.live(self._node, own.target))

    def _drop(self, key: Key) -> None:
        _, using = self._held.pop(key, (None, None))
        if using is not None:
            using.__exit__(None, None, None)

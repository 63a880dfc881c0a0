"""What does the table of every bundled sink have in common? Which kinds of record it gets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from knotwork.sdk import PluginConfig


class SinkConfig(PluginConfig):
    """Keys of every bundled sink."""

    send: tuple[Literal["events", "spans", "metrics"], ...] = Field(
        default=("events", "spans", "metrics"), min_length=1, max_length=3, description="kinds of record it gets"
    )

    @property
    def wants(self) -> frozenset[str]:
        """What the emitter asks a sink for."""
        return frozenset(self.send)

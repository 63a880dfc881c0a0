"""Who can be written to? What this room has to know of agents; the sessions of a project know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.trust.who import Who


class Book(Protocol):
    """The agents and people of a project."""

    def look(self, name: str, by: Who | None = None) -> Who | None:
        """Return whom an id or a handle means, None for nobody; what `find` does, at no cost for names that are none."""
        ...

    def find(self, name: str, by: Who | None = None) -> Who:
        """Return whom an id or a handle means, here or not; raises `NotFound` (`agent.not_found`).

        Somebody whom `by` may not see is not found, either; None finds all.
        """
        ...

    def with_capability(self, capability: str, by: Who, scope: str = "team") -> list[Who]:
        """Return everybody of a scope who can do something, of other projects, too, as far as `by` may see them."""
        ...

    def tell(self, agent: str, notice: dict[str, Any]) -> bool:
        """Tell an agent (an id) that there is something for it; a hint, which may get lost."""
        ...

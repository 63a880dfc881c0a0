"""Who may see a thing? One rule for agents, channels, messages, work and memory (pure)."""

from __future__ import annotations

from typing import Literal, get_args

from knotwork.trust.who import Who

Scope = Literal["private", "personal", "team", "public"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


def may_see(scope: str, of: Who, by: Who) -> bool:
    """Return whether `by` may see what belongs to `of`: an unknown scope is seen by nobody but its owner.

    private: it alone. personal: all agents of the same owner, over projects and machines. team: all of the project.
    public: everybody. Whoever it belongs to always sees it.
    """
    if of.id == by.id and of.project == by.project:
        return True
    match scope:
        case "personal":
            return bool(of.owner) and of.owner == by.owner
        case "team":
            return of.project == by.project
        case "public":
            return True
        case _:
            return False

"""Who may see a thing? One rule for agents, channels, messages, work, orchestrations and memory (pure)."""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol, get_args

from knotwork.trust.who import Who

Scope = Literal["private", "personal", "team", "public"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


def reaches_out(scope: str) -> bool:
    """Return whether things of a scope can be seen by anybody outside of their project: whoever `may_see` lets."""
    return scope in ("personal", "public")


def circle(scope: str, of: Who) -> str:
    """Return what those are known by to whom `of` hands out work of a scope: private or personal; "" for all others."""
    match scope:
        case "private":
            return _circle(scope, of.id)
        case "personal":
            return _circle(scope, of.owner or of.id)
        case _:
            return ""


def circles(by: Who) -> tuple[str, ...]:
    """Return the circles that somebody belongs to: its own, its parent's, and that of the agents of its owner."""
    found = [_circle("private", by.id), *([_circle("private", by.parent)] if by.parent else [])]
    return (*found, _circle("personal", by.owner or by.id))


def _circle(scope: str, of: str) -> str:
    return f"{scope}-{hashlib.blake2b(of.encode(), digest_size=12).hexdigest()}"


def may_do(scope: str, of: Who, by: Who) -> bool:
    """Return whether `by` may see and take work that `of` handed out: who may see it, and sub-agents for their parent."""
    if of.project != by.project:
        return False
    return circle(scope, of) in circles(by) if scope in ("private", "personal") else may_see(scope, of, by)


def is_meant(scope: str, who: Who, by: Who) -> bool:
    """Return whether what `by` says to all of a scope is said to `who`, whom it may see.

    private: to the agents that it started. personal: to those of its owner, in every project. team: to those of its
    project. public: to everybody. An unknown scope means nobody.
    """
    match scope:
        case "private":
            return who.parent == by.id and who.project == by.project
        case "personal":
            return bool(by.owner) and who.owner == by.owner
        case "team":
            return who.project == by.project
        case _:
            return scope == "public"


class Owned(Protocol):
    """What somebody's thing says of whose it is; a `Who` does."""

    @property
    def id(self) -> str:
        """Return who it is."""

    @property
    def project(self) -> str:
        """Return where that one is."""

    @property
    def owner(self) -> str:
        """Return the person whose agent that is."""


def may_see(scope: str, of: Owned, by: Who) -> bool:
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

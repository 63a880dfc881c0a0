"""Who is meant by a name in what agents say to each other? An agent with a session, or a person with agents here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from knotwork.mesh import session_records
from knotwork.sdk.errors import NotFound
from knotwork.trust.scopes import is_meant, may_see, reaches_out
from knotwork.trust.who import person

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.mesh.sessions import Sessions
    from knotwork.trust.who import Who

OWNERS_S = 1.0
"""How old it may be who has agents here."""


class SessionBook:
    """The agents of a project, and the people they belong to (`talk.book.Book`)."""

    def __init__(self, sessions: Sessions, owner: Callable[[], str]) -> None:
        """Look in `sessions`; `owner()` is whose node this is."""
        self._sessions, self._owner = sessions, owner
        self._owners: set[str] = set()
        self._owners_s = -OWNERS_S

    def look(self, name: str, by: Who | None = None) -> Who | None:
        """Return whom an id or a handle means, None for nobody."""
        try:
            record = self._sessions.find(name)
        except NotFound:
            owner = name.removeprefix("person-")
            return person(owner, self._sessions.project) if self._is_owner(owner) else None
        return record.who if by is None or may_see(record.scope, record.who, by) else None

    def _is_owner(self, name: str) -> bool:
        """Return whether somebody of that name has a node or an agent here, as known a second ago."""
        now_s = time.monotonic()
        if name not in self._owners and now_s - self._owners_s > OWNERS_S:
            self._owners = {self._owner(), *(known.owner for known, _ in self._sessions.all())}
            self._owners_s = now_s
        return name in self._owners

    def find(self, name: str, by: Who | None = None) -> Who:
        """Return whom an id or a handle means; raises `NotFound` (`agent.not_found`), naming near ones.

        With `by` it may be an agent of another project, too: by its id, or as handle@project.
        """
        found = self.look(name.removesuffix(f"@{self._sessions.project}"), by)
        if found is None and by is not None and self._sessions.afar is not None:
            far = self._sessions.afar.find(name, by)
            found = far.who if far is not None else None
        if found is None:
            raise self._unknown(name, by)
        return found

    def _unknown(self, name: str, by: Who | None) -> NotFound:
        """Return the error of somebody who is not there, or not to be seen: the two look the same."""
        handles = [one.handle for one, _ in self._sessions.all() if by is not None and may_see(one.scope, one.who, by)]
        return session_records.unknown(name, self._sessions.project, handles)

    def with_capability(self, capability: str, by: Who, scope: str = "team") -> list[Who]:
        """Return everybody of a scope who can do something, of other projects, too, as far as `by` may see them."""
        near = self._sessions.with_capability(capability)
        found = [record.who for record in near if may_see(record.scope, record.who, by)]
        if reaches_out(scope) and self._sessions.afar is not None:
            found += self._sessions.afar.with_capability(capability, by)
        return [who for who in found if is_meant(scope, who, by)]

    def tell(self, agent: str, notice: dict[str, Any]) -> bool:
        """Tell an agent something."""
        return self._sessions.tell(agent, notice)

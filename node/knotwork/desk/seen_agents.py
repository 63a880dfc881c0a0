"""Which agents are there for somebody, and whom does an id mean? Those that came in and may not be seen are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.sdk.errors import Denied, NotFound
from knotwork.trust.scopes import may_see

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from knotwork.mesh.directory import Directory, State
    from knotwork.mesh.records import AgentRecord, NodeRecord
    from knotwork.mesh.sessions import Sessions
    from knotwork.sdk.router import Candidate
    from knotwork.trust.who import Who


class SeenAgents:
    """The agents of one project as somebody may see them."""

    def __init__(self, sessions: Sessions | None = None, by: Who | None = None) -> None:
        """Look with the eyes of `by`; without sessions or somebody who asks, everybody is seen and ids mean nobody."""
        self._sessions, self._by = sessions, by

    def hides(self, handle: str) -> bool:
        """Return whether there is an agent of this handle that may not be seen."""
        return self._sessions is not None and self._by is not None and self._sessions.hides(handle, self._by)

    def named(self, target: str) -> str:
        """Return `agent` or `node/agent` with the handle that an id stands for; everything else as it is."""
        node, mark, agent = target.rpartition("/")
        if self._sessions is None or self._by is None or not agent:
            return target
        try:
            record = self._sessions.find(agent)
        except NotFound:
            return target
        if record.id != agent or not may_see(record.scope, record.who, self._by):
            return target
        return f"{node}{mark}{record.handle}"

    def of(self, directory: Directory) -> Iterator[tuple[NodeRecord, AgentRecord, State]]:
        """Yield the agents of a directory that may be seen."""
        for record, agent, state in directory.agents():
            if not (agent.attached and self.hides(agent.name)):
                yield record, agent, state

    def count(self, record: NodeRecord) -> int:
        """Return how many agents of a node may be seen."""
        return sum(not (agent.attached and self.hides(agent.name)) for agent in record.agents)

    def among(self, directory: Directory, found: Sequence[Candidate]) -> list[Candidate]:
        """Return those candidates that may be seen."""
        return [one for one in found if not self._is_hidden(directory, one)]

    def _is_hidden(self, directory: Directory, one: Candidate) -> bool:
        place = directory.place(one.node, one.agent)
        return place is not None and place.record.attached and self.hides(one.agent)


def check_name(name: str, by: Who, owner: str, sessions: Sessions, directory: Directory) -> None:
    """Raise `Denied` (`claim.not_you`) when somebody asks for work in the name of a living agent that is another.

    That is one with a session, unless it is `by` itself, and for an `owner` one at a node of somebody else.
    """
    record, told = sessions.known(name), ""
    if record is not None and name in (record.handle, record.id) and record.id != by.id:
        if sessions.presence(record) != "offline":
            told = "an agent with a session of its own"
    elif by.kind != "agent":
        others = (one for one, state in directory.called(name) if state != "offline" and one.owner not in ("", owner))
        if other := next(others, None):
            told = f"an agent of {other.owner} on {other.node}"
    if told:
        raise Denied(
            f"{name} is {told}: nobody else takes work in its name.", code="claim.not_you",
            hint="Take another name for yourself.",
        )  # fmt: skip

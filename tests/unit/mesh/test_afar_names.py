"""Agents of other projects are found by the names that their messages bear."""

from __future__ import annotations

from knotwork.mesh.afar import Afar
from knotwork.mesh.session_records import AgentSession, identity, renamed
from knotwork.trust.who import Who

ASKER = Who(identity("blue", "asker"), "asker", "blue", "olga")


def agent(label: str, handle: str, *, project: str = "red", scope: str = "public") -> AgentSession:
    return AgentSession(identity(project, label), handle, project, "carl", "n1", "i1", scope=scope)  # type: ignore[arg-type]


def test_an_agent_is_found_by_a_name_it_had_until_another_has_it():
    afar, first, second = Afar("n1", "i1"), agent("1", "ann"), agent("2", "bob")
    afar.tell(first)
    assert afar.find("ann@red", ASKER) == first
    first = renamed(first, "anne")
    afar.tell(first)
    for name in ("ann@red", "anne@red", first.id):
        assert afar.find(name, ASKER) == first
    for name in ("ann@green", "ann", "nobody@red", "@red", "ann@"):
        assert afar.find(name, ASKER) is None
    afar.tell(second)
    second = renamed(renamed(second, "ann"), "bert")
    afar.tell(second)
    assert afar.find("ann@red", ASKER) is None  # it was that of two
    second = renamed(second, "ann")
    afar.tell(second)
    assert afar.find("ann@red", ASKER) == second
    assert afar.find("ann@red", Who(identity("red", "x"), "x", "red", "carl")) is None


def test_who_hides_is_not_found_by_a_name_it_had_either():
    afar, shy = Afar("n1", "i1"), renamed(agent("1", "ann", scope="personal"), "anne")
    afar.tell(shy)
    assert (afar.find("ann@red", ASKER), afar.find("anne@red", ASKER)) == (None, None)

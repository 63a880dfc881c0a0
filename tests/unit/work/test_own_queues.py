"""Work of one circle alone: its queue cannot be named by anybody, and nobody outside is given what lies there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.bus import subjects
from knotwork.mesh.records import AgentRecord
from knotwork.ops.tasks import SubmitRequest
from knotwork.trust.scopes import circle, circles
from knotwork.trust.who import Who
from knotwork.work.queues import Queue, from_consumer
from knotwork.work.taking import serves

ME, OTHER = Who("a1", "me", "shop", "ann"), Who("b1", "other", "shop", "bob")
CHILD, SISTER = Who("c1", "child", "shop", "eve", parent="a1"), Who("a2", "sister", "shop", "ann")


def taker(who: Who, *more: str) -> Any:
    own = [subjects.own(one, "review") for one in circles(who)]
    return SimpleNamespace(up=True, record=AgentRecord(who.name, ("review", *own, *more)))


@pytest.mark.parametrize(("scope", "served"), [("private", {ME, CHILD}), ("personal", {ME, SISTER})])
def test_a_circle_alone_is_served(scope: str, served: set[Who]):
    queue = Queue("none", subjects.own(circle(scope, ME), "review"), "normal")
    assert {who for who in (ME, OTHER, CHILD, SISTER) if serves(taker(who), queue, "here")} == served
    assert from_consumer(queue.consumer) == queue
    assert subjects.circle_of(queue.routed) == circle(scope, ME)
    assert subjects.addressee(queue.routed) is None


def test_another_capability_is_not_served():
    queue = Queue("none", subjects.own(circle("private", ME), "deploy"), "normal")
    assert not serves(taker(ME), queue, "here")


@pytest.mark.parametrize("routed", ["review", "=agent", "node=agent", "node="])
def test_what_is_the_projects_has_no_circle(routed: str):
    assert subjects.queue(routed) == routed
    assert subjects.circle_of(routed) == ""


@pytest.mark.parametrize(
    "name", ["==x=review", f"=={circle('private', ME)}=", f"=={circle('private', ME)}=Big", "==", "==="]
)
def test_nothing_else_is_such_a_queue(name: str):
    with pytest.raises(Exception, match="not a valid name"):
        subjects.queue(name)


def test_no_request_can_name_such_a_queue():
    for field in ("capability", "target"):
        with pytest.raises(ValueError, match="match pattern"):
            SubmitRequest.model_validate({field: subjects.own(circle("private", ME), "review")})


def test_work_for_a_name_that_may_be_seen_is_for_hosted_agents_and_those_who_show_that_they_may():
    routed = subjects.seen("anna")
    queue = Queue("none", routed, "normal")
    assert from_consumer(queue.consumer) == queue
    assert (subjects.addressee(routed), subjects.circle_of(routed), subjects.shown(routed)) == (
        ("", "anna"),
        "",
        "=anna",
    )
    came_in = {"attached": True}
    for record, served in (
        (AgentRecord("anna", ()), True),
        (AgentRecord("bob", ()), False),
        (AgentRecord("anna", (), **came_in), False),
        (AgentRecord("anna", (routed,), **came_in), True),
    ):
        assert serves(SimpleNamespace(up=True, record=record), queue, "here") is served

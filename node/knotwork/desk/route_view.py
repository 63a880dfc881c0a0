"""How is a choice of agents explained? The same decision as for a call or a task, with every candidate and its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from knotwork.mesh import routing
from knotwork.mesh.policy import NONE
from knotwork.ops import replies
from knotwork.sdk.errors import KnotworkError, PluginFailed, Unavailable
from knotwork.sdk.router import Ask
from knotwork.work import queues, route

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knotwork.mesh.membership import Membership
    from knotwork.mesh.routing import Choice
    from knotwork.ops.ports import RouteQuestion
    from knotwork.sdk.router import Candidate


async def explain(membership: Membership, question: RouteQuestion) -> replies.RouteWhy:
    """Return who would do a piece of work; raises `Invalid` (`policy.unknown_boundary`), `NotFound` for unknown names."""
    membership.look()
    policy = membership.policy()
    boundary, why = policy.admit(question.boundary), "it was named" if question.boundary else ""
    if boundary == NONE and (found := policy.classes.find(question.path, question.labels)) is not None:
        boundary, why = found
    node, _, agent = question.target.rpartition("/")
    ask = Ask(
        capability=question.capability, agent=agent, node=node, boundary="" if boundary == NONE else boundary,
        require=question.require, prefer=question.prefer, exclude=question.exclude, here=membership.here,
        key=question.sticky or question.labels.get(route.KEY_LABEL, ""),
    )  # fmt: skip
    choice: Choice | None = None
    refused: Mapping[str, str]
    try:
        choice = await routing.decide(membership.routers(), ask, membership.directory, policy)
        refused, reason = choice.refused, choice.reason
    except (Unavailable, PluginFailed) as error:
        refused, reason = _told(error), error.message
    rows = membership.directory.candidates(agent=agent, node=node, capability=question.capability)
    return replies.RouteWhy(
        boundary=ask.boundary,
        boundary_why=why,
        router=choice.router if choice is not None else "",
        reason=reason,
        queue=_queue(ask, choice),
        candidates=_rows(rows, choice.candidates if choice is not None else (), refused),
    )


def _queue(ask: Ask, choice: Choice | None) -> str:
    """Return where a task would wait."""
    if ask.agent:
        return queues.routed(agent=ask.agent, node=ask.node)
    if choice is None or not choice.answer.pin:
        return ask.capability
    return queues.routed(agent=choice.candidates[0].agent, node=choice.candidates[0].node)


def _rows(
    known: Sequence[Candidate], chosen: Sequence[Candidate], refused: Mapping[str, str]
) -> list[replies.RouteCandidate]:
    """Return every candidate: those chosen in the order of trying, then those left out."""
    places = {one.name: (place, one.standing) for place, one in enumerate(chosen, 1)}
    rows = [
        replies.RouteCandidate(
            agent=one.name, place=places.get(one.name, (0, ""))[0], standing=places.get(one.name, (0, ""))[1],
            state=cast("Any", one.state), load=round(one.load, 3), executor=one.executor,
            why="" if one.name in places else refused.get(one.name, "the router left it out"),
        )
        for one in known
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row.place == 0, row.place, row.agent))


def _told(error: KnotworkError) -> dict[str, str]:
    found = error.detail.get("candidates")
    return {str(name): str(why) for name, why in found.items()} if isinstance(found, dict) else {}

"""Who gets this work? Whom the policy allows; of those the configured routers choose, asked in order.

When nobody fits, the error names each and why not.
"""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import Awaitable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from knotwork.mesh.policy import NONE, READY, Policy
from knotwork.sdk.errors import KnotworkError, NotFound, PluginFailed, Unavailable, Unreachable, guess
from knotwork.sdk.router import Route
from knotwork.sockets import raised

if TYPE_CHECKING:
    from knotwork.mesh.directory import Directory
    from knotwork.sdk.router import Ask, Candidate
    from knotwork.sockets.slot import Slot

SHOWN_MAX = 20
PATIENCE_S = 1.0
"""After which a router that does not answer is given up."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who to try, best first, and how that came about: the router that answered, and whom the policy kept out."""

    candidates: Sequence[Candidate]
    router: str
    answer: Route
    forbidden: Mapping[str, str]

    @property
    def reason(self) -> str:
        """Return the router's own words."""
        try:
            return str(self.answer.reason)[:500]
        except Exception:  # noqa: BLE001  even its text is the plugin's code
            return ""

    @property
    def refused(self) -> dict[str, str]:
        """Return why each candidate was left out, as far as the router tells it."""
        try:
            return {**self.forbidden, **_told(self.answer)}
        except Exception:  # noqa: BLE001  the same
            return dict(self.forbidden)


async def choose(
    routers: Sequence[Slot], ask: Ask, directory: Directory, policy: Policy = READY
) -> Sequence[Candidate]:
    """Return who to try, best first, one at least; raises what `decide` raises."""
    return (await decide(routers, ask, directory, policy)).candidates


async def decide(routers: Sequence[Slot], ask: Ask, directory: Directory, policy: Policy = READY) -> Choice:
    """Return who to try, best first, one at least, and why.

    Raises `Invalid` (`policy.unknown_boundary`), `NotFound` (`agent.not_found`, `node.not_found`) for a name nobody
    has and (`route.no_eligible_agent`) for a capability nobody offers, `Unavailable` (`route.no_eligible_agent`) when
    somebody has it but nobody may take it now, `Unreachable` (`agent.away`) when the node of a named agent is offline.
    """
    ask, candidates, forbidden = _offered(ask, directory, policy)
    broken: dict[str, str] = {}
    task = asyncio.current_task()
    assert task is not None
    for slot in routers:
        before = task.cancelling()
        try:
            answer = await _within_patience(slot.plugin.route(ask, candidates))
            if answer is None:
                continue
            found = _checked(answer, candidates)
            refused = {} if found else {**forbidden, **_told(answer)}
        except BaseException as error:  # the boundary: whatever a foreign router raises must not break routing
            if isinstance(error, asyncio.CancelledError) and task.cancelling() > before:
                raise
            if isinstance(error, GeneratorExit) and raised.thrown_away(task):
                raise
            broken[slot.id] = _words(error)
            continue
        if not found:
            raise _none_fits(ask, refused)
        return Choice(found, slot.id, answer, forbidden)
    if broken:
        told = "; ".join(f"{name}: {why}" for name, why in broken.items())
        raise PluginFailed(f"No router could decide: {told}.", code="route.no_router")
    raise Unavailable("No router took this call.", code="route.undecided", hint="Add 'capability' to routing.routers.")


def _offered(ask: Ask, directory: Directory, policy: Policy) -> tuple[Ask, Sequence[Candidate], dict[str, str]]:
    """Return what the routers are asked, about whom, and whom the policy keeps out."""
    if ask.boundary and policy.admit(ask.boundary) == NONE:
        ask = replace(ask, boundary="")
    candidates = directory.candidates(agent=ask.agent, node=ask.node, capability=ask.capability)
    if not candidates:
        raise _nobody(ask, directory)
    if not ask.boundary:
        return ask, candidates, {}
    may, forbidden = policy.sift(ask.boundary, candidates)
    if not may:
        raise _none_fits(ask, forbidden)
    return ask, may, forbidden


async def _within_patience(asked: Awaitable[Any]) -> Any:
    """Return a router's answer; one that is there at once costs no timer, which is a tenth of a whole call."""
    if isinstance(asked, types.CoroutineType):
        try:
            first = asked.send(None)
        except StopIteration as done:
            return done.value
        asked = _Begun(asked, first)
    async with asyncio.timeout(PATIENCE_S):
        return await asked


class _Begun:
    """The rest of a coroutine that has taken its first step, and waits for `first`."""

    __slots__ = ("_coroutine", "_first")

    def __init__(self, coroutine: types.CoroutineType[Any, Any, Any], first: Any) -> None:
        self._coroutine, self._first = coroutine, first

    def __await__(self) -> Generator[Any, Any, Any]:
        step = self._first
        while True:
            try:
                try:
                    sent = yield step
                except BaseException as error:  # noqa: BLE001  whatever is thrown in is the coroutine's to handle
                    step = self._coroutine.throw(error)
                else:
                    step = self._coroutine.send(sent)
            except StopIteration as done:
                return done.value


def _checked(answer: Any, offered: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return whom a router chose; raises `PluginFailed` or whatever a malformed answer causes."""
    if not isinstance(answer, Route):
        raise PluginFailed(f"its answer is no Route but {type(answer).__name__}", code="route.bad_answer")
    found = list(itertools.islice(answer.candidates, len(offered) + 1))
    known = {(one.node, one.agent) for one in offered}
    if len(found) > len(offered) or any((one.node, one.agent) not in known for one in found):
        raise PluginFailed("its answer names somebody who was not offered", code="route.bad_answer")
    return found


def _told(answer: Route) -> dict[str, str]:
    """Return whom a router left out and why; raises whatever a malformed answer causes."""
    return {str(name)[:140]: str(why)[:500] for name, why in dict(answer.refused).items()}


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"it did not answer within {PATIENCE_S:g} s"
    try:
        return str(error.message) if isinstance(error, KnotworkError) else f"{type(error).__name__}: {error}"[:500]
    except Exception:  # noqa: BLE001  even its text is the plugin's code
        return type(error).__name__


def _none_fits(ask: Ask, refused: dict[str, str]) -> Unavailable:
    shown = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:SHOWN_MAX])
    return Unavailable(
        f"No eligible agent for {_wanted(ask)}. {shown or 'The router gives no reason'}.",
        code="route.no_eligible_agent",
        hint="See `knotwork agents`.",
        detail={"candidates": refused},
        retry_after_s=1.0,
    )


def _nobody(ask: Ask, directory: Directory) -> KnotworkError:
    if ask.node and ask.node not in directory.node_names() and directory.record(ask.node) is None:
        return _unknown("node", ask.node, guess(ask.node, directory.node_names()), "node.not_found")
    if ask.agent:
        gone = [
            record.node
            for record, agent, state in directory.agents()
            if state == "offline" and agent.name == ask.agent and not agent.attached and ask.node in ("", record.node)
        ]
        if gone:
            return _gone(ask.agent, gone)
        elsewhere = [
            f"{record.node}/{agent.name}" for record, agent, _ in directory.agents() if agent.name == ask.agent
        ]
        near = f"Did you mean {elsewhere[0]}?" if elsewhere else guess(ask.agent, directory.agent_names())
        return _unknown("agent", _wanted(ask), near, "agent.not_found")
    away = {
        f"{record.node}/{agent.name}": "the node is offline"
        for record, agent, state in directory.agents()
        if state == "offline"
        and not agent.attached
        and ask.capability in agent.capabilities
        and ask.node in ("", record.node)
    }
    if away:
        return _none_fits(ask, away)
    near = guess(ask.capability, directory.capabilities())
    return NotFound(  # not a matter of waiting, as with somebody who is busy or offline
        f"No eligible agent: nobody offers {_wanted(ask)}.",
        code="route.no_eligible_agent",
        hint=near or "See `knotwork agents --all`.",
        detail={"candidates": {}},
    )


def _gone(agent: str, nodes: list[str]) -> Unreachable:
    """Return the error of a call to an agent that there was, on nodes that are offline now."""
    names, verb = ", ".join(nodes[:SHOWN_MAX]), "is" if len(nodes) == 1 else "are"
    return Unreachable(
        f"{agent} cannot be reached: {names} {verb} offline.",
        code="agent.away",
        hint=f"See `knotwork nodes`; start {nodes[0]} again, or give another agent the same capability.",
        detail={"agent": agent, "nodes": nodes[:SHOWN_MAX]},
        retry_after_s=1.0,
    )


def _unknown(what: str, name: str, near: str, code: str) -> NotFound:
    return NotFound(f"There is no {what} {name!r}.", code=code, hint=near or f"See `knotwork {what}s`.")


def _wanted(ask: Ask) -> str:
    if ask.agent:
        return f"{ask.node}/{ask.agent}" if ask.node else ask.agent
    extras = [f"boundary {ask.boundary}"] if ask.boundary else []
    extras += [f"tags {', '.join(sorted(ask.require))}"] if ask.require else []
    return f"capability {ask.capability}" + (f" ({'; '.join(extras)})" if extras else "")

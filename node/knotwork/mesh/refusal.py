"""Why does a call not even begin? There is no such agent, the node takes nothing new, the policy forbids it, or it is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.mesh.policy import NONE
from knotwork.sdk.errors import Busy, Denied, KnotworkError, NotFound, Unavailable

if TYPE_CHECKING:
    from knotwork.mesh.job import HostedAgent
    from knotwork.mesh.policy import Policy


def absent(name: str, node: str) -> NotFound:
    """Return the error of a call to an agent that is not here."""
    return NotFound(f"There is no agent {name} on {node}.", code="agent.not_found", hint="See `knotwork agents`.")


def closed(agent: HostedAgent, node: str, boundary: str, policy: Policy, *, draining: bool) -> KnotworkError | None:
    """Return why an agent takes no call of this boundary now, None when it does.

    Whoever sent the call asked its own policy; this is the word of the node that does the work, and the last one.
    """
    if draining:
        return Unavailable(f"{node} is draining.", code="node.draining", hint="Ask another node.", retry_after_s=5.0)
    if boundary in ("", NONE):
        return None
    record = agent.record
    standing, why = policy.judge(boundary, node, record.name, record.executor, record.boundaries)
    if standing != "forbidden":
        return None
    return Denied(
        f"{node}/{record.name} does no {boundary[:64]} work: {why}.", code="policy.forbidden",
        hint="See `knotwork route explain` and [boundaries] in the configuration.",
    )  # fmt: skip


def busy(agent: HostedAgent, node: str) -> Busy:
    """Return the error of a call that finds every place taken and the queue full."""
    admission = agent.admission
    return Busy(
        f"{node}/{agent.record.name} is busy: {admission.running} running, {admission.queued} waiting.",
        code="agent.busy",
        hint="Try again, raise its concurrency or queue_max, or give others the same capability.",
        retry_after_s=1.0,
    )

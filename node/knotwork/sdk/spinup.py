"""What a spin-up is: something that starts an agent at a target, says how that is going, and ends it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One start of an agent.

    `id` is a token that no other launch has. `task` is the id of the task it is started for, empty when somebody asked
    by hand. `env` is everything the agent needs to join (`KNOTWORK_URL`, `KNOTWORK_PROJECT`, `KNOTWORK_TARGET`,
    `KNOTWORK_TASK`, `KNOTWORK_LAUNCH`, and what it shows to NATS: `KNOTWORK_SEED`, `KNOTWORK_TOKEN`, `KNOTWORK_USER`
    with `KNOTWORK_PASSWORD`, or `KNOTWORK_CREDS`, a file; and settings `KNOTWORK__…` by which `knotwork up` finds them;
    `KNOTWORK_CLAIM` is a reference that can be turned into credentials, where there is a service that gives such). Some
    of it is secret: it must never stand on a command line, in a log, in
    an error, in a ref or in a file that others can read.
    """

    id: str
    target: str
    project: str
    capability: str
    boundary: str
    task: str
    env: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Launched:
    """Something was started. `ref` is JSON of a few hundred bytes without secrets: enough to find it after a restart."""

    ref: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """How it is now. `gone` is ended, however well; `failed` ended in a way that `why` tells, in words for people."""

    state: Literal["starting", "running", "gone", "failed"]
    why: str = ""


class SpinUp(Protocol):
    """The contract of a spin-up: one instance per target.

    Every method is bounded in time and raises errors of `knotwork.sdk`: `Unavailable` and what derives from it mean that
    the same call may succeed later. Leaving the instance's context ends nothing that was launched: a later instance
    finds it by its ref. An instance whose launches end with the node may say so with `ends_with_node = True`: then the
    agents are asked to leave before it stops.
    """

    async def launch(self, request: LaunchRequest) -> Launched:
        """Start an agent and return as soon as it was started; whether it registers is for the node to judge.

        Where the target allows it, a second call with the same `request.id` starts nothing and returns the same ref.
        """
        ...

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Say how the thing behind a ref is now; what cannot be found any more is `gone`.

        Raises `Unavailable` when nobody can tell just now.
        """
        ...

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """End it: gracefully, after `grace_s` seconds by force; return when all of it is gone and cleared away.

        To be called for every launch in the end, also one that ended by itself, and any number of times.
        Raises `TimedOut` when it does not end even by force, `Invalid` when the target has no way to end it.
        """
        ...

    async def probe(self) -> None:
        """Return when the target can be reached with its credentials and would take a launch; launches nothing.

        Raises an error that says what is wrong and what to do.
        """
        ...

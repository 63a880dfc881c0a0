"""Who may do work of a boundary, and who comes first? The `[boundaries]` of a node, compiled (pure).

`judge` says how one agent stands to one boundary, and is asked wherever that matters: its answers order the candidates
of a call (`sift`), keep a worker from queues it must not see, and are told to whoever asks why. `classes` finds the
boundary of work that names none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from knotwork.config.model import BoundaryTable, Config
from knotwork.mesh.classes import Classes
from knotwork.sdk.errors import Invalid, guess
from knotwork.sdk.router import Candidate

NONE = "none"
"""The boundary of work that belongs to none: any agent may do it."""
Standing = Literal["allowed", "preferred", "fallback", "forbidden"]
JUDGED_MAX = 10_000
"""Judgements kept; whoever asks for more agents than that pays for some of them twice."""


class Judgement(NamedTuple):
    """How an agent stands to a boundary, and why in words."""

    standing: Standing
    why: str

    @property
    def may(self) -> bool:
        """Return whether it may do such work at all."""
        return self.standing != "forbidden"


@dataclass(frozen=True, slots=True)
class Rule:
    """One boundary. The four lists hold agents, `node/agent`, `node/*` or executor types."""

    name: str
    paths: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()
    prefer: frozenset[str] = frozenset()
    forbid: frozenset[str] = frozenset()
    fallback: frozenset[str] = frozenset()
    fallback_after_s: float = 10.0
    spin_up: bool = True

    @property
    def first(self) -> frozenset[str]:
        """Return who comes first: those preferred, else those allowed when others may only step in; empty: nobody."""
        return self.prefer or (self.allow if self.fallback else frozenset())

    def judge(self, node: str, agent: str, executor: str) -> Judgement:  # noqa: PLR0911  one return per reason reads best
        """Return how an agent of this type on this node stands to the boundary."""
        names = frozenset((agent, executor, f"{node}/{agent}", f"{node}/*"))
        if names & self.forbid:
            return Judgement("forbidden", f"{self.name} work is forbidden to {_named(names & self.forbid)}")
        if names & self.first:
            return Judgement("preferred", f"{self.name} work prefers {_named(names & self.first)}")
        if names & self.fallback:
            return Judgement("fallback", f"it may do {self.name} work when no preferred agent is free")
        if self.fallback:
            return Judgement("forbidden", f"it is neither preferred for {self.name} work nor a fallback")
        if self.allow and not names & self.allow:
            return Judgement("forbidden", f"{self.name} work is only for {_named(self.allow)}")
        if self.first:
            return Judgement("fallback", f"it may do {self.name} work when no preferred agent is free")
        return Judgement("allowed", f"any agent may do {self.name} work" if not self.allow else "it is allowed")


class Policy:
    """All boundaries of a node. It never changes; a reload makes another one."""

    def __init__(self, rules: Iterable[Rule] = (), *, home: str = "") -> None:
        """Know these boundaries; `~/` in a path pattern stands for the folder `home`."""
        self.rules: Mapping[str, Rule] = {rule.name: rule for rule in rules}
        self._home = home
        self._judged: dict[tuple[str, str, str, str, Iterable[str]], Judgement] = {}

    @cached_property
    def known(self) -> tuple[str, ...]:
        """Return the name of every boundary, `none` last."""
        return (*sorted(self.rules), NONE)

    def admit(self, boundary: str) -> str:
        """Return a boundary that is known, `none` for the empty one; raises `Invalid` (`policy.unknown_boundary`)."""
        if not boundary or boundary in self.rules or boundary == NONE:
            return boundary or NONE
        raise Invalid(
            f"There is no boundary {boundary[:64]!r}; there are {', '.join(self.known)}.",
            code="policy.unknown_boundary",
            hint=guess(boundary, self.known) or f"Add [boundaries.{boundary[:64]}] to the configuration.",
            detail={"known": list(self.known)},
        )

    @cached_property
    def classes(self) -> Classes:
        """Return what finds the boundary of work that names none."""
        rules = self.rules.values()
        return Classes(
            [(rule.name, path) for rule in rules for path in rule.paths],
            [(rule.name, label) for rule in rules for label in rule.labels],
            home=self._home,
        )

    def judge(self, boundary: str, node: str, agent: str, executor: str, accepts: Iterable[str]) -> Judgement:
        """Return how an agent stands to a boundary; `accepts` are the boundaries it declares itself, none: all.

        A boundary that this node does not know is forbidden to every agent that does not name it.
        """
        if boundary not in self.rules:  # whoever calls may write anything there
            return self._judge(boundary, node, agent, executor, accepts)
        key = (boundary, node, agent, executor, accepts)
        found = self._judged.get(key)
        if found is None:
            if len(self._judged) >= JUDGED_MAX:
                self._judged.clear()
            found = self._judged[key] = self._judge(boundary, node, agent, executor, accepts)
        return found

    def _judge(self, boundary: str, node: str, agent: str, executor: str, accepts: Iterable[str]) -> Judgement:
        if boundary in ("", NONE):
            return Judgement("allowed", "any agent may do work that belongs to no boundary")
        if accepts and boundary not in accepts:
            only = ", ".join(sorted(accepts))
            return Judgement("forbidden", f"it does not accept the boundary {boundary[:64]!r}, only {only}")
        rule = self.rules.get(boundary)
        if rule is not None:
            return rule.judge(node, agent, executor)
        if accepts:
            return Judgement("allowed", f"it names {boundary[:64]} itself")
        return Judgement("forbidden", f"there is no [boundaries.{boundary[:64]}] here")

    def against(self, boundary: str, candidates: Sequence[Candidate]) -> dict[str, str]:
        """Return what stands against each of those who do not take a waiting task of a boundary now.

        Whoever may only step in is among them as long as somebody preferred is online with a free place.
        """
        judged = {
            one.name: (one, self.judge(boundary, one.node, one.agent, one.executor, one.boundaries))
            for one in candidates
        }
        better = any(
            standing == "preferred" and one.state == "online" and one.load < 1
            for one, (standing, _) in judged.values()
        )  # fmt: skip
        barred = ("forbidden", "fallback") if better else ("forbidden",)
        return {name: why for name, (_, (standing, why)) in judged.items() if standing in barred}

    def sift(self, boundary: str, candidates: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
        """Return those who may do such work, with their standing where it makes a difference, and why others may not."""
        may: list[Candidate] = []
        refused: dict[str, str] = {}
        for one in candidates:
            standing, why = self.judge(boundary, one.node, one.agent, one.executor, one.boundaries)
            if standing == "forbidden":
                refused[one.name] = why
            elif standing == "allowed":
                may.append(one)
            else:
                may.append(
                    Candidate(
                        one.node, one.agent, one.capabilities, one.tags, one.boundaries, one.state, one.load,
                        one.executor, standing,
                    )
                )  # fmt: skip
        return may, refused


def compiled(tables: Mapping[str, BoundaryTable], *, home: str = "") -> Policy:
    """Return the policy of `[boundaries]`; `home` is what `~` stands for in path patterns."""
    rules = [
        Rule(
            name, table.paths, table.labels, frozenset(table.allow), frozenset(table.prefer), frozenset(table.forbid),
            frozenset(table.fallback), table.fallback_after_s, table.spin_up,
        )
        for name, table in tables.items()
    ]  # fmt: skip
    return Policy(rules, home=home)


READY = compiled(Config().boundaries)
"""What holds where nothing is configured."""


def _named(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

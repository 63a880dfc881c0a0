"""How does a plugin look that was tried in another process, and is not imported here? Like any other, but for `open`."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from knotwork.config.elsewhere import Elsewhere, Fault, Verdict
from knotwork.sdk import Context, Factory, PluginFailed
from knotwork.sockets import tried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from knotwork.sockets.factories import Broken


class Judge:
    """The verdicts on the tables of one type; a table not seen yet is judged in a process made for that. Blocks."""

    def __init__(self, wanted: tried.Wanted, kind: Any, type_name: str) -> None:
        """Judge in processes like that of `wanted`."""
        self.wanted, self._kind, self._type = wanted, kind, type_name
        self._known: dict[str, Verdict] = {}

    def __call__(self, settings: Mapping[str, Any]) -> Verdict:
        """Return what the config class says to a table."""
        key = tried.canonical(settings)
        if key not in self._known:
            table = tried.Table(self._kind, self._type, dict(settings))
            told = tried.try_out(tried.with_tables(self.wanted, [table]))
            if isinstance(told, tried.Told) and len(told.judged) == 1:
                self._known[key] = told.judged[0].verdict
            else:  # not kept: it may be better next time
                return Verdict((_lost(told),))
        return self._known[key]

    def learn(self, settings: Mapping[str, Any], verdict: Verdict) -> None:
        """Keep a verdict."""
        self._known[tried.canonical(settings)] = verdict

    def knows(self, settings: Mapping[str, Any]) -> bool:
        """Say whether a table has been judged."""
        return tried.canonical(settings) in self._known


def factory_of(offer: tried.Offer, wanted: tried.Wanted) -> Factory[Any]:
    """Return a factory that says all that the plugin said, and cannot be opened here."""
    name = "".join(part.capitalize() for part in re.split("[-_]", offer.name)) + "Config"
    config: type[Elsewhere] = type(name, (Elsewhere,), {"__doc__": offer.about or None, "__module__": __name__})
    config.keys, config.bones, config.schema_there = tuple(offer.keys), offer.bones, offer.schema
    config.place_keys = tuple(offer.place_keys)
    config.verdict = Judge(wanted, offer.kind, offer.name)
    return Factory(offer.name, config, _open, offer.summary, offer.exclusive, tuple(offer.abilities))


def judge_of(factory: Factory[Any]) -> Judge | None:
    """Return what judges the tables of a described factory, None for one that is imported here."""
    verdict = getattr(factory.config, "verdict", None)
    return verdict if isinstance(verdict, Judge) else None


def learn(told: tried.Told, described: Iterable[tuple[Any, Factory[Any]]]) -> None:
    """Let the judges know what was judged while a plugin was tried; `described` are its factories by kind."""
    judges = {(kind, factory.name): judge_of(factory) for kind, factory in described}
    for one in told.judged:
        judge = judges.get((one.kind, one.type))
        if judge is not None:
            judge.learn(one.settings, one.verdict)


@asynccontextmanager
async def _open(_config: Any, context: Context) -> AsyncIterator[None]:
    raise PluginFailed(f"{context.id}: this plugin runs hosted only", code="plugin.hosted_only")
    yield  # makes it a generator


def _lost(told: tried.Told | Broken) -> Fault:
    why = "its plugin does not offer this type any more" if isinstance(told, tried.Told) else told.reason
    return Fault("value_error", (), f"the plugin cannot judge this table: {why}")

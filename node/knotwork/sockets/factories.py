"""Which factories does one plugin offer, and when it offers none, why? Imports the plugin where it is called.

The only user of pluggy.
"""

from __future__ import annotations

import difflib
import re
import traceback
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import pluggy

from knotwork.sdk import API_VERSION, KINDS, Factory, KnotworkError, PluginConfig, PluginFailed, hooks
from knotwork.sockets import manifest, said
from knotwork.sockets.importing import bring_in

if TYPE_CHECKING:
    from knotwork.sdk.factory import Kind
    from knotwork.sockets.sources import Source

FACTORIES_MAX = 200


@dataclass(frozen=True, slots=True)
class Broken:
    """One plugin, or one of its types, that cannot be used, and why."""

    source: str
    code: str
    reason: str
    hint: str = ""

    def error(self) -> PluginFailed:
        """Return it as an error to raise."""
        return PluginFailed(self.reason, code=self.code, hint=self.hint)


def offers(source: Source) -> list[tuple[Kind, Factory[Any]]]:
    """Import one plugin and return its checked factories; raises `PluginFailed` or what the plugin's code raises."""
    plugin = bring_in(source)
    wrong = wrong_api(getattr(plugin, "knotwork_api", API_VERSION), str(source))
    if wrong is not None:
        raise wrong.error()
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, name=source.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginFailed(_about_hook(str(error)), code="plugin.unknown_hook", hint=_HOOK_HINT) from error
    found: list[tuple[Kind, Factory[Any]]] = []
    for kind in KINDS:
        for result in getattr(manager.hook, kind)():
            found += [(kind, _checked(kind, factory)) for factory in islice(result, FACTORIES_MAX)]
    if not found:
        raise PluginFailed("offers nothing", code="plugin.empty", hint="Is a hook missing its `@hookimpl`?")
    return found


def failure(error: BaseException) -> PluginFailed:
    """Return what is to be said of anything that was raised while a plugin was imported."""
    if isinstance(error, KnotworkError):
        return PluginFailed(error.message, code=error.code, hint=error.hint)
    told = _where(error)
    return PluginFailed(told, code="plugin.import_failed", hint="Mend the plugin or take it off the list.")


def wrong_api(api: Any, source: str) -> Broken | None:
    """Return what is wrong with the version of the interface that a plugin names, None when nothing is."""
    if api == API_VERSION:
        return None
    return Broken(
        source,
        "plugin.api_version",
        f"written for plugin interface {str(api)[:20]}, this node speaks {API_VERSION}",
        "Use a version of the plugin made for this node, or upgrade the node.",
    )


_HOOK_HINT = f"The hooks are {', '.join(KINDS)}."


def _about_hook(told: str) -> str:
    named = re.search(r"hook '(\w+)'", told)
    near = difflib.get_close_matches(named[1], KINDS, n=1) if named else []
    return (f"implements no known hook with {named[1]!r}" if named else told) + (
        f", did you mean {near[0]!r}?" if near else ""
    )


def _checked(kind: Kind, factory: Any) -> Factory[Any]:
    """Return the factory when it keeps its side of the contract, else raise `PluginFailed` saying what is wrong."""
    problem = ""
    if not isinstance(factory, Factory):
        problem = f"the hook {kind!r} yielded {type(factory).__name__}, not a Factory"
    elif not re.match(manifest.TOKEN, str(factory.name)):
        problem = f"type name {str(factory.name)[:80]!r} is not a token ({manifest.TOKEN})"
    elif not (isinstance(factory.config, type) and issubclass(factory.config, PluginConfig)):
        problem = f"the config class of {factory.name!r} does not derive from PluginConfig"
    elif not callable(factory.open):
        problem = f"`open` of {factory.name!r} cannot be called"
    if problem:
        raise PluginFailed(problem, code="plugin.bad_factory")
    checked: Factory[Any] = factory
    return checked


def _where(error: BaseException) -> str:
    """Return type, text and the last place of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{said.crash(error)}{place}"

"""What runs in the process that a plugin is tried in? It imports the plugin, tells what it offers, and ends.

Started as `python -P -m knotwork.sockets.tried_child` or, frozen, `knotwork --plugin-try`. It is asked by one line on
standard input, and ends when that is closed. Standard input, output and error of the plugin lead nowhere.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from knotwork.config import bones, references
from knotwork.config.elsewhere import Fault, Verdict
from knotwork.sdk import Factory, PluginConfig
from knotwork.sdk.factory import Kind
from knotwork.sockets import factories, limits, tried

FAULTS_MAX = 200
EXIT_NOT_ASKED = 64
Offered = list[tuple[Kind, Factory[Any]]]


def main() -> int:
    """Try the plugin that is named on standard input; the process ends here."""
    asked, answer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    wanted = tried.decoded(asked.readline(), tried.Wanted)
    if wanted is None:
        return EXIT_NOT_ASKED
    threading.Thread(target=_end_with, args=(asked,), name="asked", daemon=True).start()
    _say(answer, tried.Told("importing", wanted.token))
    told = _try(wanted)
    _say(answer, told)
    os._exit(0)  # threads that the plugin started must not keep it alive


def _end_with(asked: IO[bytes]) -> None:
    """End when whoever asked is gone, or wants no answer any more."""
    with suppress(OSError):
        while asked.read1(4096):  # type: ignore[attr-defined]  # a buffered reader has it
            pass
    os._exit(0)


def _say(answer: IO[bytes], told: tried.Told) -> None:
    answer.write(tried.encoded(told))
    answer.flush()


def _try(wanted: tried.Wanted) -> tried.Told:
    began_s = time.monotonic()
    _bound(wanted)
    _surround(wanted)
    try:
        offered = factories.offers(wanted.source)
        offers = [_offer(kind, factory) for kind, factory in offered]
        judged = [one for table in wanted.tables if (one := _judged(offered, table)) is not None]
    except BaseException as error:  # noqa: BLE001  whatever foreign code raises while it is imported
        why = factories.failure(error)
        return tried.Told("broken", wanted.token, code=why.code, reason=why.message, hint=why.hint)
    return tried.Told("survived", wanted.token, offers, judged, took_s=time.monotonic() - began_s)


def _bound(wanted: tried.Wanted) -> None:
    """Set limits that hold whatever the code of the plugin does, and whether or not anybody watches."""
    limits.leave_no_core()
    limits.go_first()
    limits.limit_memory(wanted.memory_mb)
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(wanted.patience_s, wanted.longest_s) + tried.GRACE_S)


def _surround(wanted: tried.Wanted) -> None:
    """Look for modules where the plugin will look for them when it is used."""
    if not wanted.apart:
        sys.path[:] = wanted.path
    elif wanted.source.kind == "folder":
        sys.path[:0] = [wanted.source.where, str(Path(wanted.source.where, "vendor"))]


def _offer(kind: Kind, factory: Factory[Any]) -> tried.Offer:
    config: type[PluginConfig] = factory.config
    return tried.Offer(
        kind=kind,
        name=factory.name,
        summary=str(factory.summary),
        exclusive=bool(factory.exclusive),
        abilities=[str(ability) for ability in factory.abilities],
        about=config.__doc__ or "",
        keys=list(config.model_fields),
        bones=bones.skeleton(config),
        schema=_schema(config),
        place_keys=[str(key) for key in config.place_keys],
    )


def _schema(config: type[PluginConfig]) -> dict[str, Any]:
    """Return the JSON Schema of a config class, with the defaults that pydantic leaves out because they are made."""
    try:
        schema: dict[str, Any] = to_jsonable_python(config.model_json_schema(), fallback=str)
    except Exception:  # noqa: BLE001  a class that has no schema can still judge tables
        return {"type": "object", "properties": {name: {} for name in config.model_fields}}
    described = schema.get("properties", {})
    for name, field in config.model_fields.items():
        key = field.alias or name
        if field.default_factory is not None and key in described:
            with suppress(Exception):
                made = field.get_default(call_default_factory=True)
                described[key].setdefault("default", to_jsonable_python(made))
    return schema


def _judged(offered: Offered, table: tried.Table) -> tried.Judged | None:
    """Return what the class says to a table, None when no single type is meant by it."""
    fitting = [factory for kind, factory in offered if kind == table.kind and table.type in ("", factory.name)]
    if len(fitting) != 1:
        return None
    config = fitting[0].config
    settings = {**table.own, **{key: value for key, value in table.common.items() if key in config.model_fields}}
    return tried.Judged(table.kind, fitting[0].name, settings, _verdict(config, settings))


def _verdict(config: type[PluginConfig], settings: Mapping[str, Any]) -> Verdict:
    try:
        checked = config.model_validate(dict(settings))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)[:FAULTS_MAX]
        return Verdict(
            tuple(Fault(one["type"], tuple(one["loc"]), one["msg"], _plain(one.get("ctx", {}))) for one in faults)
        )
    return Verdict(secrets=tuple(path for path, _ in references.inside(checked)))


def _plain(context: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in context.items() if isinstance(value, str | int | float | bool)}


if __name__ == "__main__":
    sys.exit(main())

"""Which keys may stand where in a table? The keys of a model, as nested tables.

Apart from what judges a whole configuration, whose model is costly to load: a plugin that is tried in a process of its
own tells its keys from there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from knotwork.config.elsewhere import Elsewhere
from knotwork.config.keys import Path


def keys_in(skeleton: Any, path: Path) -> Sequence[str]:
    """Return the keys that may stand at `path` of a `skeleton`."""
    for part in path:
        skeleton = skeleton.get(part, skeleton.get("*")) if isinstance(skeleton, Mapping) else None
    return [key for key in skeleton if key != "*"] if isinstance(skeleton, Mapping) else []


def skeleton(model: type[BaseModel]) -> dict[str, Any]:
    """Return the keys of a model as nested tables; "*" stands for any id or place in an array, None for a value."""
    if issubclass(model, Elsewhere):
        return dict(model.bones)
    tables = sys.modules.get("knotwork.config.instance_tables")  # nothing derives from what is not loaded
    some = tables is not None and issubclass(model, tables.InstanceTable)  # the other keys are a plugin's
    fields: Sequence[str] = model.common_keys() if some else tuple(model.model_fields)  # type: ignore[attr-defined]
    return {name: _bones(model.model_fields[name].annotation) for name in fields}


def _bones(annotation: Any) -> Any:
    if isinstance(annotation, type) and not get_args(annotation):
        return skeleton(annotation) if issubclass(annotation, BaseModel) else None
    inside = [bones for argument in get_args(annotation) if (bones := _bones(argument))]
    if not inside:
        return None
    merged = {key: value for bones in inside for key, value in bones.items()}
    return {"*": merged} if get_origin(annotation) in (dict, list, tuple, set, frozenset, Mapping, Sequence) else merged

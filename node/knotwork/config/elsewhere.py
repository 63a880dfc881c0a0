"""How is a plugin's table judged whose config class is in another process? By asking there; the answer looks the same.

A class derived from `Elsewhere` stands for that class: it has its keys and its JSON Schema, and raises the errors that
it raises. What it keeps of a table is what was written, secret references as such.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

from pydantic import ConfigDict, ValidationError
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaMode
from pydantic_core import InitErrorDetails, PydanticCustomError

from knotwork.config.keys import Path, lookup
from knotwork.sdk import PluginConfig, SecretRef


@dataclass(frozen=True, slots=True)
class Fault:
    """One validation error: pydantic's type, place, message, and what of its context is plain data."""

    type: str
    loc: Path
    msg: str
    ctx: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the config class says to one table; `secrets` are the places of secret references in it."""

    faults: tuple[Fault, ...] = ()
    secrets: tuple[Path, ...] = ()


class Elsewhere(PluginConfig):
    """Stands for a config class of another process; the class variables are set once per type."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=False)

    about: ClassVar[str] = ""
    keys: ClassVar[tuple[str, ...]] = ()
    bones: ClassVar[Mapping[str, Any]] = {}
    schema_there: ClassVar[Mapping[str, Any]] = {"type": "object"}
    verdict: ClassVar[Callable[[Mapping[str, Any]], Verdict]]

    @classmethod
    def model_validate(cls, obj: Any, **_: Any) -> Self:
        """Return the table as it was written; raises `ValidationError` as the class itself would. May block."""
        settings = copy.deepcopy(dict(obj))
        verdict = cls.verdict(settings)
        if verdict.faults:
            raise ValidationError.from_exception_data(cls.__name__, [_error(fault, obj) for fault in verdict.faults])
        for path in verdict.secrets:
            _refer(settings, path)
        return cast("Self", cls.model_construct(**settings))

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **_: Any) -> Self:
        """Return the table written as JSON; raises `ValidationError`."""
        return cls.model_validate(json.loads(json_data))

    @classmethod
    def model_json_schema(
        cls,
        by_alias: bool | None = True,  # noqa: FBT001, FBT002  pydantic's signature
        ref_template: str = DEFAULT_REF_TEMPLATE,
        schema_generator: type[GenerateJsonSchema] = GenerateJsonSchema,
        mode: JsonSchemaMode = "validation",
        **more: Any,
    ) -> dict[str, Any]:
        """Return the schema that the class there has; only `ref_template` is heeded."""
        del by_alias, schema_generator, mode, more
        schema: dict[str, Any] = _with_references(cls.schema_there, ref_template)
        return schema


def keys_of(model: type[PluginConfig]) -> tuple[str, ...]:
    """Return the names of the fields of a config class, wherever it is."""
    return model.keys if issubclass(model, Elsewhere) else tuple(model.model_fields)


def _error(fault: Fault, table: Mapping[str, Any]) -> InitErrorDetails:
    # a custom error is what can have any type and text
    kind = PydanticCustomError(fault.type, fault.msg, dict(fault.ctx) or None)
    return InitErrorDetails(type=kind, loc=fault.loc, input=_input(fault, table))


def _input(fault: Fault, table: Mapping[str, Any]) -> Any:
    """Return the value an error is about, None where it cannot be found: names of union members stand in some places."""
    value: Any = table
    for part in fault.loc:
        if isinstance(value, Mapping) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
    return value if fault.type != "missing" else None


def _refer(settings: dict[str, Any], path: Path) -> None:
    """Let a reference be one where it was written as a table."""
    try:
        around = lookup(settings, path[:-1])
        around[path[-1]] = SecretRef.model_validate(around[path[-1]])
    except (KeyError, IndexError, TypeError, ValidationError):  # a default of the class, say: nothing was written
        return


def _with_references(part: Any, template: str) -> Any:
    if isinstance(part, Mapping):
        return {
            key: template.format(model=value.rpartition("/")[2])
            if key == "$ref" and isinstance(value, str)
            else _with_references(value, template)
            for key, value in part.items()
        }
    return [_with_references(one, template) for one in part] if isinstance(part, list | tuple) else part

"""What may be written into a request, field by field? For doors that take words instead of JSON: shell and URL."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from knotwork.ops.form import Field, Shape
from knotwork.ops.op import Op

_PLAIN: dict[Any, Shape] = {str: "text", int: "integer", float: "number", bool: "flag"}


def of(op: Op) -> tuple[Field, ...]:
    """Return the fields of an op's request, in their order."""
    return tuple(_field(name, info) for name, info in op.request.model_fields.items())


def _field(name: str, info: FieldInfo) -> Field:
    shape, choices = _shape(info.annotation)
    default = None if info.default is PydanticUndefined else info.default
    return Field(
        name=name,
        shape=shape,
        required=info.is_required(),
        default=default,
        description=info.description or "",
        choices=choices,
        seconds=shape == "number" and name.endswith("_s"),
    )


def _shape(annotation: Any) -> tuple[Shape, tuple[str, ...]]:
    """Return the shape of a type, looking through `Annotated` and `X | None`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [part for part in arguments if part is not type(None)]
        return _shape(inner[0]) if len(inner) == 1 else ("json", ())
    if origin is Literal:
        return "choice", tuple(str(part) for part in arguments)
    if origin in (list, tuple, frozenset):
        return "list", ()
    if hasattr(annotation, "__metadata__"):
        return _shape(arguments[0])
    return _PLAIN.get(annotation, "json"), ()

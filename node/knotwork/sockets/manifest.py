"""What does a plugin folder say about itself? `plugin.toml`, read and checked without importing any of its code."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from knotwork.config import regular
from knotwork.config.instance_tables import IN_PROCESS
from knotwork.sdk import API_VERSION, KINDS, Invalid, Kind

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "plugin.toml"
SIZE_MAX_BYTES = 64 * 1024
TOKEN = r"^[a-z0-9][a-z0-9_-]{0,63}$"  # noqa: S105  a pattern, not a secret
_PLURAL = {
    "executor": "executors", "router": "routers", "memory": "memories", "spinup": "spinups", "trigger": "triggers",
}  # fmt: skip

KindField = Annotated[Kind, BeforeValidator(lambda kind: _PLURAL.get(kind, kind) if isinstance(kind, str) else kind)]


class Manifest(BaseModel):
    """The file, field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=TOKEN, description="the plugin's name; also its type name unless `types` says otherwise")
    version: str = Field(default="0", max_length=64, description="the plugin's own version")
    api: int = Field(default=API_VERSION, ge=1, description="version of the plugin interface it was written for")
    kind: KindField = Field(description=f"one of {', '.join(KINDS)}")
    entry: str = Field(
        min_length=1,
        max_length=256,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$",
        description="file (`agent.py`) or module (`my_agent.plugin`) inside the folder",
    )
    types: tuple[Annotated[str, Field(pattern=TOKEN)], ...] = Field(default=(), description="type names it offers")
    hosted: bool = Field(default=False, description="always run in a process of its own, never imported by the node")
    dependencies: tuple[str, ...] = Field(default=(), description="packages it needs in its `vendor` folder")
    summary: str = Field(default="", max_length=500, description="one line for listings")
    docs: str = Field(default="", max_length=500, description="address of its documentation")

    @model_validator(mode="after")
    def _runs_where_it_can(self) -> Self:
        if self.kind in IN_PROCESS and self.runs_hosted:
            key = "hosted" if self.hosted else "dependencies"
            raise ValueError(f"{key}: {self.kind} run in the node's process, so without packages of their own")
        return self

    @property
    def type_names(self) -> tuple[str, ...]:
        """Return what may be written as `type`."""
        return self.types or (self.name,)

    @property
    def runs_hosted(self) -> bool:
        """Say whether the node must keep out of it: it asks for that, or brings packages of its own."""
        return self.hosted or bool(self.dependencies)


def read(folder: Path) -> Manifest:
    """Return the checked manifest of `folder`; raises `Invalid` (code `plugin.manifest`) saying all that is wrong."""
    path = folder / FILE_NAME
    try:
        with regular.opened(path) as file:
            raw = file.read(SIZE_MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror or error}") from error
    if len(raw) > SIZE_MAX_BYTES:
        raise _wrong(path, f"is over {SIZE_MAX_BYTES} bytes")
    try:
        table: dict[str, Any] = tomllib.loads(raw.decode("utf-8-sig"))
        return Manifest.model_validate(table.get("plugin", table) if set(table) == {"plugin"} else table)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(path, f"is not TOML: {error}") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise _wrong(path, f"is wrong: {told}") from error


def _wrong(path: Path, what: str) -> Invalid:
    return Invalid(
        f"{path} {what}", code="plugin.manifest", hint="See `knotwork plugin new` for a manifest that works."
    )

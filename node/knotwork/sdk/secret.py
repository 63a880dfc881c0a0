"""How a secret is written in TOML: a reference, never the value; resolved as late as possible."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SecretRef(BaseModel):
    """`{env = "NAME"}`, `{file = "path"}` or `{cmd = ["program", "argument"]}`; exactly one of them."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    env: str | None = Field(default=None, min_length=1, max_length=256, description="environment variable to read")
    file: str | None = Field(default=None, min_length=1, max_length=4096, description="file whose first line it is")
    cmd: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="command whose first line of output it is"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(part is not None for part in (self.env, self.file, self.cmd)) != 1:
            msg = 'write exactly one of {env = "…"}, {file = "…"}, {cmd = ["…"]}'
            raise ValueError(msg)
        return self

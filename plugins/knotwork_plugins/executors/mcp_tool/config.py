"""What may be written for an agent that is a tool of an MCP server?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from knotwork.sdk import PluginConfig, SecretRef


class McpConfig(PluginConfig):
    """What the operator may write for an agent of type `mcp`: `command` or `url`, and the tool."""

    model_config = ConfigDict(defer_build=True)  # built when first used: this file is imported at every start

    tool: str = Field(min_length=1, max_length=256, description="name of the tool")
    command: tuple[str, ...] = Field(default=(), description="server to start and speak to over stdio")
    url: str = Field(default="", pattern=r"^(https?://\S+)?$", description="server to reach over Streamable HTTP")
    argument: str = Field(
        default="",
        max_length=256,
        description="argument that an input which is no object becomes; default: the only one",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="fixed arguments; the input cannot change them")
    cwd: str = Field(default="", description="folder the command works in; empty: that of the configuration file")
    env: dict[str, str] = Field(default_factory=dict, description="environment variables to add for the command")
    secret_env: dict[str, SecretRef] = Field(default_factory=dict, description="environment variables from secrets")
    headers: dict[str, str] = Field(default_factory=dict, description="request headers for the url")
    secret_headers: dict[str, SecretRef] = Field(default_factory=dict, description="request headers from secrets")
    connect_timeout_s: float = Field(default=20.0, gt=0, le=300, description="seconds to start or reach the server")

    def folder(self, base: Path) -> Path:
        """Return where the command works; a relative `cwd` is meant from `base`."""
        return base / Path(self.cwd).expanduser()

    def program(self, base: Path) -> str:
        """Return what is executed; one written as a path is meant from where it works."""
        first = self.command[0]
        return str(self.folder(base) / Path(first).expanduser()) if os.sep in first else first

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == bool(self.url):
            msg = "write either `command` or `url`"
            raise ValueError(msg)
        return self

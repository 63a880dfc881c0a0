"""What may be said of a target that is a container image?"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from knotwork.sdk import PluginConfig, SecretRef
from knotwork_plugins.spinups.environment import Environment


class DockerConfig(PluginConfig):
    """Options of a target that is a container image."""

    place_keys: ClassVar[tuple[str, ...]] = ("socket",)

    image: str = Field(
        min_length=1, max_length=1024, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", description="image to run"
    )
    command: tuple[str, ...] = Field(default=(), description="command and arguments; empty: the image's own")
    entrypoint: tuple[str, ...] = Field(default=(), description="entry point; empty: the image's own")
    cwd: str = Field(default="", max_length=4096, description="folder to run in; empty: the image's own")
    user: str = Field(default="", max_length=255, description="user, or user:group; empty: the image's own")
    env: Environment = Field(
        default_factory=dict, description="environment to add; values are strings or secret references"
    )
    network: str = Field(
        default="bridge",
        min_length=1,
        max_length=255,
        description="network; host: that of the machine, to reach a node on it",
    )
    extra_hosts: tuple[str, ...] = Field(
        default=("host.docker.internal:host-gateway",), description="names to know, as name:address"
    )
    volumes: tuple[str, ...] = Field(default=(), description="folders to mount, as /here:/there or /here:/there:ro")
    memory_limit_mb: int = Field(default=0, ge=0, le=16_777_216, description="MiB it may hold; 0: no limit")
    cpus: float = Field(default=0.0, ge=0, le=4096, description="processors it may use; 0: no limit")
    pull: Literal["missing", "always", "never"] = Field(default="missing", description="when the image is pulled")
    pull_timeout_s: float = Field(default=600.0, gt=0, le=86_400, description="seconds a pull may take")
    registry_user: str = Field(default="", max_length=255, description="user at the image's registry")
    registry_password: SecretRef | None = Field(default=None, description="password or token of that user")
    name_prefix: Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9-]{0,30}$")] = Field(
        default="knotwork", description="what the names of the containers begin with"
    )
    socket: str = Field(default="/var/run/docker.sock", min_length=1, max_length=100, description="socket of the API")
    request_timeout_s: float = Field(default=8.0, gt=0, le=300, description="seconds one request may take")

"""What may be said of a target that takes SSH?"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from knotwork.sdk import PluginConfig
from knotwork_plugins.spinups import commands
from knotwork_plugins.spinups.environment import Environment


def _one_line(value: str) -> str:
    if any(ord(c) < 32 for c in value) or '"' in value:  # noqa: PLR2004  control characters
        msg = "control characters and double quotes cannot be handed to ssh"
        raise ValueError(msg)
    return value


Name = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_.:%@\[\]][A-Za-z0-9_.:%@\[\]-]*)?$", max_length=255)]


Path = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_one_line)]


class SshConfig(PluginConfig):
    """Options of a target that is a command on another machine."""

    place_keys: ClassVar[tuple[str, ...]] = ("host", "port", "user", "config_file", "jump", "state_folder")

    host: Name = Field(min_length=1, description="name or address of the machine, or a Host of the SSH configuration")
    port: int | None = Field(default=None, ge=1, le=65535, description="port; unset: ssh's own choice, mostly 22")
    user: Name = Field(default="", description="user there; empty: ssh's own choice")
    key_file: Path = Field(default="", description="private key; empty: ssh's own choice, or an agent that holds keys")
    command: commands.Command = Field(
        min_length=1, description='program and arguments, e.g. ["knotwork", "up"]; one string only with shell = true'
    )
    shell: bool = Field(default=False, description="run the command string by the far /bin/sh")
    cwd: Path = Field(default="", description="folder to run in; ~/ is the user's home there; empty: the home itself")
    env: Environment = Field(
        default_factory=dict, description="environment to add; values are strings or secret references"
    )
    connect_timeout_s: float = Field(
        default=8.0, gt=0, le=300, description="seconds to get a connection; it does not bound how long the agent runs"
    )
    host_keys: Literal["accept-new", "strict"] = Field(
        default="accept-new", description="accept the key of a machine never seen before, or only known ones"
    )
    known_hosts: Path = Field(default="", description="file of known machines; empty: ssh's own choice")
    config_file: Path = Field(default="", description="SSH configuration to read; empty: the user's and the system's")
    jump: Name = Field(default="", description="machine to go through, as in ssh -J")
    options: dict[Annotated[str, StringConstraints(pattern="^[A-Za-z]{1,64}$")], Path] = Field(
        default_factory=dict, max_length=32, description="further options of ssh, e.g. { Compression = 'yes' }"
    )
    program: Path = Field(default="ssh", min_length=1, description="the SSH client to run")
    state_folder: Path = Field(
        default="", description="folder there for pid, exit code and output; empty: ~/.local/state/knotwork/launches"
    )
    output_max_bytes: int = Field(
        default=8_388_608,
        ge=65_536,
        le=1_073_741_824,
        description="bytes of its output kept there; the oldest go first",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        commands.check(self.command, shell=self.shell)
        return self

    @property
    def argv(self) -> list[str]:
        """Return the command as a list."""
        return commands.argv(self.command)

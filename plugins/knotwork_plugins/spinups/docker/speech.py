"""What is said to Docker, and what does it mean what Docker says? Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork_plugins.spinups.docker.config import DockerConfig

OURS = (1, 44)  # what Docker 25 to 29 speak; older ones are spoken to in their own version
FRAME_BYTES = 8
MEBIBYTE = 1_048_576
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,4})")


def version(theirs: str) -> str:
    """Return what paths begin with: our version, or theirs when it is older or unknown."""
    found = _VERSION.fullmatch(theirs)
    if found is None:
        return f"/v{OURS[0]}.{OURS[1]}"
    speaks = min(OURS, (int(found[1]), int(found[2])))
    return f"/v{speaks[0]}.{speaks[1]}"


def container(config: DockerConfig, env: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the body that creates a container. The environment may be read by whoever may use Docker, so by root."""
    body: dict[str, Any] = {
        "Image": config.image,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": dict(labels),
        "AttachStdin": False,
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": {
            "Init": True,  # so that signals reach it and nothing is left unreaped
            "AutoRemove": False,  # how it ended must be there to be asked for
            "RestartPolicy": {"Name": "no"},
            "NetworkMode": config.network,
            "ExtraHosts": [] if config.network == "host" else list(config.extra_hosts),
            "Binds": list(config.volumes),
            "Memory": config.memory_limit_mb * MEBIBYTE,
            "NanoCpus": round(config.cpus * 1_000_000_000),
            "SecurityOpt": ["no-new-privileges"],
        },
    }
    optional = {
        "Cmd": list(config.command),
        "Entrypoint": list(config.entrypoint),
        "WorkingDir": config.cwd,
        "User": config.user,
    }
    return body | {key: value for key, value in optional.items() if value}


def image_and_tag(image: str) -> tuple[str, str]:
    """Return an image without its tag, and the tag: `latest` when none is written, nothing behind a digest."""
    if "@" in image:
        return image, ""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


def trouble_of_pull(body: bytes) -> str:
    """Return what went wrong in a pull, of which Docker tells line by line; an empty text when nothing did."""
    for line in body.splitlines():
        try:
            told = msgspec.json.decode(line)
        except msgspec.MsgspecError:
            continue
        if isinstance(told, dict) and isinstance(told.get("error"), str):
            return told["error"] or "no reason given"
    return ""


def state_of(found: Mapping[str, Any]) -> tuple[Literal["starting", "running", "gone", "failed"], str]:
    """Return how an inspected container is, and why."""
    state: Mapping[str, Any] = found.get("State") or {}
    status = state.get("Status")
    if status in ("created", "restarting"):
        return "starting", f"the container is {status}"
    if status in ("running", "paused"):
        return "running", "" if status == "running" else "the container is paused"
    if status == "removing":
        return "gone", "the container is being removed"
    if state.get("ExitCode") == 0 and not state.get("Error"):
        return "gone", "it ended with exit code 0"
    return "failed", _failure(state)


def _failure(state: Mapping[str, Any]) -> str:
    if state.get("OOMKilled"):
        return "it took more memory than `memory_limit_mb`"
    if error := state.get("Error"):
        return f"it could not run: {str(error)[:300]}"
    return f"it ended with exit code {state.get('ExitCode')}"


def without_frames(body: bytes) -> bytes:
    """Return the output in a log: Docker puts eight bytes before each piece, its stream and its length."""
    pieces = []
    rest = body
    while len(rest) >= FRAME_BYTES and rest[0] in (0, 1, 2) and rest[1:4] == b"\0\0\0":
        length = int.from_bytes(rest[4:FRAME_BYTES], "big")
        pieces.append(rest[FRAME_BYTES : FRAME_BYTES + length])
        rest = rest[FRAME_BYTES + length :]
    return b"".join(pieces) if pieces else body

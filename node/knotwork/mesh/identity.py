"""Who am I, across restarts? A name and a random id, made at the first start and kept in the data folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from knotwork.bus import subjects
from knotwork.sdk.errors import ConfigInvalid, Invalid

FILE = "identity.json"
UID_MAX = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """`name` is what others see and route by; `uid` tells two nodes apart that were given the same name."""

    name: str
    uid: str


def from_host_name() -> str:
    """Return a node name made from the host's, with four random digits so that two machines rarely agree."""
    slug = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:40]
    return f"{slug or 'node'}-{secrets.token_hex(2)}"


def load(folder: Path, wanted: str = "") -> Identity:
    """Return the identity kept in `folder`, made and stored at the first call; `wanted` overrides the name.

    Raises `ConfigInvalid` (`mesh.bad_identity`) when the file there is not one of ours.
    """
    path = folder / FILE
    try:
        kept = _read(path)
    except FileNotFoundError:
        identity = Identity(wanted or from_host_name(), secrets.token_hex(8))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, Invalid) as error:
        raise ConfigInvalid(
            f"{path} cannot be read as this node's identity: {error}.",
            code="mesh.bad_identity",
            hint="Restore the file, or delete it to become a new node.",
        ) from error
    else:
        identity = Identity(wanted or kept.name, kept.uid)
        if identity == kept:
            return identity
    folder.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump({"name": identity.name, "uid": identity.uid}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return identity


def _read(path: Path) -> Identity:
    """Return what the file says; raises all sorts of errors when it is not one of ours."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    uid = kept["uid"]
    if not (isinstance(uid, str) and 0 < len(uid) <= UID_MAX):
        raise ValueError("uid")
    return Identity(subjects.token(kept["name"], "node name"), uid)

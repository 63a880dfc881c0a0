"""With which key does this node, or a local door of it, prove who it is?

A key is an nkey (Ed25519) of NATS. Its seed lives in a file of its own, `<name>.nk`, readable by its owner alone;
the public half goes into the server's config. A key is made once and then stays: it is the identity of its holder.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nkeys

from knotwork.config import regular
from knotwork.sdk.errors import Denied, Invalid, Unavailable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_SEED_BYTES = 32
_FILE_BYTES_MAX = 256  # a seed has 58 characters


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A seed (`SU…`, 58 characters, secret and therefore not in the repr) and its public key (`U…`, 56 characters)."""

    seed: str = field(repr=False)
    public: str


def generate() -> KeyPair:
    """Return a fresh user key that is stored nowhere."""
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(_SEED_BYTES), nkeys.PREFIX_BYTE_USER)
    return from_seed(seed.decode())


def from_seed(seed: str) -> KeyPair:
    """Return the key pair of `seed`; raises `Invalid` (`trust.bad_seed`) when it is not the seed of a user key."""
    text = seed.strip()
    try:
        prefix, raw = nkeys.decode_seed(text.encode("ascii"))
        intact = prefix == nkeys.PREFIX_BYTE_USER and nkeys.encode_seed(raw, prefix) == text.encode("ascii")
        public: str = nkeys.from_seed(text.encode("ascii")).public_key.decode()
    except Exception as error:  # the library lets foreign exceptions of four packages through
        raise Invalid(
            f"This is not an nkey seed ({type(error).__name__}).",
            code="trust.bad_seed",
            hint="A user seed starts with SU and has 58 characters.",
        ) from error
    if not intact:  # the library does not look at the checksum
        raise Invalid(
            "This nkey seed is damaged, or belongs to something else than a user.",
            code="trust.bad_seed",
            hint="A user seed starts with SU and has 58 characters.",
        )
    return KeyPair(seed=text, public=public)


def load(path: Path) -> KeyPair:
    """Read a key from its file.

    Raises `Denied` (`trust.key_exposed`) when others than the owner may read or write the file, `Unavailable`
    (`trust.key_unreadable`) when it cannot be read and `Invalid` (`trust.bad_seed`) when it holds no seed.
    """
    try:
        with regular.opened(path) as file:
            _check_private(path, os.fstat(file.fileno()))
            text = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Unavailable(
            f"The key file {path} cannot be read: {error.strerror or error}.",
            code="trust.key_unreadable",
            hint="Check that it belongs to the user the node runs as.",
        ) from error
    if len(text) > _FILE_BYTES_MAX:
        raise Invalid(f"The key file {path} is too long for a seed.", code="trust.bad_seed")
    try:
        return from_seed(text.decode("ascii", errors="replace"))
    except Invalid as error:
        raise Invalid(f"The key file {path}: {error.message}", code=error.code, hint=error.hint) from error


def check_private(path: Path) -> None:
    """Raise `Denied` (`trust.key_exposed`) when others than the owner may read or write a secret file that is there."""
    try:
        status = path.stat()
    except OSError:  # whoever reads it says it better
        return
    if stat.S_ISREG(status.st_mode) and _exposed(status):
        raise Denied(
            f"The file {path} holds a secret, and may be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}).",
            code="trust.key_exposed",
            hint=f"Run: chmod 600 {path}. If others used this machine meanwhile, have a new secret made.",
        )


def load_or_create(folder: Path, name: str) -> KeyPair:
    """Return the key `<folder>/<name>.nk`, made on first use (file 0600, folder 0700).

    Of several processes that make the same key at once one wins and all return the same key. Raises what `load`
    raises, `Invalid` (`trust.bad_key_name`) for a name that is no plain file name, and `Denied`
    (`trust.key_exposed`) when others than the owner may write to the folder.
    """
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is not a name for a key.", code="trust.bad_key_name")
    path = folder / f"{name}.nk"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(folder)
        if not path.exists():
            _store(path, generate().seed)
    except OSError as error:
        raise Unavailable(
            f"The key file {path} cannot be made: {error.strerror or error}.",
            code="trust.key_unreadable",
            hint="Check the owner and the free space of the folder.",
        ) from error
    try:
        return load(path)
    except Invalid as error:
        hint = "Restore it, or delete it: a new one is made then, and who joined with the old one needs that."
        raise Invalid(error.message, code=error.code, hint=hint) from error


def _store(path: Path, seed: str) -> None:
    """Write a whole file beside `path` and link it into place, so that nobody sees half a key and the first wins."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(seed + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was first: its key is the key
        except OSError:
            draft.replace(path)  # a file system without hard links
    finally:
        draft.unlink(missing_ok=True)


def _check_private(path: Path, status: os.stat_result) -> None:
    if not _exposed(status):
        return
    raise Denied(
        f"The key file {path} may be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}).",
        code="trust.key_exposed",
        hint=f"Run: chmod 600 {path}. If others used this machine meanwhile, delete the file to get a new key.",
    )


def _exposed(status: os.stat_result) -> bool:
    return sys.platform != "win32" and bool(stat.S_IMODE(status.st_mode) & 0o077)


def _check_folder(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if sys.platform == "win32" or not mode & 0o022:
        return
    raise Denied(
        f"Others may put files into the key folder {folder} (mode {mode:04o}).",
        code="trust.key_exposed",
        hint=f"Run: chmod 700 {folder}.",
    )

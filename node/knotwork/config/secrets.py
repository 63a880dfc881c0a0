"""What is the value behind a secret reference, and how is it kept out of everything that is written?

A value is read as late as possible and remembered only to be redacted: `redact` replaces it wherever it turns up,
also as JSON text, percent-encoded or base64. Values shorter than 4 characters are no secrets: they cannot be told
from other text and are not redacted.
`resolve` may wait for a file or up to 5 s for a command: call it in a thread, never in the event loop.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import re
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_bytes
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from knotwork.sdk import Invalid, SecretRef, Unavailable

COMMAND_TIMEOUT_S = 5.0
SIZE_MAX = 64 * 1024
LENGTH_MIN = 4
REMEMBERED_MAX = 1000
REDACTED = "[redacted]"

ChildEnv = Callable[[dict[str, str]], dict[str, str]]


def resolve(
    reference: Any,
    *,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
    child_env: ChildEnv | None = None,
) -> str:
    """Return the secret a reference points to, its first line without the line end; it is redacted from now on.

    `env` defaults to this process's, relative paths start from `folder` (default: the working directory), `child_env`
    makes the environment of a command. Raises `Unavailable` when it cannot be had, `Invalid` when the reference is none.
    """
    try:
        secret = reference if isinstance(reference, SecretRef) else SecretRef.model_validate(reference)
    except ValidationError:
        raise Invalid("this is no secret reference.", code="config.bad_secret", hint=_FORMS) from None
    if secret.env is not None:
        value = (os.environ if env is None else env).get(secret.env, "")
        if not value:
            raise _cannot(f"the environment variable {secret.env} holds no secret.", f"Set {secret.env}.")
    elif secret.file is not None:
        value = _from_file((folder or Path()) / Path(secret.file).expanduser())
    else:
        value = _from_command(secret.cmd or (), folder, child_env)
    value = value.split("\n", 1)[0].rstrip("\r")
    if not value:
        raise _cannot("the secret is empty.", "Check what the reference points to.")
    remember(value)
    return value


def remember(value: str) -> None:
    """Redact this value from now on; values too short to be told from other text are passed over."""
    if len(value) >= LENGTH_MIN:
        _known.add(value)


def redact(text: str) -> str:
    """Return the text with every known secret value replaced."""
    return _known.redact(text)


def redact_tree(value: Any) -> Any:
    """Return plain data with every known secret value replaced in its texts, keys included."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact_tree(key): redact_tree(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [redact_tree(part) for part in value]
    return value


def fingerprint(table: Any, read: Callable[[SecretRef], str] = resolve) -> str:
    """Return a mark of a table that changes when any value changes, the values behind its secret references included.

    Marks are keyed with a number of this process: they can be compared here and tell nothing elsewhere. A secret that
    cannot be read counts as such; no error is raised. May wait like `resolve`.
    """
    return hmac.new(_MARK_KEY, repr(_plain(table, read)).encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class SecretLogFilter(logging.Filter):
    """Redacts log records, tracebacks included; add it to handlers, so that it sees every logger's records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact in place; every record passes."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the format: logging tells about it by itself
            return True
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


class _Known:
    """The values to redact; asked from any thread."""

    def __init__(self) -> None:
        self._values: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def add(self, value: str) -> None:
        with self._lock:
            if value in self._values:
                return
            self._values[value] = None
            while len(self._values) > REMEMBERED_MAX:
                del self._values[next(iter(self._values))]
            forms = {form for known in self._values for form in _forms(known)}
            self._pattern = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))

    def redact(self, text: str) -> str:
        pattern = self._pattern
        return pattern.sub(REDACTED, text) if pattern else text


_known = _Known()
_MARK_KEY = token_bytes(32)
_FORMS = 'Write {env = "NAME"}, {file = "path"} or {cmd = ["program"]}.'


def _forms(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogateescape")
    plain = (
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        quote(raw, safe=""),
    )
    return {*plain, base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}


def _plain(value: Any, read: Callable[[SecretRef], str]) -> Any:
    if isinstance(value, SecretRef):
        try:
            return "secret", hashlib.sha256(read(value).encode("utf-8", "surrogateescape")).digest()
        except (Unavailable, Invalid) as error:
            return "secret", error.code
    if isinstance(value, BaseModel):
        return type(value).__qualname__, [(key, _plain(part, read)) for key, part in value]
    if isinstance(value, Mapping):
        return [(key, _plain(value[key], read)) for key in sorted(value, key=str)]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part, read) for part in value]
    return type(value).__qualname__, repr(value)


def _cannot(message: str, hint: str = "") -> Unavailable:
    return Unavailable(message, code="config.secret_unavailable", hint=hint)


def _from_file(path: Path) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # noqa: PTH123 - a pipe must not hang
            data = file.read(SIZE_MAX + 1) or b""
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise _cannot(
            f"the secret file {path} cannot be read: {why}.", "Check the path and who may read it."
        ) from error
    if len(data) > SIZE_MAX:
        raise _cannot(f"the secret file {path} is larger than {SIZE_MAX // 1024} KiB.")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise _cannot(f"the secret file {path} is not UTF-8 text.") from None


def _from_command(command: Sequence[str], folder: Path | None, child_env: ChildEnv | None) -> str:
    name = command[0] if command else ""
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # may repeat the secret
            cwd=folder,
            env=child_env({}) if child_env else None,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _cannot(f"the secret command {name!r} cannot be started: {why.lower()}.") from error
    try:
        output, _ = child.communicate(timeout=COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        raise _cannot(f"the secret command {name!r} took longer than {COMMAND_TIMEOUT_S:g} s.") from None
    if child.returncode:
        raise _cannot(
            f"the secret command {name!r} ended with status {child.returncode}.", "Run it by hand to see why."
        )
    if len(output) > SIZE_MAX:
        raise _cannot(f"the secret command {name!r} printed more than {SIZE_MAX // 1024} KiB.")
    try:
        return output.decode("utf-8")
    except UnicodeDecodeError:
        raise _cannot(f"the secret command {name!r} did not print UTF-8 text.") from None


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Leave no process of the command's group behind; one of them holds the output open."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except (ProcessLookupError, PermissionError):  # ended meanwhile
        pass
    if child.stdout:
        child.stdout.close()
    child.wait()

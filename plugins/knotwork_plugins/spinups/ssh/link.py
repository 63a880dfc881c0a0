"""How is a script carried to the far side? By the system's own `ssh`, on its standard input, within a bounded time."""

from __future__ import annotations

import asyncio
import math
import os
from typing import TYPE_CHECKING

from knotwork.sdk import Denied, Invalid, KnotworkError, Unavailable, Unreachable
from knotwork_plugins.executors.process import group, inputs
from knotwork_plugins.spinups import answers, words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import ThreadPoolExecutor

    from knotwork.sdk import Context
    from knotwork_plugins.spinups.ssh.config import SshConfig

OF_SSH_ITSELF = 255
OUTPUT_MAX = 262_144
GRACE_S = 1.0
SAID_MAX = 500
# What is passed on of the node's environment: how ssh finds an agent that holds keys.
_PASSED = ("SSH_AUTH_SOCK", "KRB5CCNAME")
_TROUBLE = (
    ("Host key verification failed", "host_key"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "host_key"),
    ("Permission denied", "denied"),
    ("Too many authentication failures", "denied"),
    ("UNPROTECTED PRIVATE KEY FILE", "denied"),
    ("bad permissions", "denied"),
    ("Bad configuration option", "options"),
    ("command-line:", "options"),
)
_HINTS = {
    "host_key": "Compare the key with the machine's own, then put it into the known hosts file with ssh-keyscan.",
    "denied": "Put the public key into authorized_keys of that user there, and see that `user` and `key_file` are right.",
    "options": "Mend `options`.",
}


def arguments(config: SshConfig, base_folder: str = "") -> list[str]:
    """Return the command line of ssh for a target; no secret is in it."""
    from pathlib import Path

    def path(name: str) -> str:
        return str(Path(base_folder) / Path(name).expanduser())

    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(math.ceil(config.connect_timeout_s)),
        "StrictHostKeyChecking": "yes" if config.host_keys == "strict" else "accept-new",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
        "ControlMaster": "no",
        "EscapeChar": "none",
        "LogLevel": "ERROR",
    }
    if config.known_hosts:
        options["UserKnownHostsFile"] = f'"{path(config.known_hosts)}"'
    if config.key_file:
        options["IdentitiesOnly"] = "yes"
    options.update(config.options)
    line = [config.program, "-T"]
    line += ["-F", path(config.config_file)] if config.config_file else []
    line += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    line += ["-p", str(config.port)] if config.port else []
    line += ["-l", config.user] if config.user else []
    line += ["-i", path(config.key_file)] if config.key_file else []
    line += ["-J", config.jump] if config.jump else []
    return [*line, "--", config.host, "/bin/sh", "-s"]


async def carry(
    script: str, config: SshConfig, context: Context, threads: ThreadPoolExecutor, *, within_s: float
) -> bytes:
    """Have the far shell run `script` and return what it printed; `within_s` (seconds) begins when ssh starts.

    Raises `Unreachable` when there is no connection or it breaks, `Denied` for keys that do not fit, `Unavailable` when
    it takes too long, `Invalid` for options that ssh does not know.
    """
    loop = asyncio.get_running_loop()
    env = context.child_env({name: os.environ[name] for name in _PASSED if name in os.environ})
    stdin = await loop.run_in_executor(threads, inputs.on_stdin, script.encode())
    said: dict[int, bytes] = {}
    try:
        async with (
            asyncio.timeout(within_s),
            group.spawn(
                arguments(config, str(context.base)),
                env=env, cwd=None, stdin=stdin, grace_s=GRACE_S, threads=threads,
            ) as child,
            asyncio.TaskGroup() as tasks,
        ):  # fmt: skip
            for stream in (1, 2):
                tasks.create_task(_read(child, stream, said))
            await child.wait(GRACE_S)
    except TimeoutError as error:
        raise Unavailable(
            f"{where(config)} did not do what it was told within {within_s:g} s.",
            code="launch.no_answer",
            hint="Is the machine overloaded, or the network slow? Raise `connect_timeout_s`.",
        ) from error
    except OSError as error:
        raise Invalid(
            f"{config.program!r} cannot be run: {error}.", code="launch.no_ssh", hint="Install an SSH client."
        ) from error
    finally:
        os.close(stdin)
    if child.returncode != 0:
        raise trouble(config, child.returncode, said.get(2, b""))
    return said.get(1, b"")


async def _read(child: group.Child, stream: int, said: dict[int, bytes]) -> None:
    kept = bytearray()
    while piece := await child.read(stream):
        kept += piece
        del kept[:-OUTPUT_MAX]
        await asyncio.sleep(0)
    said[stream] = bytes(kept)


def trouble(config: SshConfig, code: int | None, complaint: bytes) -> KnotworkError:
    """Return what an ssh that failed means."""
    said = words.hide(complaint.decode(errors="replace"))
    last = _last(said.splitlines())
    kind = next((kind for text, kind in _TROUBLE if text in said), "")
    message = f"{where(config)}: {last.rstrip('.')}."
    if kind == "denied":
        return Denied(message, code="launch.denied", hint=_HINTS[kind])
    if kind == "host_key":
        return Denied(message, code="launch.host_key", hint=_HINTS[kind])
    if kind == "options":
        return Invalid(message, code="launch.refused", hint=_HINTS[kind])
    if code == OF_SSH_ITSELF:
        return answers.unreachable(where(config), ConnectionError(last), "Is it on, and does it take SSH on that port?")
    return Unreachable(
        f"{where(config)} ended the script with exit code {code}: {last}.",
        code="launch.bad_answer",
        hint="Is there a /bin/sh, and may this user run commands?",
    )


def where(config: SshConfig) -> str:
    """Return the target as people write it."""
    user = f"{config.user}@" if config.user else ""
    return f"{user}{config.host}:{config.port}" if config.port else f"{user}{config.host}"


def _last(lines: Sequence[str]) -> str:
    said = [line.strip() for line in lines if line.strip(" @\t")]
    return (said[-1] if said else "it said nothing")[:SAID_MAX]

"""How is an agent started on this very machine? As a process in a session of its own, found again by number and age."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from pydantic import Field, model_validator

from knotwork.sdk import (
    Condition,
    Conflict,
    Context,
    Factory,
    Invalid,
    KnotworkError,
    Launched,
    LaunchRequest,
    NotFound,
    PluginConfig,
    SpinUp,
    TimedOut,
    Unavailable,
)
from knotwork_plugins import programs
from knotwork_plugins.spinups import commands, environment, words
from knotwork_plugins.spinups.environment import Environment
from knotwork_plugins.spinups.local import life

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

WARD = "KNOTWORK_WARD"  # who carries it ends with the node, so what is to stay must not
OUTPUT, RECORD = "output.log", "record.json"
KEPT_BYTES = 65_536
PID_MAX = 2**31 - 1


class LocalConfig(PluginConfig):
    """Options of a target that is a command on the node's own machine."""

    command: commands.Command = Field(
        min_length=1,
        description='program and arguments, e.g. ["knotwork", "up"]; one string only with shell = true',
    )
    shell: bool = Field(default=False, description="run the command string by /bin/sh")
    cwd: str = Field(default="", max_length=4096, description="folder to run in; empty: that of the configuration file")
    env: Environment = Field(
        default_factory=dict, description="environment to add; values are strings or secret references"
    )
    pass_env: tuple[str, ...] = Field(
        default=(), description="names of the node's environment variables that the agent gets too"
    )
    detached: bool = Field(
        default=False, description="the agent outlives the node and is found again; else it ends with the node"
    )
    output_max_bytes: int = Field(
        default=8_388_608, ge=KEPT_BYTES, le=1_073_741_824, description="bytes of its output kept; the oldest go first"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        commands.check(self.command, shell=self.shell)
        return self

    @property
    def argv(self) -> list[str]:
        """Return the command as a list."""
        return commands.argv(self.command)


class Local:
    """The spin-up: one process group per launch, with a folder for its output and for what is known of it."""

    def __init__(self, config: LocalConfig, context: Context) -> None:
        """Keep what launches need."""
        self._config = config
        self._context = context
        self._cwd = context.base / Path(config.cwd).expanduser()
        self._folder = context.folder / "launches"
        self._known = environment.Known()
        self._starting = threading.Lock()  # one look and one start at a time

    @property
    def ends_with_node(self) -> bool:
        """Return whether its agents are killed with the node, and so are to be asked to leave before it stops."""
        return not self._config.detached

    async def probe(self) -> None:
        """Raise `NotFound` when the command or its folder is not there, `Unavailable` when nothing can be kept."""
        await asyncio.to_thread(self._look)

    async def launch(self, request: LaunchRequest) -> Launched:
        """Start the command, or name the one that was started with this id.

        Raises `NotFound` or `Invalid` when it cannot be started as it is, `Unavailable` when only not now.
        """
        given = await environment.gathered(self._config.env, request, self._context.secrets)
        self._known.keep(request.id, given)
        # In one piece in a thread: when this is cancelled it is started and noted, or neither.
        return Launched(await asyncio.to_thread(self._start, request, given))

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Say how the process is; raises `Conflict` for one that another node started."""
        return await asyncio.to_thread(self._look_at, ref)

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """End the process, its group and all that it started; raises `TimedOut` when even SIGKILL does not do it."""
        self._check_node(ref)
        mark, pid, began = _key(ref)
        if not mark or ref.get("boot", "") != life.boot():
            return
        if not await life.end(pid, began, mark, max(grace_s, 0.0)):
            raise TimedOut(
                f"process {pid} does not end, not even when killed.",
                code="launch.will_not_end",
                hint="It hangs in the kernel, on a device or a file system that is away; try again later.",
            )
        self._known.drop(mark)
        with contextlib.suppress(Invalid):
            await asyncio.to_thread(shutil.rmtree, self._folder_of(mark), ignore_errors=True)

    def _start(self, request: LaunchRequest, given: dict[str, str]) -> dict[str, Any]:
        folder = self._folder_of(request.id)
        with self._starting:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if (known := _read(folder)) is not None:
                    known.pop("exit", None)
                    return known
                if pid := life.leader_of(request.id):  # the node ended between starting it and noting that
                    return self._note(folder, request, pid)
                self._look()
                return self._note(folder, request, self._spawn(folder, request, given))
            except KnotworkError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            except OSError as error:
                raise Unavailable(
                    f"nothing can be written to {folder}: {error}.", code="launch.not_kept", hint="Look at the disk."
                ) from error

    def _spawn(self, folder: Path, request: LaunchRequest, given: dict[str, str]) -> int:
        passed = {name: os.environ[name] for name in self._config.pass_env if name in os.environ}
        env = self._context.child_env({**passed, **given, life.MARK: request.id})
        if self._config.detached:
            env.pop(WARD, None)
        output = os.open(folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return life.start(self._config.argv, env, self._cwd, output)
        except (OSError, ValueError) as error:
            why = f"{self._config.argv[0]!r} cannot be started: {words.hide(str(error), self._known.of(request.id))}."
            if isinstance(error, BlockingIOError):
                raise Unavailable(why, code="launch.not_started", hint="Too much runs here; try again.") from error
            raise Invalid(why, code="launch.not_started", hint="Mend `command`.") from error
        finally:
            os.close(output)

    def _note(self, folder: Path, request: LaunchRequest, pid: int) -> dict[str, Any]:
        """Write down what finds the process again, and return that; one that ended meanwhile began at 0."""
        ref = {
            "launch": request.id,
            "node": self._context.node,
            "pid": pid,
            "started": life.started(pid),
            "boot": life.boot(),
        }
        _write(folder, ref)
        return ref

    def _look_at(self, ref: Mapping[str, Any]) -> Condition:
        self._check_node(ref)
        mark, pid, began = _key(ref)
        if ref.get("boot", "") != life.boot():
            return Condition("gone", "the machine was restarted since")
        try:
            folder = self._folder_of(mark)
        except Invalid:
            return Condition("gone", "there was no such launch")
        if folder.is_dir():
            self._shorten(folder / OUTPUT)
        if left := life.living(pid, began, mark):
            return Condition("running", f"process {pid}" if left[0].pid == pid else f"{len(left)} of its processes")
        return self._end_of(folder, pid, self._known.of(mark))

    def _end_of(self, folder: Path, pid: int, secrets: list[str]) -> Condition:
        """Say how a process that is no more ended, as far as that is known, and what it said last."""
        known = _read(folder)
        if known is None:
            return Condition("gone", "nothing of it is left")
        code = known.get("exit", life.exit_code(pid))
        if code is not None and "exit" not in known:
            with contextlib.suppress(OSError):
                _write(folder, {**known, "exit": code})
        said = _tail(folder / OUTPUT)
        if code is None:
            return Condition("gone", words.ended("it ended while the node was away", said, secrets))
        if code == 0:
            return Condition("gone", words.ended("it ended with exit code 0", said, secrets))
        how = f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        return Condition("failed", words.ended(how, said, secrets))

    def _look(self) -> None:
        if not self._cwd.is_dir():
            raise NotFound(
                f"the folder {self._cwd} does not exist.", code="launch.no_folder", hint="Create it, or mend `cwd`."
            )
        program = self._config.argv[0]
        if not programs.is_there(program, self._cwd, self._config.env, self._context):
            raise NotFound(
                f"the command {program!r} is not there or may not be executed.",
                code="launch.no_command",
                hint="Install it, or write its whole path in `command`.",
            )

    def _check_node(self, ref: Mapping[str, Any]) -> None:
        node = words.text_in(ref, "node")
        if node and node != self._context.node:
            raise Conflict(
                f"it was started on the node {node!r}, and only that one can see it.",
                code="launch.elsewhere",
                hint=f"Ask the node {node!r}.",
            )

    def _folder_of(self, launch: str) -> Path:
        if not launch or len(launch) > 128 or not launch.replace("-", "").replace("_", "").isalnum():  # noqa: PLR2004  a name of a file
            raise Invalid(f"{launch[:80]!r} is no id of a launch.", code="launch.bad_id")
        return self._folder / launch

    def _shorten(self, output: Path) -> None:
        """Keep the end of an output that grew too long; what is written meanwhile may be lost."""
        with contextlib.suppress(OSError):
            if output.stat().st_size > self._config.output_max_bytes:
                kept = _tail(output, KEPT_BYTES)
                os.truncate(output, 0)  # its writers append, so they go on at the beginning
                descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
                try:
                    os.write(descriptor, kept)
                finally:
                    os.close(descriptor)


def _key(ref: Mapping[str, Any]) -> tuple[str, int, float]:
    """Return the mark, number and start time in a ref; 0 for what is none."""
    pid, began = ref.get("pid"), ref.get("started")
    return (
        words.text_in(ref, "launch"),
        pid if isinstance(pid, int) and 0 < pid <= PID_MAX else 0,
        float(began) if isinstance(began, int | float) else 0.0,
    )


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode((folder / RECORD).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
    return found if isinstance(found, dict) else None


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    new = folder / f"{RECORD}.new"
    new.write_bytes(msgspec.json.encode(record))
    new.replace(folder / RECORD)


def _tail(file: Path, most: int = words.TAIL_BYTES) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(max(file.stat().st_size - most, 0))
            return opened.read(most)
    except OSError:
        return b""


@asynccontextmanager
async def open_local(config: LocalConfig, context: Context) -> AsyncIterator[SpinUp]:
    """Open the spin-up; it holds nothing, so that closing it ends nothing."""
    yield Local(config, context)


FACTORY: Factory[SpinUp] = Factory(
    name="local",
    config=LocalConfig,
    open=open_local,
    summary="Starts agents as processes on this machine, which end with the node or outlive it.",
    abilities=("probe", "stop"),
)
"""One target on the node's own machine."""

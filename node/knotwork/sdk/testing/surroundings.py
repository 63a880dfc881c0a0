"""What surrounds a plugin in a test: a clock that is moved, telemetry that is recorded, a store in memory."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knotwork.sdk.errors import Unavailable
from knotwork.sdk.factory import Context
from knotwork.sdk.secret import SecretRef
from knotwork.sdk.telemetry import Event, Metric, Record, Span

VALUE_MAX_BYTES = 512 * 1024
CMD_TIMEOUT_S = 5.0


@dataclass
class FakeClock:
    """A clock that stands still until it is moved."""

    now_s: float = 1_700_000_000.0
    started_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_s = self.now_s

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return int(self.now_s * 1_000_000_000)

    def monotonic_s(self) -> float:
        """Return seconds since the clock was made."""
        return self.now_s - self.started_s

    def move(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now_s += seconds


@dataclass
class Recorder:
    """An `emit` that keeps what it is told."""

    records: list[Record] = field(default_factory=list)

    def __call__(self, record: Record) -> None:
        """Keep one record."""
        self.records.append(record)

    @property
    def events(self) -> list[Event]:
        """Return the events alone."""
        return [record for record in self.records if isinstance(record, Event)]

    @property
    def spans(self) -> list[Span]:
        """Return the spans alone."""
        return [record for record in self.records if isinstance(record, Span)]

    @property
    def metrics(self) -> list[Metric]:
        """Return the metrics alone."""
        return [record for record in self.records if isinstance(record, Metric)]


@dataclass
class RecordingReporter:
    """A reporter that keeps what an attempt says while it runs."""

    said: list[tuple[float | None, str]] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)

    def progress(self, percent: float | None, text: str) -> None:
        """Keep one report of progress."""
        self.said.append((percent, text))

    async def stream(self, chunk: Any) -> None:
        """Keep one piece of live output; it must be JSON."""
        json.dumps(chunk, allow_nan=False)
        self.chunks.append(chunk)


@dataclass
class DictKeyValue:
    """A `KeyValue` in memory that is as strict as the real one: JSON values up to 512 KiB."""

    values: dict[str, str] = field(default_factory=dict)

    async def get(self, key: str) -> Any:
        """Return the value, None when there is none."""
        return json.loads(self.values[key]) if key in self.values else None

    async def put(self, key: str, value: Any) -> None:
        """Keep the value; raises ValueError when it is too big, TypeError when it is not JSON."""
        text = json.dumps(value, allow_nan=False)
        if len(text.encode()) > VALUE_MAX_BYTES:
            raise ValueError(f"value of {key!r} is over {VALUE_MAX_BYTES} bytes")
        self.values[key] = text

    async def delete(self, key: str) -> None:
        """Forget the key."""
        self.values.pop(key, None)


@dataclass
class RecordingStream:
    """A `Stream` that keeps what is published; set `away` to see what the plugin does without a bus."""

    published: list[tuple[str, bytes]] = field(default_factory=list)
    projects: list[str] = field(default_factory=list)
    away: bool = False

    async def publish(self, topic: str, payload: bytes, project: str = "") -> None:
        """Keep one message, and the project it is for."""
        if self.away:
            raise Unavailable("the bus is away", code="bus.away")
        self.published.append((topic, payload))
        self.projects.append(project)


def resolve(reference: Any) -> str:
    """Resolve a `SecretRef` (or a plain text) as the node would; raises `Unavailable`."""
    if isinstance(reference, str):
        return reference
    ref = SecretRef.model_validate(reference if isinstance(reference, dict) else reference.model_dump())
    try:
        if ref.env is not None:
            return os.environ[ref.env]
        if ref.file is not None:
            return Path(ref.file).read_text(encoding="utf-8").split("\n", 1)[0]
        done = subprocess.run([*(ref.cmd or ())], capture_output=True, text=True, check=True, timeout=CMD_TIMEOUT_S)
        return done.stdout.split("\n", 1)[0]
    except (KeyError, OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"secret cannot be had: {error}", code="config.secret") from error


def make_context(**given: Any) -> Context:
    """Return a context for tests; any of its fields can be given.

    The default `folder` is a fresh temporary one which the caller removes (`host` does).
    """
    parts: dict[str, Any] = {
        "id": "test",
        "node": "test-node",
        "log": logging.getLogger("knotwork.plugin.test"),
        "emit": Recorder(),
        "clock": FakeClock(),
        "keep": DictKeyValue(),
        "stream": RecordingStream(),
        "secrets": resolve,
        "child_env": lambda extra: {**os.environ, **extra},
        **given,
    }
    if "folder" not in parts:
        parts["folder"] = Path(tempfile.mkdtemp(prefix="knotwork-test-"))
    return Context(**parts)

"""What may be written in a trigger? One model, read from TOML, JSON or YAML, or made of the fields of an op (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)

from knotwork.flow import expressions, schemas
from knotwork.flow.durations import seconds
from knotwork.sdk.checked import Checked
from knotwork.sdk.errors import KnotworkError
from knotwork.sdk.secret import SecretRef
from knotwork.trigger import due

TOKEN = r"^[a-z0-9][a-z0-9_-]{0,63}$"  # noqa: S105  a name's pattern, no secret
Token = Annotated[str, Field(pattern=TOKEN)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$")]
LOOSE = "loose"
"""Context of a validation that looks at each key by itself, and not at what they mean together."""
MIB = 1024 * 1024
BODY_MAX_BYTES = 8 * MIB
Overlap = Literal["allow", "skip", "cancel", "queue"]
KINDS = ("cron", "once", "subject", "webhook", "http", "file", "plugin")
_RESERVED = (
    "$",
    "_",
    "run.",
    "task.",
    "timer.",
    "fired.",
    "ended.",
    "dead.",
    "told.",
    "history.",
    "firing.",
    "count.",
    "audit.",
)


def _expression(text: str) -> str:
    try:
        expressions.compiled(text)
    except KnotworkError as error:
        raise ValueError(error.message) from error
    return text


def _mapping(shape: Any) -> Any:
    for _, text in expressions.texts(shape):
        _expression(text)
    return shape


def _moment(text: str) -> str:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write a time as 2026-05-01T12:00:00Z") from None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _schema(shape: dict[str, Any]) -> dict[str, Any]:
    if wrong := schemas.wrong(shape):
        raise ValueError(wrong)
    return shape


def _no_command(secret: SecretRef) -> SecretRef:
    if secret.cmd is not None:  # whoever may write triggers may not therefore run programs
        raise ValueError('write {env = "NAME"} or {file = "path"}: commands are not run for triggers')
    return secret


Expression = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_expression)]
Mapping = Annotated[Any, AfterValidator(_mapping)]
Duration = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=365 * 86400.0)]
Secret = Annotated[SecretRef, AfterValidator(_no_command)]
Route = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){0,7}$")]


class Part(Checked):
    """A table of a trigger: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Trigger(Part):
    """What all triggers have."""

    id: Token
    workflow: Token = Field(description="name or digest of the workflow that it starts")
    enabled: bool = True
    description: Annotated[str, Field(max_length=4096)] = ""
    mapping: Mapping = Field(
        default=None,
        description="expression, or table of them, over the envelope; left out: the body is the input of the run",
    )
    labels: dict[Label, Annotated[str, Field(max_length=256)]] = Field(default={}, max_length=32)
    priority: int | None = Field(default=None, ge=1, le=10)
    boundary: Token | None = None
    overlap: Overlap = Field(default="allow", description="what becomes of it while its run before goes on")

    @model_validator(mode="after")
    def _makes_sense(self, info: ValidationInfo) -> Self:
        if info.context != LOOSE and (told := "; ".join(message for _, message in self.broken())):
            raise ValueError(told)
        return self

    def broken(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what makes no sense though each key by itself does: the keys that it is about, and what is wrong."""
        yield from ()


class Cron(Trigger):
    """Fires at times of the calendar."""

    kind: Literal["cron"]
    cron: Annotated[str, Field(max_length=256)] = Field(description="five fields, six with seconds first, or @daily")
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    input: Any = None
    grace: Duration = Field(default=60.0, description="a time that is later than this was missed")
    missed: Literal["skip", "one", "all"] = "skip"
    max_missed: int = Field(default=100, ge=1, le=1000, description="how many missed times are made up for, at most")
    max_queued: int = Field(default=100, ge=1, le=1000)
    jitter: Duration = Field(default=0.0, description="each time is later by up to so much, the same on every node")

    def broken(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield a time zone that there is none of, and a time that never comes."""
        zone, told = self.timezone, due.no_zone(self.timezone)
        if told:
            yield ("timezone",), told
            zone = "UTC"
        try:
            due.must_be_due(self.cron, zone)
        except ValueError as error:
            yield ("cron",), str(error)


class Once(Trigger):
    """Fires at one moment, and is removed."""

    kind: Literal["once"]
    at: Annotated[str, Field(max_length=64), AfterValidator(_moment)]
    input: Any = None
    key: Annotated[str, Field(max_length=256)] = Field(default="", description="idempotency key of the run")

    @property
    def at_ns(self) -> int:
        """Return the moment in nanoseconds since 1970."""
        return int(datetime.fromisoformat(self.at).timestamp() * 1e6) * 1000


class Batch(Part):
    """How messages are gathered into one run."""

    count: int = Field(default=100, ge=1, le=1000, description="so many at most")
    within: Duration = Field(default=10.0, description="after the first of them")


class Debounce(Part):
    """How messages that follow each other are taken for one: the last of them counts."""

    key: Expression | None = Field(default=None, description="those that give the same here; left out: all")
    quiet: Duration = Field(default=5.0, description="nothing more may come for so long")
    max_wait: Duration = Field(default=300.0, description="but no longer than this after the first")


class Subject(Trigger):
    """Fires for each message of a stream on a subject."""

    kind: Literal["subject"]
    subject: Annotated[str, Field(pattern=r"^[^\s.]+(\.[^\s.]+){0,15}$", max_length=256)]
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = Field(
        default=None, description="left out: the one that takes the subject"
    )
    begin: Literal["new", "all"] = Field(default="new", description="with messages to come, or with all there are")
    filter: Expression | None = Field(default=None, description="true for messages that are meant; sees the envelope")
    batch: Batch | None = None
    debounce: Debounce | None = None

    def broken(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what its subject cannot be, and what cannot be said together."""
        if self.subject.startswith((*_RESERVED, "*", ">")):
            told = f"{self.subject!r} is not for triggers: give event.<kind>, or a subject of a stream of your own"
            yield ("subject",), told
        elif ">" in self.subject.removesuffix(".>"):
            yield ("subject",), "'>' stands for the rest, at the end alone"
        if self.batch is not None and self.debounce is not None:
            yield ("debounce", "batch"), "name batch or debounce, one of the two"
        if (self.batch or self.debounce) and self.overlap not in ("allow", "queue"):
            yield ("overlap",), "what is gathered cannot be skipped: overlap is allow or queue"


class Arriving(Trigger):
    """What all triggers have that are served under a path of the HTTP door."""

    path: Route
    secret: Secret | None = Field(default=None, description="reference to what requests are signed with")
    unsigned: bool = Field(default=False, description="anybody who reaches the door may fire it")
    window: Duration = Field(default=300.0, description="how old a request may be, and how long it counts as the same")
    max_body: int = Field(default=MIB, ge=1, le=BODY_MAX_BYTES, description="bytes")
    idempotency_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] = "Idempotency-Key"
    body_schema: Annotated[dict[str, Any], AfterValidator(_schema)] | None = Field(
        default=None, description="JSON Schema that the body must fit"
    )

    def broken(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield that it is open to everybody and does not say so, and what nobody waits for."""
        if (self.secret is None) != self.unsigned:
            told = "give a secret, or say unsigned = true: then anybody who reaches the door may fire it"
            yield ("unsigned", "secret"), told
        if self.overlap == "queue":
            yield ("overlap",), "whoever asks is answered now: overlap is allow, skip or cancel"


class Webhook(Arriving):
    """Fires for each signed POST to /hooks/<path>; answers 202 with the id of the run."""

    kind: Literal["webhook"]


class Http(Arriving):
    """Fires for each request to /run/<path>, and answers with what the run responds."""

    kind: Literal["http"]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    timeout: Annotated[float, BeforeValidator(seconds), Field(gt=0, le=600)] = 30.0


class Files(Trigger):
    """Fires when files of a folder change."""

    kind: Literal["file"]
    folder: Annotated[str, Field(min_length=1, max_length=4096)]
    pattern: Annotated[str, Field(min_length=1, max_length=256)] = "*"
    changes: tuple[Literal["added", "modified", "deleted"], ...] = Field(default=("added", "modified"), min_length=1)
    node: Token | None = Field(default=None, description="the node that watches; left out: every node")
    recursive: bool = False
    settle: Duration = Field(default=1.0, description="a file is written when it has been the same for so long")


class Plugin(Trigger):
    """Fires for what a trigger plugin tells: one that the configuration of a node has, or of several."""

    kind: Literal["plugin"]
    source: Token = Field(description="id of the table [triggers.*] that says what is listened to")


Timed = Cron | Once
Served = Webhook | Http
Definition = Cron | Once | Subject | Webhook | Http | Files | Plugin
AnyTrigger = Annotated[Cron | Once | Subject | Webhook | Http | Files | Plugin, Field(discriminator="kind")]
ADAPTER: TypeAdapter[Definition] = TypeAdapter(AnyTrigger, config=ConfigDict(defer_build=True))

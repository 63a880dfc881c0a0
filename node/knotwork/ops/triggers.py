"""What may be asked about triggers, and of them: keep, look, switch, try, fire, make up for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from knotwork.ops import trigger_replies as replies
from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Key, Moment
from knotwork.ops.words import TOKEN, Token

SHOWN = {"id": "nightly", "workflow": "hello", "cron": "0 3 * * *", "timezone": "Europe/Berlin"}
Line = Annotated[str, StringConstraints(max_length=4096)]
Name = Annotated[str, StringConstraints(max_length=4096), Field(json_schema_extra={"pattern": f"^{TOKEN}$"})]
"""A name that is judged with the rest of the trigger, so that all that is wrong is told at once."""


class Fields(Request):
    """A trigger, in words."""

    definition: Any = Field(default=None, description="TOML, YAML or JSON: `@file` reads a file, `-` standard input")
    id: Name | None = Field(default=None, description="its name")
    workflow: Name | None = Field(default=None, description="what it starts")
    kind: Literal["cron", "once", "subject", "webhook", "http", "file", "plugin"] | None = Field(
        default=None, description="what makes it fire, when that is not clear from the rest"
    )
    cron: Line | None = Field(default=None, description="five fields, six with seconds first, or @daily")
    timezone: Line | None = Field(default=None, description="of the cron times, such as Europe/Berlin")
    at: Line | None = Field(default=None, description="one moment, RFC 3339")
    subject: Line | None = Field(default=None, description="event.<kind>, or a subject of a stream of yours")
    path: Line | None = Field(default=None, description="what follows /hooks/ or /run/ in the address")
    secret: Any = Field(default=None, description='reference to what requests are signed with: {"env": "NAME"}')
    unsigned: bool = Field(default=False, description="anybody who reaches the door may fire it")
    folder: Line | None = Field(default=None, description="folder whose files are watched")
    source: Name | None = Field(default=None, description="table [triggers.*] of what is listened to")
    input: Any = Field(default=None, description="what runs are given that a time starts")

    def given(self) -> dict[str, Any]:
        """Return the fields of the trigger itself."""
        return {
            name: getattr(self, name)
            for name in Fields.model_fields
            if name != "definition" and getattr(self, name) is not None and (name != "unsigned" or self.unsigned)
        }


class CreateRequest(Fields):
    """A trigger, and whether it may take the place of another."""

    replace: bool = Field(default=False, description="take the place of the one with this id")


@op(
    "trigger.create", CreateRequest, replies.Kept, effect="write",
    cli=CliForm(("trigger", "create"), positional=("definition",), answer="id"),
    summary="Keep a trigger: what starts runs of a workflow by itself.",
    help="It is in force on every node at once. A field counts more than the same key of the definition.",
    examples=(
        Example("Every night at three", {"definition": SHOWN}),
        Example("For each order", {"id": "orders", "workflow": "hello", "subject": "event.order.paid"}),
        Example("For what a plugin tells", {"id": "news", "workflow": "hello", "source": "news"}),
    ),
)  # fmt: skip
async def create(request: CreateRequest, node: NodeControl, caller: Caller) -> replies.Kept:
    """Keep it."""
    desk = node.triggers(caller.project)
    return await desk.create(request.definition, request.given(), caller, replace=request.replace)


@op(
    "trigger.list", Nothing, replies.TriggerList, effect="read",
    cli=CliForm(("trigger", "list"), rows="triggers", columns=("id", "kind", "workflow", "enabled", "fires", "next_at", "last_at", "fired"), also=("triggers",)),
    summary="List the triggers.",
    help="With when each fires next, and fired last.",
    examples=(Example("Which are there?"),),
)  # fmt: skip
async def all_of_them(_: Nothing, node: NodeControl, caller: Caller) -> replies.TriggerList:
    """Return all."""
    return replies.TriggerList(triggers=await node.triggers(caller.project).all())


class IdRequest(Request):
    """Which trigger."""

    id: Token = Field(description="id of a trigger")


@op(
    "trigger.show", IdRequest, replies.TriggerInfo, effect="read",
    cli=CliForm(("trigger", "show"), positional=("id",)),
    summary="Show a trigger whole.",
    help="As it was written, and how far it has come. Secrets are shown as references.",
    examples=(Example("What does it do?", {"id": "nightly"}),),
)  # fmt: skip
async def show(request: IdRequest, node: NodeControl, caller: Caller) -> replies.TriggerInfo:
    """Return it."""
    return await node.triggers(caller.project).show(request.id)


@op(
    "trigger.enable", IdRequest, replies.TriggerRow, effect="write",
    cli=CliForm(("trigger", "enable"), positional=("id",)),
    summary="Let a trigger fire.",
    help="What came while it was disabled is not made up for; see `trigger backfill`.",
    examples=(Example("Go on", {"id": "nightly"}),),
)  # fmt: skip
async def enable(request: IdRequest, node: NodeControl, caller: Caller) -> replies.TriggerRow:
    """Switch it on."""
    return await node.triggers(caller.project).switch(request.id, caller, enabled=True)


@op(
    "trigger.disable", IdRequest, replies.TriggerRow, effect="write",
    cli=CliForm(("trigger", "disable"), positional=("id",)),
    summary="Keep a trigger from firing.",
    help="Its runs go on.",
    examples=(Example("Not now", {"id": "nightly"}),),
)  # fmt: skip
async def disable(request: IdRequest, node: NodeControl, caller: Caller) -> replies.TriggerRow:
    """Switch it off."""
    return await node.triggers(caller.project).switch(request.id, caller, enabled=False)


class TrialRequest(Fields):
    """Which trigger, or what is meant to be one."""

    count: int = Field(default=5, ge=1, le=1000, description="so many times")
    body: Any = Field(default=None, description="what might come: is it meant, and what would a run be given?")


@op(
    "trigger.test", TrialRequest, replies.Trial, effect="read",
    cli=CliForm(("trigger", "test"), positional=("id",), short={"count": "n"}),
    summary="Say when a trigger fires next, and what its run would be given.",
    help="Of one that is kept (an id), or of a definition (`@nightly.yaml`, `-`), or of one in words. Nothing is kept or started.",
    examples=(
        Example("When?", {"id": "nightly"}),
        Example("When would that be?", {"cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "count": 3}),
    ),
)  # fmt: skip
async def trial(request: TrialRequest, node: NodeControl, caller: Caller) -> replies.Trial:
    """Work it out."""
    given = request.given()
    name = str(given.pop("id", ""))
    return await node.triggers(caller.project).trial(name, request.definition, given, request.count, request.body)


class FireRequest(IdRequest):
    """Which trigger, with what."""

    body: Any = Field(default=None, description="any JSON value, as if it had come")
    key: Key = Field(default="", description="idempotency key: fired twice with it, it is one run")


@op(
    "trigger.fire", FireRequest, replies.FiredRun, effect="write",
    cli=CliForm(("trigger", "fire"), positional=("id", "body"), answer="run", short={"key": "k"}),
    summary="Fire a trigger now.",
    help="Also a disabled one, and whatever run is in the way.",
    examples=(Example("Now", {"id": "nightly"}),),
)  # fmt: skip
async def fire(request: FireRequest, node: NodeControl, caller: Caller) -> replies.FiredRun:
    """Fire it."""
    return await node.triggers(caller.project).fire(request.id, request.body, request.key)


class HistoryRequest(IdRequest):
    """Which trigger, and how much."""

    limit: int = Field(default=50, ge=1, le=1000, description="at most so many")


@op(
    "trigger.history", HistoryRequest, replies.Firings, effect="read",
    cli=CliForm(("trigger", "history"), positional=("id",), rows="firings", columns=("at", "what", "due_at", "run", "node", "why")),
    summary="Show when a trigger fired, and what came of it.",
    help="The last thousand of the last month; also of one that is gone.",
    examples=(Example("Did it fire?", {"id": "nightly"}),),
)  # fmt: skip
async def history(request: HistoryRequest, node: NodeControl, caller: Caller) -> replies.Firings:
    """Return them."""
    return await node.triggers(caller.project).history(request.id, request.limit)


class BackfillRequest(IdRequest):
    """Which trigger, and which times."""

    since: Moment = Field(description="after this time: RFC 3339, or so long ago (2d)")
    until: Moment = Field(default="", description="up to this time; left out: now")
    cap: int = Field(default=100, ge=1, le=1000, description="the last so many of them")
    dry_run: bool = Field(default=False, description="say which, start nothing")


@op(
    "trigger.backfill", BackfillRequest, replies.Backfilled, effect="write",
    cli=CliForm(("trigger", "backfill"), positional=("id", "since"), rows="runs", columns=("due_at", "run", "new", "why")),
    summary="Start the runs of times that are over.",
    help="A time that had its run keeps that one run. Of cron triggers alone.",
    examples=(Example("Which runs are missing of the last two days?", {"id": "nightly", "since": "2d", "dry_run": True}),),
)  # fmt: skip
async def backfill(request: BackfillRequest, node: NodeControl, caller: Caller) -> replies.Backfilled:
    """Start them."""
    desk = node.triggers(caller.project)
    return await desk.backfill(request.id, request.since, request.until, request.cap, dry_run=request.dry_run)


@op(
    "trigger.remove", IdRequest, replies.Gone, effect="write",
    cli=CliForm(("trigger", "remove"), positional=("id",)),
    summary="Forget a trigger.",
    help="Its runs go on, its history is kept.",
    examples=(Example("It is not needed any more", {"id": "nightly"}),),
)  # fmt: skip
async def remove(request: IdRequest, node: NodeControl, caller: Caller) -> replies.Gone:
    """Forget it."""
    return replies.Gone(id=request.id, removed=await node.triggers(caller.project).remove(request.id, caller))

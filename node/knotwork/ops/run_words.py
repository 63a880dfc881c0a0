"""Which runs are meant? By id, or by a filter that all requests about many runs share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from knotwork.ops import task_words
from knotwork.ops.flow_ports import RunFilter
from knotwork.ops.op import Request
from knotwork.ops.task_words import Cursor, Labels, Moment
from knotwork.ops.words import NAMED, Text, Token
from knotwork.sdk.errors import Invalid

ID = "w0198c0ffee0012345678ab"
_RUN_ID = r"^w[a-z0-9]{7,39}$"
NAMED[_RUN_ID] = ("not the id of a run", "Ids of runs begin with w: `knotwork run list` shows them.")
RunId = Annotated[str, StringConstraints(pattern=_RUN_ID, max_length=40)]
OneOfMany = Annotated[str, StringConstraints(min_length=1, max_length=64)]
"""An id beside others: what is none has an answer of its own, so it is not refused with the whole request."""
State = Literal["scheduled", "running", "paused", "stopping", "completed", "failed", "cancelled", "timed-out"]
BATCH_MAX = 10_000
FILTERS = {"labels": "l", "state": "s", "limit": "n"}
"""How a filter of runs is written in short, whatever is to be done with them."""


class RunRequest(Request):
    """Which run."""

    id: RunId = Field(description="id of a run")


class FilterRequest(Request):
    """Which runs; all that is given must fit."""

    workflow: Token | None = Field(default=None, description="of this workflow alone")
    state: list[State] = Field(default=[], max_length=8, description="in one of these states")
    labels: Labels = Field(default=[], description="with all of these labels, key=value")
    since: Moment = Field(
        default="", description="started, or to start, after that: so long ago (`2h`), or an RFC 3339 time"
    )
    until: Moment = Field(default="", description="started before that")
    text: Text = Field(
        default="", description="with this text in id, workflow, labels, starter, code or message of its error"
    )
    cursor: Cursor = Field(default="", description="go on behind the answer before: its `next`")

    @field_validator("since", "until")
    @classmethod
    def _makes_sense(cls, value: str) -> str:
        return task_words.bound(value)

    @field_validator("cursor")
    @classmethod
    def _ours(cls, value: str) -> str:
        read_cursor(value)
        return value

    def wanted(self) -> RunFilter:
        """Return what is meant."""
        return RunFilter(
            workflow=self.workflow or "", states=frozenset(self.state),
            labels=frozenset(task_words.labels(self.labels).items()),
            since_ns=task_words.moment_ns(self.since, past=True), until_ns=task_words.moment_ns(self.until, past=True),
            text=self.text, below=read_cursor(self.cursor),
        )  # fmt: skip


class BatchRequest(FilterRequest):
    """Which runs, by id or by a filter, and how many of them."""

    ids: Annotated[list[OneOfMany], Field(max_length=BATCH_MAX)] = Field(default=[], description="ids of runs")
    all: bool = Field(default=False, description="every run that can be, when no filter is given")
    dry_run: bool = Field(default=False, description="only say which, and how many")
    limit: int = Field(default=1000, ge=1, le=BATCH_MAX, description="at most so many; `next` goes on")
    timeout_s: float = Field(default=300.0, ge=1, le=86400, description="seconds after which it says how to go on")

    @model_validator(mode="after")
    def _either(self) -> Self:
        task_words.either_ids_or_filter(self, (name for name in FilterRequest.model_fields if name != "cursor"))
        return self

    def must_mean_some(self) -> None:
        """Raise `Invalid` (`flow.filter_needed`) when this would mean everything there is, and does not say so."""
        if not (self.ids or self.all or self.wanted().narrows):
            raise Invalid(
                "Neither runs nor a filter is given.", code="flow.filter_needed",
                hint="Name ids, give a filter such as a workflow or a label, or say all.",
            )  # fmt: skip


def write_cursor(started_ns: int, run: str) -> str:
    """Return the cursor behind a run in a list, the newest first."""
    return f"{started_ns:x}.{run}"


def read_cursor(cursor: str) -> tuple[int, str] | None:
    """Return what a cursor names, None for none; raises `ValueError`."""
    if not cursor:
        return None
    started, _, run = cursor.partition(".")
    try:
        found = int(started, 16)
    except ValueError:
        found = -1
    if not 0 <= found <= task_words.LAST_NS or not run.isalnum():
        raise ValueError("no cursor of ours: give `next` of the answer before")
    return found, run

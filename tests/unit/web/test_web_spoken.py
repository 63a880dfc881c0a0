"""What a program is told to call next: the route of the command that a message names."""

from __future__ import annotations

import json

from knotwork.sdk.errors import Denied, Invalid, NotFound
from knotwork.web import problem, spoken

ERROR = NotFound(
    "There is no run w1.", code="flow.no_run", hint="See `knotwork run list`; `knotwork up` starts a node."
)


def test_a_hint_names_routes():
    told = spoken.for_programs(ERROR)
    assert isinstance(told, NotFound)
    assert (told.code, told.message) == ("flow.no_run", ERROR.message)
    assert told.hint == "See `GET /api/run/list`; `knotwork up` starts a node."
    plain = Denied("No.", hint="Ask somebody else.")
    assert spoken.for_programs(plain) is plain


def test_a_shell_is_told_commands_and_a_program_routes():
    frame = json.dumps(ERROR.to_wire()).encode()
    assert "`knotwork run list`" in json.loads(problem.from_frame(frame).body)["hint"]
    assert "`GET /api/run/list`" in json.loads(problem.from_frame(frame, shell=False).body)["hint"]


def test_each_problem_of_a_request_names_routes_too():
    problem = {"field": "id", "message": "not the id of a task", "hint": "see `knotwork task list`."}
    told = spoken.for_programs(Invalid("bad", code="ops.bad_request", detail={"problems": [problem], "other": 1}))
    assert told.detail == {"problems": [{**problem, "hint": "see `GET /api/task/list`."}], "other": 1}

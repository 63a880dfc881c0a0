"""The catalogue: complete, small, and told the same to everybody who lists it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from knotwork.bus import subjects
from knotwork.mcp import (
    calling,
    catalog,
    crew_tools,
    crew_values,
    index,
    instructions,
    memory_values,
    message_values,
    prompts,
    queue_tools,
    resources,
    rows,
    toolsets,
    wording,
    work_tools,
)
from knotwork.mcp.tool import PageInput, arguments_of
from knotwork.mcp.work_values import queue_rows, told_short, words_of
from knotwork.ops.table import TABLE
from knotwork.sdk.errors import Invalid, NotFound

WARP = [
    "set_handle",
    "get_my_handle",
    "list_channels",
    "send_message",
    "read_messages",
    "register_agent",
    "discover_agents",
    "get_agent_info",
    "update_presence",
    "deregister_agent",
    "send_direct_message",
    "read_direct_messages",
    "broadcast_work_offer",
    "claim_work",
    "list_dead_letter_items",
    "retry_dead_letter_item",
    "discard_dead_letter_item",
]
SHUTTLE = [
    "assess_task",
    "spawn_subagents",
    "checkpoint_progress",
    "list_orchestrations",
    "get_results",
    "synthesize_results",
    "get_orchestration_state",
]
PATTERN = [
    "remember",
    "remember_task",
    "remember_learning",
    "commit_insight",
    "core_memory",
    "forget",
    "recall_context",
    "share_learning",
    "cleanup",
    "pattern_health",
]
LATTICE = ["assign_work", "await_work", "check_work", "list_agents"]
LATER = [
    "list_work",
    "work_queue_status",
    "channels_status",
    "export_memories",
    "import_memories",
    "remember_bulk",
    "forget_bulk",
]
ADDED = [
    "complete_work",
    "fail_work",
    "extend_work",
    "report_progress",
    "cancel_work",
    "wait_for_message",
    "start_workflow",
    "get_run",
    "signal_run",
    "approve",
    "search_messages",
]
DOCUMENTED = {
    "set_handle": "handle", "send_message": "channel message scope", "read_messages": "channel limit cursor",
    "register_agent": "agentType capabilities scope visibility",
    "discover_agents": "limit cursor agentType capability hostname projectId status scope includeOffline",
    "get_agent_info": "guid", "update_presence": "status currentTaskCount capabilities",
    "send_direct_message": "recipientGuid message messageType metadata expires scope blob",
    "read_direct_messages": "limit cursor messageType senderGuid",
    "broadcast_work_offer": "taskId description requiredCapability priority deadline contextData scope",
    "claim_work": "capability timeout", "list_dead_letter_items": "limit cursor capability",
    "retry_dead_letter_item": "itemId resetAttempts", "discard_dead_letter_item": "itemId",
    "channels_status": "channel",
    "list_work": "capability minPriority maxPriority deadlineBefore deadlineAfter limit", "work_queue_status": "capability",
    "remember": "content scope category metadata", "remember_task": "content metadata",
    "remember_learning": "content metadata", "commit_insight": "memoryId newContent targetScope",
    "core_memory": "content metadata", "forget": "memoryId force",
    "recall_context": "scope scopes categories limit since tags minPriority maxPriority createdAfter createdBefore "
    "updatedAfter updatedBefore search",
    "share_learning": "memoryId category keepPrivate keepOriginal", "cleanup": "expireOnly",
    "export_memories": "outputPath scope category since includeExpired",
    "import_memories": "inputPath overwriteExisting skipInvalid", "remember_bulk": "memories stopOnError validate",
    "forget_bulk": "memoryIds stopOnError force", "assess_task": "task", "spawn_subagents": "orchestrationId plan depth children timeSecs tokens cost",
    "checkpoint_progress": "orchestrationId phase", "synthesize_results": "orchestrationId",
    "assign_work": "task agent_name agent_id target_station context timeout_secs",
    "await_work": "work_id timeout_secs", "check_work": "work_id", "list_agents": "filter include_local",
}  # fmt: skip


def tokens(text: str) -> int:
    """Return about how many tokens a text has: four characters each."""
    return -(-len(text) // 4)


def test_the_data_is_that_of_the_tools():
    written = Path(rows.__file__).read_text(encoding="utf-8")
    assert written == index.text(), "run: python -m knotwork.mcp.index > node/knotwork/mcp/rows.py"


def test_every_tool_that_is_promised_is_there():
    assert list(toolsets.TOOLSETS["classic"]) == WARP + SHUTTLE + PATTERN
    assert len(toolsets.TOOLSETS["classic"]) == 34
    assert set(LATTICE + LATER + ADDED) <= set(catalog.TOOLS)
    assert set(toolsets.TOOLSETS) | {"all"} == set(toolsets.ABOUT)
    assert {name for names in toolsets.TOOLSETS.values() for name in names} == set(catalog.TOOLS)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_tool_takes_what_its_document_says(name: str):
    assert set(DOCUMENTED[name].split()) <= set(arguments_of(catalog.TOOLS[name].input))


def test_what_a_session_begins_with_is_small():
    core = [json.loads(rows.ROWS[name]) for name in toolsets.TOOLSETS["core"]]
    assert len(core) <= 12
    assert tokens(json.dumps(core)) <= 3000  # with the blanks that many a client writes
    assert tokens(instructions.TEXT) <= 600


def test_what_another_product_named_costs_no_more_than_needed():
    listed = [json.loads(rows.ROWS[name]) for name in toolsets.TOOLSETS["classic"]]
    assert tokens(json.dumps(listed)) <= 7700
    for one in listed:
        assert set(one["outputSchema"]["properties"]) == set(one["outputSchema"].get("required", ()))


@pytest.mark.parametrize("name", list(catalog.TOOLS))
def test_a_tool_says_all_about_itself(name: str):
    listed = json.loads(rows.ROWS[name])
    assert set(listed) == {"name", "title", "description", "inputSchema", "outputSchema", "annotations"}
    assert len(listed["annotations"]) == 4
    assert listed["description"].endswith((".", ")"))
    hidden = set(arguments_of(catalog.TOOLS[name].input)) - set(listed["inputSchema"]["properties"])
    assert listed["inputSchema"].get("additionalProperties", True) is bool(hidden)  # whoever checks lets those through
    assert listed["outputSchema"]["type"] == "object"
    for schema in (listed["inputSchema"], listed["outputSchema"]):
        jsonschema.Draft202012Validator.check_schema(schema)
    assert not (listed["annotations"]["readOnlyHint"] and listed["annotations"]["destructiveHint"])


def test_other_names_lead_to_the_same_tools():
    assert catalog.find("warp_work_claim").name == "claim_work"
    assert catalog.find("remember-task").name == "remember_task"
    with pytest.raises(NotFound, match="Did you mean claim_work"):
        catalog.find("claim_wrok")
    assert set(catalog.ALIASES.values()) <= set(catalog.TOOLS)


def test_resources_show_ops_that_there_are():
    assert {one.op for one in resources.RESOURCES if one.op} <= set(TABLE)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("check_work", {}, ["work_id: it is needed", "id of work"]),
        (
            "check_work",
            {"work_id": "T 1", "x": 1},
            ["work_id:", "x: there is no such argument", "check_work takes: work_id (needed)"],
        ),
        ("check_work", [], ["must be an object"]),
        (
            "assess_task",
            {"task": "x" * 140_000, "maxParts": 0},
            ["task: String should have at most 131072", "maxParts:"],
        ),
        ("read_messages", {"chanel": "a", "limit": 5000}, ["did you mean channel?", "limit", "1000"]),
        ("get_my_handle", {"a": 1}, ["takes no arguments"]),
        (
            "recall_context",
            {"tags": "a", "categories": "core"},
            ["tags: it must be a list", "categories: it must be a li"],
        ),
        ("remember", {"content": "x", "metadata": '{"tags": []}'}, ["metadata: it must be an object\n"]),
        ("assign_work", {"task": ["x"], "context": "y"}, ["task: it must be a text", "context: it must be an object"]),
        ("send_direct_message", {"message": "x"}, ["give either recipientGuid or capability"]),
        ("list_work", {"capability": "a", "minPriority": 7, "maxPriority": 3}, ["minPriority is above maxPriority"]),
        ("remember", {"content": "x", "metadata": {"prio": 1}}, ["metadata.prio: there is no such field (tags, prio"]),
        ("get_blob", {"digest": "sha1-7"}, ["not a digest. Give what put_blob (toolset talk) answered"]),
        (
            "broadcast_work_offer",
            {"taskId": "t", "description": "d", "requiredCapability": "c", "scope": "all"},
            ["scope:", "'private', 'personal', 'team' or 'public'"],
        ),
    ],
)
def test_everything_that_is_wrong_is_told(name: str, given: Any, said: list[str]):
    with pytest.raises(Invalid) as refused:
        calling.check(catalog.TOOLS[name], given)
    text = calling.refused(refused.value).text
    assert [word for word in said if word not in text] == []


def test_what_is_null_was_left_out_and_both_spellings_are_known():
    found = calling.check(
        catalog.TOOLS["discover_agents"], {"agentType": None, "include_offline": True, "capability": "Code Review"}
    )
    assert (found.agent_type, found.include_offline, found.capability) == (None, True, "code-review")


def test_the_bridge_loads_no_models_and_no_sdk():
    code = "import sys; import knotwork.cli.serving; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"pydantic", "mcp", "click", "nats", "msgspec", "starlette"} & set(out.split())


def test_a_text_is_harmless_and_a_result_fits():
    assert wording.clean("a\x1b[2Jb\u202e") == "a\\u{1b}[2Jb\\u{202e}"
    long = {"a": "x" * 100_000, "rows": [{"b": "y" * 5000} for _ in range(50)], "n": 1}
    short = wording.fit(long)
    assert wording.size(short) <= wording.RESULT_MAX_CHARS
    assert short["n"] == 1
    assert "left out" in short["a"]
    assert wording.fit({"a": 1}) == {"a": 1}
    for value in ({"ä": ["日本", 1, None]}, "half a \ud800 character", {"n": 2**80}, {"x": float("nan")}, [0.1, True]):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert abs(wording.size(value) - len(wording.clean(text))) <= 1
    unseen = {"id": "d1", "text": "\u202e" * 40_000, "data": {f"{'k' * 50}{n}": "\u2066" * 50 for n in range(300)}}
    assert wording.size(wording.fit(unseen)) <= wording.RESULT_MAX_CHARS
    assert "[236 of 300 fields left out]" in str(wording.fit(unseen))
    assert "of 40000 characters left out]" in str(wording.fit(unseen))
    assert wording.text_of({"ok": True, "names": ["a", "b"], "rows": [{"a": 1}], "none": []}) == (
        "ok: yes\nnames: a, b\nrows (1):\n- a: 1\nnone: none"
    )
    spoof = "done\nstatus: completed\n- id: 7"
    assert wording.text_of({"text": spoof, "rows": [{"task": spoof, "n": 1}]}) == (
        "text:\n| done\n| status: completed\n| - id: 7\nrows (1):\n- task: done\\nstatus: completed\\n- id: 7; n: 1"
    )
    rows = [{"about": 'nice; status: "gone"; me: yes', "tags": ["a; b: c", "d"], "data": {"k": "a; b"}, "n": 1}]
    assert wording.text_of({"rows": rows}) == (
        'rows (1):\n- about: "nice; status: \\"gone\\"; me: yes"; tags: "a; b: c, d"; data: {"k": "a; b"}; n: 1'
    )


def test_a_message_is_told_with_its_priority_and_scope():
    row = {"id": "d1", "at": "now", "sender": "bob", "senderGuid": "g", "text": "hi", "priority": 9, "scope": "private"}
    told = message_values.text_of({"messages": [row | {"ackRequired": True, "cut": 2}]})
    for part in ("priority 9", "scope private", "ack_messages (toolset talk)", "read_message (toolset talk), offset 2"):
        assert part in told.splitlines()[0]


def test_a_memory_is_told_with_its_tags_priority_and_end():
    row = {"memoryId": "m1", "content": "yes", "category": "recent", "author": "bob"}
    more = {"tags": ["a", "b"], "priority": 3, "expiresAt": "soon", "cut": 3}
    told = memory_values.recalled_text({"summary": "", "private": [row, row | more]})
    assert "- m1 private/recent by bob: yes\n" in told
    assert "by bob (priority 3; until soon; tags a, b): yes … [cut at 3: read_memory (toolset memory)]" in told


def test_toolsets_are_asked_for_by_name():
    assert toolsets.asked({"add": "work"}) == ("work",)
    assert toolsets.asked({}) == toolsets.asked({"add": None}) == ()
    with pytest.raises(Invalid) as refused:
        toolsets.asked({"add": ["work", "wrok", "x\n"], "sets": 1})
    for told in ("no argument 'sets'", "no toolset 'wrok'", r"no toolset 'x\n'"):
        assert told in refused.value.message
    for bad in ({"add": "nope"}, {"add": 7}, {"sets": []}, {"add": [["work"]]}):
        with pytest.raises(Invalid):
            toolsets.asked(bad)


@pytest.mark.parametrize("prompt", prompts.PROMPTS, ids=lambda one: one.name)
def test_a_prompt_says_in_which_set_a_tool_is(prompt: prompts.Prompt):
    for name in set(re.findall(r"\w+", prompt.text)) & set(catalog.TOOLS) - set(toolsets.TOOLSETS["core"]):
        assert any(f"set {one}" in prompt.text for one, held in toolsets.TOOLSETS.items() if name in held), name


@pytest.mark.parametrize(
    ("name", "found", "listed"),
    [
        ("claim_work", {"claimed": True}, ("complete_work", "fail_work")),
        ("claim_work", {"claimed": True, "cut": 9}, ("complete_work", "fail_work", "read_work")),
        ("claim_work", {"claimed": True, "input_blob": "sha256-"}, ("complete_work", "fail_work", "get_blob")),
        ("claim_work", {"claimed": False}, ()),
        ("broadcast_work_offer", {"work_id": "k"}, ("check_work",)),
        ("read_messages", {"messages": [{"text": "cut"}]}, ()),
        ("read_messages", {"messages": [{"cut": 9, "blob": "sha256-"}]}, ("read_message", "get_blob")),
        ("read_direct_messages", {"messages": [{"ackRequired": True}]}, ("ack_messages",)),
        ("recall_context", {"summary": "", "private": [{}, {"cut": 9}], "counts": {}}, ("read_memory",)),
        ("get_results", {"parts": [{"cut": 9}]}, ()),  # goes on by itself
        ("forget", {"deleted": True}, ("revert_memory",)),
        ("spawn_subagents", {"parts": []}, ("retry_part", "cancel_orchestration")),
    ],
)  # fmt: skip
def test_only_who_cannot_list_tools_itself_has_them_listed(name: str, found: Any, listed: tuple[str, ...]):
    every = tuple(catalog.TOOLS)
    assert toolsets.needed(name, found, toolsets.TOOLSETS["classic"]) == toolsets.names(listed, every) == listed
    assert toolsets.needed(name, found, toolsets.TOOLSETS["core"]) == ()
    assert toolsets.names(("classic", *listed, "forget"), every) == (*toolsets.TOOLSETS["classic"], *listed)


@pytest.mark.parametrize("handle", ["A B", "", "-", "a" * 300])
def test_a_bad_handle_is_said_to_be_none(handle: str):
    with pytest.raises(Invalid, match=r"handle: not a handle\. Handles are lower-case letters"):
        calling.check(catalog.TOOLS["set_handle"], {"handle": handle})


@pytest.mark.parametrize(
    ("tool", "given", "said"),
    [
        ("get_results", {"orchestrationId": "x y"}, "orchestrationId: not the id of an orchestration. Ids begin with o"),
        ("get_results", {"orchestrationId": "o12345678", "part": "A B"}, "part: not the name of a part. Names of parts"),
        ("get_results", {"orchestrationId": "o12345678", "offset": 3}, "offset goes with part"),
        ("assess_task", {"task": " \n", "parent": "x"}, "parent: not the id of an orchestration"),
        ("assess_task", {"task": " \n"}, "task: it is blank"),
        ("send_message", {"channel": "roadmap", "message": "\u200b\u2060\u3164"}, "message: it is blank"),
        ("remember_bulk", {"memories": [{"content": ""}, {"content": "x", "scope": "zz"}]}, r"memories.0.content: (.|\n)*scope"),
    ],
)  # fmt: skip
def test_what_is_wrong_says_what_is_wanted(tool: str, given: dict[str, Any], said: str):
    with pytest.raises(Invalid, match=said):
        calling.check(catalog.TOOLS[tool], given)


def _answer(outputs: list[Any], result: Any = None) -> dict[str, Any]:
    rows = [
        {"id": f"p{n}", "state": "completed", "title": "", "agent": "", "blob": "", "error": None, "output": one}
        for n, one in enumerate(outputs)
    ]
    told = {"output": result, "blob": "", "conflicts": [], "missing": []} if result is not None else None
    return {"parts": rows, "result": told}


@pytest.mark.parametrize("outputs", [["y" * 4000] * 30, ["\x00" * 9000] * 5, [{"a": ["é" * 50] * 500}] * 3, []])
def test_no_part_of_a_result_is_lost(outputs: list[Any]):
    found, seen, cursor = _answer(outputs, "r" * 50_000), list[str](), ""
    while True:
        page = crew_values.results(found, "", 0, cursor, whole=False)
        assert wording.size(page) <= wording.RESULT_MAX_CHARS
        assert page["total"] == len(outputs)
        seen += [one["id"] for one in page["parts"]]
        if "next" not in page:
            break
        cursor = page["next"]
    assert seen == [f"p{n}" for n in range(len(outputs))]
    for one, output in zip(found["parts"], outputs, strict=True):
        alone = {**found, "parts": [one]}
        assert _in_pieces(lambda at, alone=alone: crew_values.results(alone, "p", at, "", whole=False)["parts"][0]) in (
            output, words_of(output),
        )  # fmt: skip
    assert _in_pieces(lambda at: crew_values.results(found, "", at, "", whole=True), "result") == "r" * 50_000


def _in_pieces(read: Callable[[int], dict[str, Any]], key: str = "output") -> Any:
    piece = read(0)
    if "cut" not in piece:
        return piece[key]
    text = piece[key]
    while "cut" in piece:
        piece = read(piece["cut"])
        text += piece[key]
    return text


def test_half_a_character_is_told_by_the_argument_that_holds_it():
    assert wording.halved({"message": "a\ud800b", "metadata": {"x": ["\udfff"]}, "n": 1, "ok": "😀"}) == [
        "message",
        "metadata",
    ]
    assert wording.half_a_character(["message"]).message.startswith("message: half a character")
    error = wording.half_a_character(["\ud800"])
    assert calling.refused(error).text.encode()


def test_what_waits_is_told_in_short():
    offered = {"prompt": "type\n it", "task_id": "T-7", "context": {"x": 1}}
    assert told_short(offered) == {"taskId": "T-7", "description": "type it"}
    assert told_short({"branch": "main"}) == {"description": '{ "branch": "main" }'}
    assert told_short("x" * 10_000) == {"description": "x" * 300 + "…"}
    assert told_short(None) == {}


def test_queues_of_agents_are_told_apart_from_capabilities():
    routes = ("=d99", "work", "n1=d99", "n1=", "work", "==private-0af3=work", "==personal-99=other")
    queues = [
        {
            "route": route, "capability": subjects.capability_of(route),
            "scope": subjects.circle_of(route).partition("-")[0], "waiting": 1, "taken": 0,
        }
        for route in routes
    ]  # fmt: skip
    of_work = [
        {"capability": "work", "waiting": 2, "taken": 0},
        {"capability": "work", "scope": "private", "waiting": 1, "taken": 0},
    ]
    assert queue_rows(queues, None) == [
        {"capability": "other", "scope": "personal", "waiting": 1, "taken": 0}, *of_work,
        {"agent": "d99", "waiting": 1, "taken": 0}, {"node": "n1", "waiting": 1, "taken": 0},
        {"agent": "d99", "node": "n1", "waiting": 1, "taken": 0},
    ]  # fmt: skip
    assert queue_rows(queues, "work") == of_work


def orchestration(count: int) -> dict[str, Any]:
    blank = {"agent": "", "node": "", "text": "", "needs": [], "error": None, "percent": 0, "attempt": 1}
    parts = [blank | {"id": f"p{number}", "state": "queued", "title": "T" * 200} for number in range(count)]
    return {
        "id": "o12345678", "phase": "execution", "order": "", "held": "", "why": "", "error": None, "task": "t", "notes": [],
        "percent": 0, "used": {}, "budget": {}, "parts": parts,
    }  # fmt: skip


def test_a_big_orchestration_is_told_in_pages():
    found, cursor, seen = orchestration(200), "", []
    for _ in range(10):
        page = crew_tools.state(found, cursor)
        assert wording.size(page) <= wording.RESULT_MAX_CHARS
        seen += [one["id"] for one in page["parts"]]
        cursor = page.get("next", "")
        if not cursor:
            break
    assert seen == [one["id"] for one in found["parts"]]
    assert "next" not in crew_tools.state(orchestration(3))


async def test_a_page_of_what_one_holds_is_no_longer_than_an_answer_and_loses_nothing():
    held = [
        {
            "id": f"t{number:012}", "step": "", "claim": f"{number}." + "c" * 800, "input": "x" * 9000, "priority": 5,
            "attempt": 1, "lease_s": 60.0, "deadline": "", "by": "", "checkpoint": None, "input_blob": "",
        }
        for number in range(64)
    ]  # fmt: skip
    who, shown = SimpleNamespace(name="ann"), list[str]()

    async def ask(_op: str, *, limit: int, cursor: str, **_: Any) -> dict[str, Any]:
        begin = int(cursor or 0)
        more = begin + limit < len(held)
        return {"tasks": held[begin : begin + limit], "next": str(begin + limit) if more else ""}

    session = SimpleNamespace(who=who, ask=ask, holds=lambda *_: None)
    tool, cursor = catalog.TOOLS["list_claimed_work"], ""
    while True:
        given = calling.check(tool, {"limit": 64, "cursor": cursor})
        page = await calling._within(tool, given, session)
        assert wording.size(page) <= wording.RESULT_MAX_CHARS
        assert "left_out" not in page
        shown += [one["claim"] for one in page["work"]]
        if not (cursor := page.get("next", "")):
            break
    assert shown == [one["claim"] for one in held]


def test_what_is_put_together_and_not_kept_does_not_say_that_it_goes_on():
    found = {"phase": "complete", "why": "", "blob": "", "conflicts": [], "missing": [], "output": "x" * 50_000}
    assert crew_values.synthesized(found)["cut"] < 50_000
    shown = crew_values.synthesized(found | {"phase": "execution", "missing": ["b"]})
    assert "cut" not in shown
    assert (shown["length"], shown["missing"]) == (50_000, ["b"])
    assert "get_results has each part" in shown["why"]
    assert "why" not in crew_values.synthesized(found | {"phase": "execution", "output": "short"})


@pytest.mark.parametrize(("count", "long"), [(150, 150), (150, 1), (3, 3), (1, 1)])
async def test_all_steps_of_a_run_are_shown_however_much_each_gave(count: int, long: int):
    step = {"kind": "agent", "state": "completed", "error": None}
    steps = [step | {"id": f"step-{n}", "output": "R" * (30_000 if n < long else 10)} for n in range(count)]
    run = {"id": "w0000000", "workflow": "big", "state": "failed", "done": 0, "steps": count, "progress": steps}

    async def ask(_op: str, **_: Any) -> dict[str, Any]:
        return run | {"started_at": "", "ended_at": ""}

    tool = catalog.TOOLS["get_run"]
    given = calling.check(tool, {"run_id": "w0000000"})
    shown = await calling._within(tool, given, SimpleNamespace(who=SimpleNamespace(name="ann"), ask=ask))
    assert [one["id"] for one in shown["progress"]] == [one["id"] for one in steps]
    assert "left_out" not in shown
    assert wording.size(shown) <= wording.RESULT_MAX_CHARS
    assert shown["progress"][0]["output"].startswith("R" * 100) or long > 100
    assert shown["progress"][-1]["output"].startswith("R" * 10) or long == count


async def test_work_that_goes_on_while_one_looks_is_not_said_to_wait():
    states = iter(["pending", "completed"])

    async def ask(op: str, **_: Any) -> dict[str, Any]:
        why = {"state": "completed", "why": "It was completed."}
        return why if op == "task.why" else {"id": "k1234567", "state": next(states), "output": 3}

    tool = catalog.TOOLS["check_work"]
    given = calling.check(tool, {"work_id": "k1234567"})
    shown = await calling._within(tool, given, SimpleNamespace(who=SimpleNamespace(name="ann"), ask=ask))
    assert (shown["status"], shown["result"], shown.get("why")) == ("completed", 3, None)


async def test_a_list_with_nothing_that_fits_is_gone_through_in_parts():
    asked: list[str] = []

    class Pages:
        async def ask(self, _op: str, **fields: Any) -> dict[str, Any]:
            asked.append(fields["cursor"])
            return {"tasks": [{"deadline": "2030-01-01T00:00:00Z"}], "next": str(len(asked))}

    given = queue_tools.ListInput(capability="a", deadline_before="2029-01-01T00:00:00Z")
    found = await queue_tools.list_work(given, Pages())  # type: ignore[arg-type]  # all that it asks for
    assert found == {"work": [], "next": str(queue_tools.PAGES_MAX)}
    assert asked == ["", *(str(number) for number in range(1, queue_tools.PAGES_MAX))]


async def test_all_of_a_long_step_can_be_read_by_who_claims_it():
    task = {
        "id": "w1", "claim": "k", "step": "p2", "input": {"prompt": "x" * 50_000}, "priority": 5, "attempt": 1, "lease_s": 60,
    }  # fmt: skip
    blobs: list[bytes] = []

    class Claims:
        who = SimpleNamespace(name="ann")

        async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
            if op == "blob.put":
                blobs.append(base64.b64decode(fields["data"]))
                return {"upload": ""}
            return {"tasks": [task]}

        def holds(self, *_: str) -> None: ...

    given = work_tools.ClaimInput(capability="a")
    found = await work_tools.claim_work(given, Claims())  # type: ignore[arg-type]  # all that it asks for
    assert "cut" not in found, "read_work reads what the whole run was given"
    assert json.loads(b"".join(blobs)) == task["input"]
    assert found["input_blob"] == f"sha256-{hashlib.sha256(b''.join(blobs)).hexdigest()}"
    task["step"] = ""
    assert (await work_tools.claim_work(given, Claims()))["cut"]  # type: ignore[arg-type]


def test_lists_that_were_cut_without_a_word_come_in_pages():
    for name in ("list_channels", "channels_status", "list_workflows", "work_queue_status"):
        assert {"limit", "cursor"} <= set(arguments_of(catalog.TOOLS[name].input))
        assert "next" in catalog.TOOLS[name].output["properties"]
    rows = [{"name": f"n{number:03}"} for number in range(7)]
    first = PageInput(limit=5).of("rows", rows, lambda one: str(one["name"]))
    rest = PageInput(limit=5, cursor=first["next"]).of("rows", rows, lambda one: str(one["name"]))
    assert (first["rows"] + rest["rows"], "next" in rest) == (rows, False)
    lost = calling._left_out({"a": [1, 2, 3], "b": [1], "c": "x"}, {"a": [1], "b": [1], "c": "x"})
    assert lost == {"a": 2}

"""A stand-in for `codex exec --json … [resume SESSION] -`."""

import argparse
import json
import sys
from pathlib import Path

import stage


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("exec", choices=["exec"])
    parser.add_argument("--json", action="store_true", required=True)
    parser.add_argument("--color", choices=["never"])
    for flag in ("--skip-git-repo-check", "--ephemeral"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--model", "--sandbox", "--output-schema"):
        parser.add_argument(flag)
    parser.add_argument("-c", action="append", default=[])
    parser.add_argument("rest", nargs="+")
    given = parser.parse_args()
    assert given.rest[-1] == "-"
    assert given.rest[:-1] == [] or given.rest[0] == "resume"
    prompt = sys.stdin.read()
    stage.record(prompt)
    stage.emit({"type": "thread.started", "thread_id": given.rest[1] if len(given.rest) == 3 else "0199a213-81c0-7800"})
    stage.emit({"type": "turn.started"})
    stage.odd(prompt)
    if "RATE" in prompt:
        message = "Rate limit reached for gpt-x. Please try again in 1.5s."
        stage.emit({"type": "error", "message": "Reconnecting... 1/5"})
        stage.emit({"type": "turn.failed", "error": {"message": message}})
        sys.exit(1)
    if "LOGIN" in prompt:
        stage.emit({"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized"}})
        sys.exit(1)
    if "RECONNECT" in prompt:
        stage.emit({"type": "error", "message": "stream disconnected before completion, retrying 1/5"})
    item = {
        "id": "item_1",
        "type": "command_execution",
        "command": "ls",
        "aggregated_output": "",
        "status": "in_progress",
    }
    stage.emit({"type": "item.started", "item": item})
    stage.emit({"type": "item.completed", "item": {**item, "status": "completed", "exit_code": 0}})
    stage.emit({"type": "item.completed", "item": {"id": "item_2", "type": "reasoning", "text": "**Thinking**"}})
    changes = [{"path": "a.py", "kind": "update"}]
    stage.emit(
        {
            "type": "item.completed",
            "item": {"id": "item_3", "type": "file_change", "changes": changes, "status": "completed"},
        }
    )
    stage.emit(
        {
            "type": "item.updated",
            "item": {"id": "item_4", "type": "todo_list", "items": [{"text": "a", "completed": True}]},
        }
    )
    if "TRUNCATED" in prompt:
        return
    text = f"You said: {prompt}"[:2000]
    if given.output_schema:
        assert json.loads(Path(given.output_schema).read_text(encoding="utf-8"))
        text = '{"ok": true}'
    stage.emit({"type": "item.completed", "item": {"id": "item_5", "type": "agent_message", "text": text}})
    stage.emit(
        {"type": "turn.completed", "usage": {"input_tokens": 24763, "cached_input_tokens": 24448, "output_tokens": 122}}
    )


main()

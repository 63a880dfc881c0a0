"""A stand-in for `claude -p --output-format stream-json --verbose`."""

import argparse
import json
import sys

import stage

SESSION = "3f2a9c40-7b18-4c6d-9e51-8a2b1d4f0c73"
SWITCHES = ("--verbose", "--include-partial-messages", "--strict-mcp-config")
VALUED = (
    "--model", "--permission-mode", "--append-system-prompt", "--allowedTools", "--disallowedTools", "--max-turns",
    "--max-budget-usd", "--resume", "--json-schema", "--mcp-config", "--add-dir",
)  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-p", "--print", action="store_true", required=True)
    parser.add_argument("--output-format", choices=["stream-json"], required=True)
    for flag in SWITCHES:
        parser.add_argument(flag, action="store_true")
    for flag in VALUED:
        parser.add_argument(flag)
    given = parser.parse_args()
    if not given.verbose:
        sys.exit("Error: When using --print, --output-format=stream-json requires --verbose")
    return given


class Session:
    def __init__(self, given):
        self.given = given
        self.session = given.resume or SESSION

    def emit(self, kind, **fields):
        stage.emit({"type": kind, **fields, "session_id": self.session, "uuid": "u"})

    def assistant(self, *blocks, parent=None, **fields):
        message = {"role": "assistant", "content": list(blocks)}
        self.emit("assistant", message=message, parent_tool_use_id=parent, **fields)

    def delta(self, text):
        if self.given.include_partial_messages:
            event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            self.emit("stream_event", event=event, parent_tool_use_id=None)

    def result(self, **fields):
        usage = {"input_tokens": 12, "output_tokens": 7, "service_tier": "standard"}
        self.emit("result", duration_ms=5, duration_api_ms=4, num_turns=2, total_cost_usd=0.0125, usage=usage, **fields)

    def refuse(self, prompt):
        if "RATE" in prompt:
            self.emit("system", subtype="api_retry", attempt=1, max_retries=1, error_status=429, error="rate_limit")
            self.emit("rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": 1_700_000_090})
            self.result(subtype="success", is_error=True, api_error_status=429, result="You've hit your session limit")
        elif "LOGIN" in prompt:
            message = "Not logged in · Please run /login"
            self.assistant({"type": "text", "text": message}, error="authentication_failed")
            self.result(subtype="success", is_error=True, result=message)
        elif "TURNS" in prompt:
            errors = ["Reached maximum number of turns (1)"]
            self.result(subtype="error_max_turns", is_error=True, errors=errors)
        else:
            return
        sys.exit(1)

    def work(self):
        for text in ("Let me ", "look. "):
            self.delta(text)
        self.assistant({"type": "text", "text": "Let me look. "})
        self.assistant({"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls  -l\n"}})
        self.emit("user", message={"content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a"}]})
        self.assistant({"type": "text", "text": "inner"}, parent="t1")

    def answer(self, prompt):
        answer = f"You said: {prompt}"[:2000]
        self.delta(answer)
        self.assistant({"type": "text", "text": answer})
        schema = self.given.json_schema
        structured = {"structured_output": {"ok": True}} if schema and json.loads(schema) else {}
        self.result(subtype="success", is_error=False, result=answer, **structured)


def main():
    session = Session(arguments())
    prompt = sys.stdin.read()
    stage.record(prompt)
    session.emit("system", subtype="init", model=session.given.model or "claude-x", tools=["Bash"])
    stage.odd(prompt)
    session.refuse(prompt)
    session.work()
    if "TRUNCATED" in prompt:
        sys.stdout.write('{"type": "result", "subtype": "succ')
    else:
        session.answer(prompt)


main()

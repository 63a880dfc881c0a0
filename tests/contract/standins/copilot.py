"""A stand-in for `copilot -p PROMPT --output-format json`."""

import argparse
import sys

import stage


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-p", "--prompt")
    parser.add_argument("--output-format", choices=["text", "json"], required=True)
    parser.add_argument("--stream", choices=["on", "off"])
    for flag in ("--no-color", "--no-ask-user", "--no-auto-update", "--allow-all-tools"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--model", "--agent", "--resume"):
        parser.add_argument(flag)
    for flag in ("--allow-tool", "--deny-tool", "--add-dir"):
        parser.add_argument(flag, action="append")
    given = parser.parse_args()
    prompt = given.prompt if given.prompt is not None else sys.stdin.read()
    stage.record(prompt)
    at = {"id": "e", "timestamp": "2026-01-01T00:00:00.000Z", "parentId": None}
    stage.emit({"type": "session.tools_updated", "data": {"model": given.model or "gpt-x"}, **at})
    stage.emit({"type": "user.message", "data": {"content": prompt[:100]}, **at})
    stage.odd(prompt)
    result = {"type": "result", "timestamp": at["timestamp"], "sessionId": given.resume or "c-session-1", "exitCode": 0,
              "usage": {"premiumRequests": 1, "totalApiDurationMs": 5, "codeChanges": {"linesAdded": 1}}}  # fmt: skip
    if "RATE" in prompt:
        stage.emit(
            {
                "type": "session.error",
                "data": {"errorType": "rate_limit", "message": "Too fast", "statusCode": 429},
                **at,
            }
        )
        stage.emit({**result, "exitCode": 1})
        sys.exit(1)
    if "LOGIN" in prompt:
        sys.stderr.write("Error: No authentication information found.\n")
        sys.exit(1)
    if "CREDIT" in prompt:
        data = {
            "errorType": "quota",
            "errorCode": "quota_exceeded",
            "message": "No premium requests left",
            "statusCode": 402,
        }
        stage.emit({"type": "session.error", "data": data, **at})
        stage.emit({**result, "exitCode": 1})
        sys.exit(1)
    if "FLAT" in prompt:
        stage.emit({"type": "message", "role": "assistant", "content": "looking"})
        stage.emit({"type": "tool_use", "name": "view", "input": {"path": "a.txt"}})
        stage.emit({"type": "message", "role": "assistant", "content": f"You said: {prompt}"})
        stage.emit({"type": "usage", "input_tokens": 3, "output_tokens": 4})
        return
    stage.emit(
        {
            "type": "tool.execution_start",
            "data": {"toolCallId": "1", "toolName": "view", "arguments": {"path": "a.txt"}},
            **at,
        }
    )
    stage.emit(
        {"type": "assistant.message", "data": {"messageId": "s", "content": "inner", "parentToolCallId": "1"}, **at}
    )
    stage.emit(
        {
            "type": "tool.execution_complete",
            "data": {"toolCallId": "1", "success": True, "result": {"content": "x"}},
            **at,
        }
    )
    answer = f"You said: {prompt}"[:2000]
    for text in (answer[:5], answer[5:]):
        stage.emit({"type": "assistant.message_delta", "data": {"messageId": "m", "deltaContent": text}, **at})
    if "TRUNCATED" in prompt:
        stage.emit({"type": "session.error", "data": {"message": "stream disconnected"}, **at})
        sys.exit(1)
    stage.emit({"type": "assistant.message", "data": {"messageId": "m", "content": answer, "toolRequests": []}, **at})
    stage.emit(result)


main()

"""A stand-in for `gemini --output-format stream-json`, the prompt with `--prompt` or on stdin."""

import argparse
import sys

import stage


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-p", "--prompt")
    parser.add_argument("-o", "--output-format", choices=["stream-json"], required=True)
    parser.add_argument("--approval-mode", choices=["default", "auto_edit", "yolo", "plan"])
    parser.add_argument("--sandbox", action="store_true")
    for flag in ("--model", "--resume", "--include-directories"):
        parser.add_argument(flag)
    given = parser.parse_args()
    prompt = given.prompt if given.prompt is not None else sys.stdin.read()
    stage.record(prompt)
    at = {"timestamp": "2026-01-01T00:00:00.000Z"}
    stage.emit({"type": "init", **at, "session_id": given.resume or "g-session-1", "model": given.model or "auto"})
    stage.emit({"type": "message", **at, "role": "user", "content": prompt[:100]})
    stage.odd(prompt)
    if "RATE" in prompt:
        message = "You exceeded your current quota, please check your plan and billing details. Please retry in 23.5s."
        error = {"type": "RESOURCE_EXHAUSTED", "message": message}
        stage.emit({"type": "result", **at, "status": "error", "error": error})
        sys.exit(1)
    if "LOGIN" in prompt:
        sys.stderr.write("Please set an Auth method in settings.json or specify GEMINI_API_KEY (no auth)\n")
        sys.exit(41)
    stage.emit({"type": "message", **at, "role": "assistant", "content": "Let me look.", "delta": True})
    stage.emit(
        {"type": "tool_use", **at, "tool_name": "read_file", "tool_id": "1", "parameters": {"file_path": "a.txt"}}
    )
    stage.emit({"type": "tool_result", **at, "tool_id": "1", "status": "success", "output": "text"})
    stage.emit({"type": "error", **at, "severity": "warning", "message": "Loop detected, stopping execution"})
    for text in ("You said: ", prompt[:2000]):
        stage.emit({"type": "message", **at, "role": "assistant", "content": text, "delta": True})
    if "TRUNCATED" in prompt:
        return
    stats = {"total_tokens": 19, "input_tokens": 12, "output_tokens": 7, "cached": 0, "duration_ms": 5, "tool_calls": 1}
    stage.emit({"type": "result", **at, "status": "success", "stats": stats})


main()

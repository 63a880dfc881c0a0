"""How is the Gemini CLI spoken to? `gemini --output-format=stream-json`, the prompt on stdin or with `--prompt=`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from knotwork_plugins.executors.agent_cli.agent import (
    Ask,
    CliAgentConfig,
    CommandLine,
    Dialect,
    PromptAs,
    factory_of,
    fits_argument,
)
from knotwork_plugins.executors.agent_cli.heard import Heard, doing, numbers_in, text_in, value_in


class GeminiConfig(CliAgentConfig):
    """What the operator may write for an agent of type `gemini`."""

    command: tuple[str, ...] = Field(default=("gemini",), min_length=1, description="program and first arguments")
    prompt_as: PromptAs = Field(default="stdin", description="how the prompt is handed over: stdin or argument")
    approval_mode: Literal["", "default", "auto_edit", "yolo", "plan"] = Field(
        default="", description="which tools run without asking; empty: Gemini's default"
    )
    sandbox: bool = Field(default=False, description="run its tools in Gemini's sandbox")
    include_directories: tuple[str, ...] = Field(default=(), description="further folders it may work in")


class Gemini(Dialect[GeminiConfig]):
    """Events: init, message, tool_use, tool_result, error, result."""

    name = "gemini"
    summary = "Gemini CLI in non-interactive mode (the `gemini` command)."
    install = "Install the Gemini CLI (npm install -g @google/gemini-cli)"
    sign_in = "Sign in with `gemini`"
    key_variable = "GEMINI_API_KEY"

    def command_line(self, config: GeminiConfig, ask: Ask) -> CommandLine:
        """Return the flags, each bound to its value with `=`."""
        valued = {
            "--output-format": "stream-json",
            "--model": config.model,
            "--approval-mode": config.approval_mode,
            "--resume": ask.session,
        }
        arguments = [f"{flag}={value}" for flag, value in valued.items() if value]
        arguments += ["--sandbox"] if config.sandbox else []
        arguments += [f"--include-directories={folder}" for folder in config.include_directories]
        arguments += config.extra_args
        if config.prompt_as == "argument" and fits_argument(ask.prompt):
            return CommandLine((*arguments, f"--prompt={ask.prompt}"))
        return CommandLine(tuple(arguments), stdin=ask.prompt)

    def read(self, event: dict[str, Any], heard: Heard) -> None:
        """Take one event."""
        match text_in(event, "type"):
            case "init":
                heard.session = text_in(event, "session_id")
                heard.model = text_in(event, "model")
            case "message" if text_in(event, "role") == "assistant":
                heard.say(text_in(event, "content"))
            case "tool_use":
                heard.pause()
                heard.note(doing(text_in(event, "tool_name"), value_in(event, "parameters")))
            case "error":
                heard.note(text_in(event, "message"))
                if text_in(event, "severity") == "error":
                    heard.fail(text_in(event, "message"))
            case "result":
                heard.usage = numbers_in(event, "stats")
                if text_in(event, "status") == "error":
                    heard.fail(text_in(event, "error", "message"), kind=text_in(event, "error", "type"))
                else:
                    heard.ended = True
                    heard.trouble = None


FACTORY = factory_of(Gemini(), GeminiConfig)

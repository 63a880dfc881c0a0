"""How is the GitHub Copilot CLI spoken to? `copilot --prompt=… --output-format=json`, or the prompt on stdin."""

from __future__ import annotations

from typing import Any

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
from knotwork_plugins.executors.agent_cli.heard import Heard, doing, numbers_in, text_in, value_in, whole_in


class CopilotConfig(CliAgentConfig):
    """What the operator may write for an agent of type `copilot`."""

    command: tuple[str, ...] = Field(default=("copilot",), min_length=1, description="program and first arguments")
    prompt_as: PromptAs = Field(
        default="argument", description="how the prompt is handed over; as an argument other users may see it in `ps`"
    )
    allow_all_tools: bool = Field(default=False, description="run every tool without asking")
    allow_tools: tuple[str, ...] = Field(default=(), description='tools run without asking: "write", "shell(git:*)"')
    deny_tools: tuple[str, ...] = Field(default=(), description="tools never run; stronger than what is allowed")
    add_dirs: tuple[str, ...] = Field(default=(), description="further folders it may work in")
    agent: str = Field(default="", max_length=200, description="custom agent of Copilot's own to use")


class Copilot(Dialect[CopilotConfig]):
    """Events: assistant.message(_delta), tool.execution_start, session.error, result; their payload is in `data`.

    Some models make Copilot print a flat stream instead (`message`, `tool_use`), which has no final event.
    """

    name = "copilot"
    summary = "GitHub Copilot CLI in non-interactive mode (the `copilot` command)."
    install = "Install the Copilot CLI (npm install -g @github/copilot)"
    sign_in = "Sign in with `copilot login`"
    key_variable = "COPILOT_GITHUB_TOKEN"
    always_says_end = False

    def command_line(self, config: CopilotConfig, ask: Ask) -> CommandLine:
        """Return the flags, each bound to its value with `=`; it may never wait for a person."""
        arguments = ["--output-format=json", "--stream=on", "--no-color", "--no-ask-user", "--no-auto-update"]
        valued = {"--model": config.model, "--agent": config.agent, "--resume": ask.session}
        arguments += [f"{flag}={value}" for flag, value in valued.items() if value]
        arguments += ["--allow-all-tools"] if config.allow_all_tools else []
        arguments += [f"--allow-tool={tool}" for tool in config.allow_tools]
        arguments += [f"--deny-tool={tool}" for tool in config.deny_tools]
        arguments += [f"--add-dir={folder}" for folder in config.add_dirs]
        arguments += config.extra_args
        if config.prompt_as == "argument" and fits_argument(ask.prompt):
            return CommandLine((*arguments, f"--prompt={ask.prompt}"))
        return CommandLine(tuple(arguments), stdin=ask.prompt)

    def read(self, event: dict[str, Any], heard: Heard) -> None:
        """Take one event."""
        kind, data = text_in(event, "type"), event.get("data")
        if value_in(data, "parentToolCallId"):
            return  # a sub-agent of its own talking to it
        match kind:
            case "session.start" | "session.resume":
                heard.session = text_in(data, "sessionId") or heard.session
            case "session.tools_updated" | "session.model_change":
                heard.model = text_in(data, "model") or text_in(data, "newModel") or heard.model
            case "assistant.message_delta":
                heard.streaming = True
                heard.say(text_in(data, "deltaContent"))
            case "assistant.message" if text := text_in(data, "content"):
                if not heard.streaming:
                    heard.say(text)
                heard.settle(text)  # the last message is the answer
            case "tool.execution_start":
                heard.note(doing(text_in(data, "toolName"), value_in(data, "arguments")))
            case "session.error":
                kind = text_in(data, "errorCode") or text_in(data, "errorType")
                heard.fail(text_in(data, "message"), status=whole_in(data, "statusCode"), kind=kind)
            case "result":
                self._result(event, heard)
            case _:
                self._flat(kind, event, heard)

    @staticmethod
    def _result(event: dict[str, Any], heard: Heard) -> None:
        heard.session = text_in(event, "sessionId") or heard.session
        heard.usage = numbers_in(event, "usage") or heard.usage
        code = whole_in(event, "exitCode")
        if code in (0, None):
            heard.ended = True
        else:
            heard.fail(f"it ended with exit code {code}")

    @staticmethod
    def _flat(kind: str, event: dict[str, Any], heard: Heard) -> None:
        if kind == "message" and text_in(event, "role") in ("assistant", ""):
            heard.say(text_in(event, "content"))
        elif kind == "tool_use":
            heard.pause()
            heard.note(doing(text_in(event, "name"), value_in(event, "input")))
        elif kind == "usage":
            heard.usage = numbers_in(event)


FACTORY = factory_of(Copilot(), CopilotConfig)

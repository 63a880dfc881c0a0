"""How is Claude Code spoken to? `claude -p --output-format stream-json --verbose`, the prompt on stdin."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from knotwork_plugins.executors.agent_cli.agent import Ask, CliAgentConfig, CommandLine, Dialect, factory_of
from knotwork_plugins.executors.agent_cli.heard import (
    Heard,
    doing,
    items_in,
    number_in,
    numbers_in,
    plain,
    text_in,
    value_in,
    whole_in,
)


class ClaudeCodeConfig(CliAgentConfig):
    """What the operator may write for an agent of type `claude-code`."""

    command: tuple[str, ...] = Field(default=("claude",), min_length=1, description="program and first arguments")
    permission_mode: str = Field(
        default="", pattern=r"^[A-Za-z]{0,40}$", description="default, acceptEdits, plan, dontAsk, bypassPermissions, …"
    )
    allowed_tools: tuple[str, ...] = Field(default=(), description='tools used without asking: "Read", "Bash(git *)"')
    disallowed_tools: tuple[str, ...] = Field(default=(), description="tools never used")
    max_turns: int | None = Field(default=None, ge=1, description="turns before it gives up")
    max_cost_usd: float | None = Field(default=None, gt=0, description="dollars before it gives up")
    mcp_config: tuple[str, ...] = Field(default=(), description="MCP configuration files (or JSON texts) to load")
    strict_mcp_config: bool = Field(default=False, description="use no MCP servers but those of `mcp_config`")
    add_dirs: tuple[str, ...] = Field(default=(), description="further folders it may work in")
    partial: bool = Field(default=True, description="stream words as they come, not only whole messages")
    answer_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the answer; the answer then carries `structured`"
    )


class ClaudeCode(Dialect[ClaudeCodeConfig]):
    """Events: system/init, system/api_retry, stream_event, assistant, user, rate_limit_event, result."""

    name = "claude-code"
    summary = "Claude Code in non-interactive mode (the `claude` command)."
    install = "Install Claude Code (npm install -g @anthropic-ai/claude-code)"
    sign_in = "Sign in with `claude`"
    key_variable = "ANTHROPIC_API_KEY"
    takes_system_prompt = True

    def command_line(self, config: ClaudeCodeConfig, ask: Ask) -> CommandLine:
        """Return the flags; values that could begin with a dash are bound with `=`."""
        arguments = ["-p", "--output-format", "stream-json", "--verbose"]
        if config.partial:
            arguments.append("--include-partial-messages")
        valued = {
            "--model": config.model,
            "--permission-mode": config.permission_mode,
            "--append-system-prompt": config.system_prompt,
            "--allowedTools": ",".join(config.allowed_tools),
            "--disallowedTools": ",".join(config.disallowed_tools),
            "--max-turns": config.max_turns,
            "--max-budget-usd": config.max_cost_usd,
            "--resume": ask.session,
            "--json-schema": json.dumps(config.answer_schema) if config.answer_schema else "",
        }
        arguments += [f"{flag}={value}" for flag, value in valued.items() if value not in ("", None)]
        arguments += [f"--mcp-config={file}" for file in config.mcp_config]
        arguments += ["--strict-mcp-config"] if config.strict_mcp_config else []
        arguments += [f"--add-dir={folder}" for folder in config.add_dirs]
        return CommandLine((*arguments, *config.extra_args), stdin=ask.prompt)

    def read(self, event: dict[str, Any], heard: Heard) -> None:
        """Take one event."""
        heard.session = text_in(event, "session_id") or heard.session
        match text_in(event, "type"):
            case "system":
                self._system(event, heard)
            case "stream_event" if not event.get("parent_tool_use_id"):
                if text_in(event, "event", "delta", "type") == "text_delta":
                    heard.streaming = True
                    heard.say(text_in(event, "event", "delta", "text"))
            case "assistant" if not event.get("parent_tool_use_id"):
                self._assistant(event, heard)
            case "rate_limit_event":
                heard.resets_at_s = number_in(event, "rate_limit_info", "resetsAt")
            case "result":
                self._result(event, heard)

    @staticmethod
    def _system(event: dict[str, Any], heard: Heard) -> None:
        if text_in(event, "subtype") == "init":
            heard.model = text_in(event, "model")
        elif text_in(event, "subtype") == "api_retry":
            why, attempt = text_in(event, "error"), whole_in(event, "attempt")
            heard.note(f"the vendor answers {why or 'an error'}, try {attempt or '?'}")

    @staticmethod
    def _assistant(event: dict[str, Any], heard: Heard) -> None:
        if kind := text_in(event, "error"):
            heard.fail(_texts(event) or kind, kind=kind)
            return
        for block in items_in(event, "message", "content"):
            match text_in(block, "type"):
                case "text" if not heard.streaming:
                    heard.say(text_in(block, "text"))
                case "tool_use":
                    heard.pause()
                    heard.note(doing(text_in(block, "name"), value_in(block, "input")))

    @staticmethod
    def _result(event: dict[str, Any], heard: Heard) -> None:
        heard.ended = True
        heard.usage = numbers_in(event, "usage")
        heard.cost_usd = number_in(event, "total_cost_usd")
        heard.turns = whole_in(event, "num_turns")
        heard.structured = plain(event.get("structured_output"))
        subtype, result = text_in(event, "subtype"), text_in(event, "result")
        if event.get("is_error") is True or subtype not in ("success", ""):
            errors = "; ".join(text for text in items_in(event, "errors") if isinstance(text, str))
            message = result or errors or text_in(event, "error") or f"it ended with {subtype.replace('_', ' ')}"
            heard.answer = None
            heard.fail(message, status=whole_in(event, "api_error_status"), kind=text_in(event, "error") or subtype)
        elif result:
            heard.trouble = None
            heard.settle(result)


def _texts(event: dict[str, Any]) -> str:
    return "".join(text_in(block, "text") for block in items_in(event, "message", "content"))


FACTORY = factory_of(ClaudeCode(), ClaudeCodeConfig)

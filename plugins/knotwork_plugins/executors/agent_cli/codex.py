"""How is OpenAI Codex spoken to? `codex exec --json … -`, the prompt on stdin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from knotwork_plugins.executors.agent_cli.agent import Ask, CliAgentConfig, CommandLine, Dialect, factory_of
from knotwork_plugins.executors.agent_cli.heard import Heard, doing, items_in, numbers_in, plain, text_in, value_in

_SCHEMA_FILE = "answer-schema.json"


class CodexConfig(CliAgentConfig):
    """What the operator may write for an agent of type `codex`."""

    command: tuple[str, ...] = Field(default=("codex",), min_length=1, description="program and first arguments")
    sandbox: Literal["", "read-only", "workspace-write", "danger-full-access"] = Field(
        default="", description="what its commands may touch; empty: Codex's default (read-only)"
    )
    skip_git_repo_check: bool = Field(default=True, description="work outside a Git repository too")
    ephemeral: bool = Field(default=False, description="keep no session files (an answer can then not be resumed)")
    settings: dict[str, str] = Field(default_factory=dict, description="settings overridden with `-c key=value`")
    answer_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the answer; the answer then carries `structured`"
    )


class Codex(Dialect[CodexConfig]):
    """Events: thread.started, turn.started|completed|failed, item.started|updated|completed, error."""

    name = "codex"
    summary = "OpenAI Codex in non-interactive mode (`codex exec`)."
    install = "Install Codex (npm install -g @openai/codex)"
    sign_in = "Sign in with `codex login`"
    key_variable = "CODEX_API_KEY"

    def prepare(self, config: CodexConfig, folder: Path) -> None:
        """Write the answer's schema to a file: Codex takes it no other way."""
        if config.answer_schema:
            (folder / _SCHEMA_FILE).write_text(json.dumps(config.answer_schema), encoding="utf-8")

    def command_line(self, config: CodexConfig, ask: Ask) -> CommandLine:
        """Return the flags; all stand before `resume`, which accepts only some of them."""
        arguments = ["exec", "--json", "--color=never"]
        valued = {
            "--model": config.model,
            "--sandbox": config.sandbox,
            "--output-schema": str(ask.folder / _SCHEMA_FILE) if config.answer_schema else "",
        }
        arguments += [f"{flag}={value}" for flag, value in valued.items() if value]
        arguments += ["--skip-git-repo-check"] if config.skip_git_repo_check else []
        arguments += ["--ephemeral"] if config.ephemeral else []
        for key, value in config.settings.items():
            arguments += ["-c", f"{key}={value}"]
        arguments += config.extra_args
        arguments += ["resume", ask.session, "-"] if ask.session else ["-"]
        return CommandLine(tuple(arguments), stdin=ask.prompt)

    def read(self, event: dict[str, Any], heard: Heard) -> None:
        """Take one event."""
        match text_in(event, "type"):
            case "thread.started":
                heard.session = text_in(event, "thread_id")
            case "item.started" | "item.completed" as kind:
                self._item(event.get("item"), heard, begun=kind == "item.started")
            case "turn.completed":
                heard.ended = True
                heard.trouble = None
                heard.usage = numbers_in(event, "usage")
            case "turn.failed":
                heard.fail(text_in(event, "error", "message"))
            case "error":
                # Codex tells every reconnect this way; only `turn.failed` or a bad exit makes it the end.
                heard.note(text_in(event, "message"))
                heard.fail(text_in(event, "message"))

    @staticmethod
    def _item(item: Any, heard: Heard, *, begun: bool) -> None:
        kind = text_in(item, "type") or text_in(item, "item_type")
        if kind in ("agent_message", "assistant_message") and not begun:
            text = text_in(item, "text")
            heard.say(text)
            heard.settle(text)  # the last message is the answer
            if text.lstrip().startswith("{"):
                heard.structured = _json(text)
        elif kind == "command_execution" and begun:
            heard.note(doing("command", item))
        elif kind == "mcp_tool_call" and begun:
            heard.note(f"{text_in(item, 'server')}.{text_in(item, 'tool')}")
        elif kind == "web_search" and begun:
            heard.note(doing("search", item))
        elif kind == "file_change" and not begun:
            paths = ", ".join(text_in(change, "path") for change in items_in(item, "changes")[:10])
            heard.note(f"changed {paths}")
        elif kind == "reasoning" and not begun:
            heard.note(" ".join(text_in(item, "text").split()))
        elif kind == "todo_list":
            entries = items_in(item, "items")
            done = sum(1 for entry in entries if value_in(entry, "completed") is True)
            heard.note(f"{done} of {len(entries)} steps done")


def _json(text: str) -> Any:
    try:
        return plain(json.loads(text))
    except (ValueError, RecursionError):
        return None


FACTORY = factory_of(Codex(), CodexConfig)

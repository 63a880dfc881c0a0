"""What comes back from the agent command lines, and what is left of them?

The real executor runs real processes: scripted stand-ins that speak the output the vendors document.
"""

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from knotwork.sdk import Done, Failed, Unavailable
from knotwork.sdk.testing import RecordingReporter, attempt, host
from knotwork_plugins.executors.agent_cli import claude_code, codex, copilot, gemini

STANDINS = Path(__file__).parents[2] / "contract" / "standins"
FACTORIES = {
    "claude": claude_code.FACTORY,
    "codex": codex.FACTORY,
    "gemini": gemini.FACTORY,
    "copilot": copilot.FACTORY,
}
ALL = pytest.mark.parametrize("name", list(FACTORIES))


def table(name: str, **more: Any) -> dict[str, Any]:
    return {"command": [sys.executable, "-S", str(STANDINS / f"{name}.py")], **more}


async def ask(name: str, given: Any, *, report: RecordingReporter | None = None, **config: Any) -> Done | Failed:
    async with asyncio.timeout(90), host(FACTORIES[name], table(name, **config)) as agent:
        outcome = await agent.execute(attempt(given, report=report))
    assert isinstance(outcome, Done | Failed)
    if isinstance(outcome, Done):
        json.dumps(outcome.output, allow_nan=False)
    return outcome


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("claude", {"session": "3f2a9c40-7b18-4c6d-9e51-8a2b1d4f0c73", "model": "claude-x", "cost_usd": 0.0125, "turns": 2,
                    "usage": {"input_tokens": 12, "output_tokens": 7}}),
        ("codex", {"session": "0199a213-81c0-7800",
                   "usage": {"input_tokens": 24763, "cached_input_tokens": 24448, "output_tokens": 122}}),
        ("gemini", {"session": "g-session-1", "model": "auto",
                    "usage": {"total_tokens": 19, "input_tokens": 12, "output_tokens": 7, "cached": 0, "duration_ms": 5,
                              "tool_calls": 1}}),
        ("copilot", {"session": "c-session-1", "model": "gpt-x", "usage": {"premiumRequests": 1, "totalApiDurationMs": 5}}),
    ],
)  # fmt: skip
async def test_answer_stream_and_progress(name: str, output: dict[str, Any]) -> None:
    report = RecordingReporter()
    outcome = await ask(name, {"prompt": "hi"}, report=report)
    assert outcome == Done({"text": "You said: hi", **output})
    assert "".join(report.chunks).endswith("You said: hi")
    assert "inner" not in "".join(report.chunks)
    assert any("ls" in text or "a.txt" in text for _, text in report.said)


@ALL
async def test_odd_output_does_not_lose_the_answer(name: str) -> None:
    outcome = await ask(name, "GARBAGE UNKNOWN HUGE NOISY", line_max=1_000_000)
    assert isinstance(outcome, Done), outcome
    assert outcome.output["text"] == "You said: GARBAGE UNKNOWN HUGE NOISY"


@ALL
async def test_rate_limits_can_be_retried(name: str) -> None:
    outcome = await ask(name, "RATE")
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == ("agent.rate_limited", True)
    # The clock of the test stands at 1 700 000 000; Copilot names no time.
    assert outcome.retry_after_s == {"claude": 90.0, "codex": 1.5, "gemini": 23.5, "copilot": None}[name]


@ALL
async def test_a_missing_login_is_permanent_and_says_what_to_do(name: str) -> None:
    outcome = await ask(name, "LOGIN")
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == ("agent.unauthenticated", False)
    assert "Sign in with" in outcome.message
    assert "api_key" in outcome.message


@ALL
async def test_truncated_output_is_not_taken_for_an_answer(name: str) -> None:
    outcome = await ask(name, "TRUNCATED")
    assert isinstance(outcome, Failed)
    assert outcome.retriable
    assert "partial" in outcome.detail


@ALL
async def test_killed_by_somebody(name: str) -> None:
    outcome = await ask(name, "CRASH")
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable, outcome.detail["exit_code"]) == ("agent.crashed", True, -9)


async def test_what_it_says_on_stderr_becomes_the_message() -> None:
    outcome = await ask("codex", "COMPLAIN error: unexpected argument found")
    assert isinstance(outcome, Failed)
    assert (outcome.message, outcome.code) == ("error: unexpected argument found", "agent.failed")
    overloaded = await ask("gemini", "COMPLAIN Error 503 Service Unavailable, try again in 3s")
    assert isinstance(overloaded, Failed)
    assert (overloaded.code, overloaded.retry_after_s) == ("agent.overloaded", 3)


async def test_what_it_says_in_plain_words_on_stdout_becomes_the_message() -> None:
    outcome = await ask("claude", "MUTTER Credit balance is too low")
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == ("agent.out_of_credit", False)
    assert outcome.message.startswith("Credit balance is too low")


async def test_refused_flags_are_told_in_the_command_s_own_words() -> None:
    outcome = await ask("gemini", "hi", extra_args=["--no-such-flag"])
    assert isinstance(outcome, Failed)
    assert "--no-such-flag" in outcome.message


async def test_silence_and_floods_are_ended() -> None:
    silent = await ask("claude", "HANG", idle_timeout_s=0.3, grace_s=0.1)
    assert isinstance(silent, Failed)
    assert (silent.code, silent.retriable) == ("agent.silent", True)
    flood = await ask("codex", "FLOOD", output_max=1_000_000)
    assert isinstance(flood, Failed)
    assert flood.code == "agent.output_too_large"


async def test_who_has_said_all_and_does_not_exit_is_not_waited_for() -> None:
    lingering = await ask("claude", "LINGER")
    assert isinstance(lingering, Done), lingering
    assert lingering.output["text"] == "You said: LINGER"


async def test_turn_limits_credit_and_reconnects() -> None:
    turns = await ask("claude", "TURNS")
    assert isinstance(turns, Failed)
    assert "maximum number of turns" in turns.message
    credit = await ask("copilot", "CREDIT")
    assert isinstance(credit, Failed)
    assert (credit.code, credit.retriable) == ("agent.out_of_credit", False)
    assert isinstance(await ask("codex", "RECONNECT"), Done)


async def test_the_flat_stream_of_copilot() -> None:
    outcome = await ask("copilot", "FLAT")
    assert outcome == Done(
        {"text": "You said: FLAT", "model": "gpt-x", "usage": {"input_tokens": 3, "output_tokens": 4}}
    )


async def test_structured_answers() -> None:
    schema = {"type": "object"}
    for name in ("claude", "codex"):
        outcome = await ask(name, "hi", answer_schema=schema)
        assert isinstance(outcome, Done), outcome
        assert outcome.output["structured"] == {"ok": True}


async def test_without_partial_messages_whole_ones_are_streamed() -> None:
    report = RecordingReporter()
    await ask("claude", "hi", report=report, partial=False)
    assert report.chunks == ["Let me look. ", "You said: hi"]


@ALL
async def test_sessions_are_resumed_and_never_become_flags(name: str) -> None:
    outcome = await ask(name, {"prompt": "hi", "session": "abc-1"})
    assert isinstance(outcome, Done), outcome
    assert outcome.output["session"] == "abc-1"
    configured = await ask(name, "hi", resume="def-2")
    assert isinstance(configured, Done)
    assert configured.output["session"] == "def-2"
    for session in ("--dangerously-skip-permissions", "../x", "a b", 7, ["x"]):
        refused = await ask(name, {"prompt": "hi", "session": session})
        assert isinstance(refused, Failed)
        assert (refused.code, refused.retriable) == ("request.invalid", False)


@ALL
async def test_what_the_command_is_given(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "s3cret")
    record = tmp_path / "record.json"
    key = FACTORIES[name].config.model_fields
    assert "api_key" in key
    config = table(
        name,
        api_key={"env": "THE_KEY"},
        system_prompt="Be kind.",
        template="<{prompt}>",
        cwd=str(tmp_path),
        env={"STANDIN_RECORD": str(record)},
        secret_env={"OTHER": {"env": "THE_KEY"}},
    )
    seen: list[dict[str, str]] = []

    def child_env(extra: dict[str, str]) -> dict[str, str]:
        seen.append(extra)
        return {"PATH": "/usr/bin:/bin", **extra}

    async with host(FACTORIES[name], config, child_env=child_env) as agent:
        given = attempt("-ü; $(x)\n", traceparent="00-aa-bb-01")
        assert isinstance(await agent.execute(given), Done)
    told = json.loads(record.read_text())
    assert told["cwd"] == str(tmp_path)
    assert told["env"]["TRACEPARENT"] == "00-aa-bb-01"
    assert told["env"]["OTHER"] == "s3cret"
    assert told["env"].get(agent.dialect.key_variable) == "s3cret"
    assert "THE_KEY" not in told["env"], "only what `child_env` lets through reaches the command"
    assert "s3cret" not in str(told["argv"])
    prompt = "<-ü; $(x)\n>"
    if name == "claude":
        assert "--append-system-prompt=Be kind." in told["argv"]
    else:
        prompt = f"Be kind.\n\n{prompt}"
    assert told["prompt"] == prompt


async def test_prompts_too_long_for_an_argument_go_to_stdin() -> None:
    for name in ("copilot", "gemini"):
        outcome = await ask(name, "long " * 500_000, prompt_as="argument")
        assert isinstance(outcome, Done), outcome


async def test_prompts_that_cannot_be_sent() -> None:
    for given in ("", "  \n", {"prompt": ""}):
        outcome = await ask("claude", given)
        assert isinstance(outcome, Failed)
        assert outcome.code == "request.invalid"
    nul = await ask("copilot", "a\0b")
    assert isinstance(nul, Failed)
    assert nul.code == "request.invalid"


async def test_a_missing_command_or_folder_is_unavailable_with_a_hint(tmp_path: Path) -> None:
    for name, factory in FACTORIES.items():
        with pytest.raises(Unavailable) as gone:
            async with host(factory, {"command": [f"no-such-{name}"]}):
                pass
        assert (gone.value.code, "npm install" in gone.value.hint) == ("agent.command_missing", True)
    with pytest.raises(Unavailable) as folder:
        async with host(claude_code.FACTORY, table("claude", cwd=str(tmp_path / "none"))):
            pass
    assert folder.value.code == "agent.folder_missing"


async def test_a_command_that_vanishes_later_fails_retriably(tmp_path: Path) -> None:
    command = tmp_path / "claude"
    command.write_text("#!/bin/sh\nexit 0\n")
    command.chmod(0o755)
    async with host(claude_code.FACTORY, {"command": [str(command)]}) as agent:
        command.unlink()
        outcome = await agent.execute(attempt("hi"))
        with pytest.raises(Unavailable):
            await agent.probe()
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == ("agent.command_missing", True)


async def test_the_path_of_a_command_is_meant_from_the_configuration_file(tmp_path: Path) -> None:
    command, script = tmp_path / "claude", STANDINS / "claude.py"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{script}" "$@"\n')
    command.chmod(0o755)
    async with host(claude_code.FACTORY, {"command": ["./claude"]}, base=tmp_path) as agent:
        outcome = await agent.execute(attempt("hi"))
    assert isinstance(outcome, Done), outcome
    with pytest.raises(Unavailable, match=r"other/claude' .* is not there"):
        async with host(claude_code.FACTORY, {"command": ["other/claude"]}, base=tmp_path):
            pass


async def test_a_command_that_cannot_run(tmp_path: Path) -> None:
    command = tmp_path / "claude"
    command.write_text("#!/no/such/interpreter\n")
    command.chmod(0o755)
    async with host(claude_code.FACTORY, {"command": [str(command)]}) as agent:
        outcome = await agent.execute(attempt("hi"))
    assert isinstance(outcome, Failed)
    assert outcome.code == "agent.cannot_start"


@pytest.mark.parametrize("word", ["STRAY", "ESCAPEE"])
async def test_what_the_command_leaves_behind_is_ended(word: str) -> None:
    token = uuid.uuid4().hex
    outcome = await ask("codex", word, env={"STANDIN_TOKEN": token})
    assert isinstance(outcome, Done), outcome
    await _none_left(token)


async def test_cancelling_ends_everything_it_started() -> None:
    token = uuid.uuid4().hex
    async with host(claude_code.FACTORY, table("claude", grace_s=0.1, env={"STANDIN_TOKEN": token})) as agent:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(agent.execute(attempt("HANG ESCAPEE")))
            async with asyncio.timeout(60):
                while len(_sleepers(token)) < 2:
                    await asyncio.sleep(0.02)
            task.cancel()
            _, pending = await asyncio.wait({task}, timeout=30)
        assert not pending
        assert task.cancelled()
        await _none_left(token)


async def _none_left(token: str) -> None:
    async with asyncio.timeout(30):  # one that was killed needs a moment to be gone
        while _sleepers(token):
            await asyncio.sleep(0.02)


def _sleepers(token: str) -> list[int]:
    """Return the processes that a stand-in left, known by the token on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if token in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found

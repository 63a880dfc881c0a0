"""Does a command become an agent, whatever the command does?"""

import asyncio
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from knotwork.sdk import Done, Failed, Unavailable
from knotwork.sdk.testing import RecordingReporter, attempt, host
from knotwork_plugins.executors.process.plugin import FACTORY, ProcessConfig

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the commands of these tests are POSIX")

GONE_S = 20.0
MEBIBYTE = 1_048_576


async def ask(
    given: Any = None, report: RecordingReporter | None = None, fields: dict[str, Any] | None = None, **config
):
    async with host(FACTORY, config) as executor:
        return await executor.execute(attempt(given, report, **(fields or {})))


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def python(script: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script]


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def pids_in(file: Path, count: int) -> list[int]:
    words = file.read_text().split() if file.exists() else []
    return [int(word) for word in words] if len(words) >= count else []


async def gone(file: Path, count: int) -> None:
    """Return when the processes in the file are no more: one that was killed needs a moment to be gone."""
    await until(lambda: not any(lives(pid) for pid in pids_in(file, count)))


async def cancel_when(condition: Any, **config: Any) -> None:
    """Start an attempt, cancel it once the condition holds, and return when it has ended."""
    async with host(FACTORY, config) as executor, asyncio.TaskGroup() as group:
        task = group.create_task(executor.execute(attempt("x")))
        await until(lambda: condition() or task.done())
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


# --- input and output


def test_input_goes_to_stdin_and_stdout_is_the_answer(run):
    assert run(ask("three words here", command=["wc", "-w"])) == Done("3")


@pytest.mark.parametrize(
    ("given", "form", "seen"),
    [
        ("text", "auto", "text"),
        ("text", "json", '"text"'),
        (None, "auto", ""),
        (None, "json", "null"),
        ({"a": [1]}, "auto", '{"a":[1]}'),
    ],
)
def test_input_format(run, given, form, seen):
    assert run(ask(given, command=["cat"], input_format=form)) == Done(seen)


def test_json_output(run):
    assert run(ask({"a": [1, "ü"]}, command=["cat"], output="json")) == Done({"a": [1, "ü"]})


def test_trim_can_be_turned_off(run):
    assert run(ask(command=["echo", "hi"], trim=False)) == Done("hi\n")


def test_eight_megabytes_of_input_for_a_command_that_reads_all_of_it(run):
    assert run(ask("x" * 8_000_000, command=["wc", "-c"])) == Done("8000000")


def test_eight_megabytes_of_input_for_a_command_that_never_reads(run):
    outcome = run(ask("x" * 8_000_000, command=sh("sleep 0.2; echo done")))
    assert outcome == Done("done")


def test_inputs_that_a_killed_node_left_are_removed_and_those_in_use_are_not(run, tmp_path):
    left = tmp_path / "input-left"
    left.mkdir()
    (left / "input.txt").write_text("private")
    config = {"command": 'touch began; while [ ! -e go ]; do sleep 0.01; done; cat "$1"', "shell": True}
    config |= {"input_as": "file", "cwd": str(tmp_path)}

    async def steps():
        async with host(FACTORY, config, folder=tmp_path) as old, asyncio.TaskGroup() as group:
            assert not left.exists()
            asked = group.create_task(old.execute(attempt("mine")))
            await until((tmp_path / "began").exists)
            async with host(FACTORY, config, folder=tmp_path):  # as a reload does
                assert len(list(tmp_path.glob("input-*"))) == 1
            (tmp_path / "go").touch()
            return await asked

    assert run(steps()) == Done("mine")
    assert list(tmp_path.glob("input-*")) == []


def test_input_as_last_argument_or_in_its_place(run):
    assert run(ask("a b", command=["printf", "[%s]"], input_as="argument")) == Done("[a b]")
    assert run(ask("a b", command=["printf", "[%s] [%s]", "x={input}", "y"], input_as="argument")) == Done(
        "[x=a b] [y]"
    )


def test_an_input_cannot_become_an_option(run):
    outcome = run(ask("--version", command=["cat"], input_as="argument"))
    assert isinstance(outcome, Failed)
    assert outcome.code == "agent.input_refused"
    assert run(ask("-x", command=["printf", "--", "{input}"], input_as="argument")) == Done("-x")
    assert run(ask("-x", command=["printf", "[%s]", "a={input}"], input_as="argument")) == Done("[a=-x]")


def test_a_shell_gets_the_input_as_a_parameter_never_as_code(run):
    evil = "$(echo gone); `id`; ' \" \\"
    assert run(ask(evil, command='printf %s "$1"', shell=True, input_as="argument")) == Done(evil)


@pytest.mark.parametrize(("given", "code"), [("x" * 200_000, "agent.input_too_large"), ("a\0b", "agent.input_refused")])
def test_what_no_argument_can_carry_is_refused(run, given, code):
    outcome = run(ask(given, command=["echo"], input_as="argument"))
    assert (outcome.code, outcome.retriable) == (code, False)


def test_input_in_a_private_file_that_is_gone_afterwards(run, tmp_path):
    script = 'stat -c %a "$(dirname "$1")"; echo "$1"; cat "$1"; [ "$1" = "$KNOTWORK_INPUT_FILE" ]'

    async def steps():
        async with host(FACTORY, {"command": script, "shell": True, "input_as": "file"}, folder=tmp_path) as executor:
            return await executor.execute(attempt({"q": 1}))

    mode, path, content = run(steps()).output.splitlines()
    assert (mode, content, Path(path).suffix) == ("700", '{"q":1}', ".json")
    assert list(tmp_path.iterdir()) == []


def test_json_lines_progress_and_streaming(run):
    script = (
        "import json,sys\n"
        "print(json.dumps({'progress': 10, 'text': 'begin'}))\n"
        "print(json.dumps({'a': 1})); print(); print(json.dumps({'progress': 1, 'other': 2}))\n"
        "print('@progress 50% half way'); print('@progress thinking', file=sys.stderr)\n"
        "print(json.dumps({'progress': 400}), file=sys.stderr)\n"
        "sys.stdout.write('[2]')\n"
    )
    report = RecordingReporter()
    outcome = run(ask(report=report, command=python(script), output="jsonl", stream=True))
    assert outcome == Done([{"a": 1}, {"progress": 1, "other": 2}, [2]])
    assert report.chunks == outcome.output
    assert sorted(report.said, key=str) == sorted(
        [(10.0, "begin"), (50.0, "half way"), (None, "thinking"), (100.0, "")], key=str
    )


def test_text_lines_are_streamed_while_the_command_runs(run, tmp_path):
    """The second line is written only after the first one was seen."""
    seen = tmp_path / "seen"

    class Touching(RecordingReporter):
        async def stream(self, chunk: Any) -> None:
            await super().stream(chunk)
            seen.touch()

    report = Touching()
    script = f"echo one; while [ ! -e {seen} ]; do sleep 0.01; done; printf two"
    assert run(ask(report=report, command=sh(script), stream=True)) == Done("one\ntwo")
    assert report.chunks == ["one\n", "two"]


# --- output that is not what it should be


@pytest.mark.parametrize(
    "script",
    [
        "echo hi",
        "true",
        "printf NaN",
        "printf '{}{}'",
        "printf '\\377'",
        "printf '\"\\\\ud800\"'",
        "printf '%100000s' | tr ' ' '['",
    ],
)
def test_success_without_json_is_a_typed_failure(run, script):
    outcome = run(ask(command=sh(script), output="json"))
    assert (outcome.code, outcome.retriable) == ("agent.output_not_json", False)


def test_a_broken_json_line_is_named(run):
    outcome = run(ask(command=["printf", "1\n2\noops\n3\n"], output="jsonl"))
    assert outcome.code == "agent.output_not_json"
    assert "line 3" in outcome.message
    assert "oops" in outcome.message


def test_invalid_utf8_in_a_text_is_replaced(run):
    assert run(ask(command=["printf", "a\\377b"])) == Done("a\ufffdb")


@pytest.mark.parametrize("flood", ["yes", "cat /dev/zero", "yes '@progress 1 x' & yes", "yes 1 >&2 & cat /dev/zero"])
@pytest.mark.parametrize("output", ["text", "jsonl"])
def test_a_flood_ends_the_command_with_bounded_memory(run, flood, output):
    before = psutil.Process().memory_info().rss
    outcome = run(ask(command=sh(flood), output=output, output_max_bytes=MEBIBYTE))
    assert (outcome.code, outcome.retriable) == ("agent.output_too_large", False)
    assert psutil.Process().memory_info().rss - before < 48 * MEBIBYTE


def test_a_flood_on_stderr_keeps_its_end_only(run):
    before = psutil.Process().memory_info().rss
    outcome = run(ask(command=sh("yes | head -c 50000000 >&2; echo last words >&2; exit 3"), stderr_max_bytes=1000))
    assert outcome.code == "agent.exit_code"
    assert outcome.message.endswith("last words")
    assert len(outcome.detail["stderr"]) <= 1000
    assert psutil.Process().memory_info().rss - before < 32 * MEBIBYTE


# --- how it ends


def test_exit_codes(run):
    assert run(ask(command=sh("echo out; exit 3"), ok_exit_codes=[0, 3])) == Done("out")
    plain = run(ask(command=sh("echo why >&2; exit 4")))
    assert (plain.code, plain.retriable, plain.detail) == ("agent.exit_code", False, {"exit_code": 4, "stderr": "why"})
    assert run(ask(command=sh("exit 75"))).retriable


@pytest.mark.parametrize(("name", "retriable"), [("KILL", True), ("TERM", True), ("SEGV", False)])
def test_death_by_signal(run, name, retriable):
    outcome = run(ask(command=sh(f"ulimit -c 0; kill -{name} $$")))
    assert (outcome.code, outcome.retriable) == ("agent.killed", retriable)
    assert f"SIG{name}" in outcome.message


def test_closing_its_streams_early_is_no_end(run):
    began_s = time.monotonic()
    outcome = run(ask(command=sh("exec >&- 2>&- <&-; sleep 0.3; exit 3")))
    assert outcome.detail == {"exit_code": 3}
    assert time.monotonic() - began_s >= 0.3


def test_time_limit(run):
    outcome = run(ask(command=["sleep", "30"], time_limit_s=0.1))
    assert (outcome.code, outcome.retriable) == ("agent.timed_out", True)


def test_memory_of_the_whole_tree_is_limited(run, tmp_path):
    script = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; x = b\"x\" * 90_000_000; time.sleep(30)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "x = b'x' * 90_000_000\n"
        "time.sleep(30)\n"
    )
    outcome = run(ask(command=python(script), memory_limit_mb=150))
    assert (outcome.code, outcome.retriable) == ("agent.memory_exceeded", False)
    run(gone(tmp_path / "pids", 2))


def test_a_sudden_two_gigabytes_are_refused_by_the_kernel(run):
    script = "import time\ntime.sleep(0.3)\nx = bytearray(3_000_000_000)"
    outcome = run(ask(command=python(script), memory_limit_mb=100))
    assert outcome.code in {"agent.exit_code", "agent.memory_exceeded"}
    assert outcome.code == "agent.memory_exceeded" or "MemoryError" in outcome.message


# --- nothing is left behind

STUBBORN = "trap '' TERM; sleep 60 & echo $$ $! > {file}; trap '' TERM; sleep 60 & wait; sleep 60"


def test_cancel_ends_the_whole_group_also_when_it_ignores_sigterm(run, tmp_path):
    file = tmp_path / "pids"
    run(cancel_when(lambda: pids_in(file, 2), command=sh(STUBBORN.format(file=file))))
    run(gone(file, 2))


def test_cancel_says_sigterm_first(run, tmp_path):
    file, bye = tmp_path / "pids", tmp_path / "bye"
    script = f"trap 'echo bye > {bye}; exit 0' TERM; echo $$ > {file}; while :; do sleep 0.01; done"
    run(cancel_when(lambda: pids_in(file, 1), command=sh(script), grace_s=30))
    assert bye.read_text() == "bye\n"


def test_cancel_finds_what_went_into_a_session_of_its_own(run, tmp_path):
    file = tmp_path / "pids"
    escape = f"import os, time\nos.setsid()\nopen({str(file)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(60)"
    twice = (
        "import os, sys\n"
        f"for _ in range(2):\n  if os.fork() == 0:\n    if os.fork() == 0:\n      exec({escape!r})\n    os._exit(0)\n"
        "import time; time.sleep(60)"
    )
    run(cancel_when(lambda: pids_in(file, 2), command=python(twice)))
    run(gone(file, 2))


def test_a_second_cancel_does_not_wait_for_the_grace(run, tmp_path):
    file = tmp_path / "pids"

    async def steps():
        config = {"command": sh(STUBBORN.format(file=file)), "grace_s": 30}
        async with host(FACTORY, config) as executor, asyncio.TaskGroup() as group:
            task = group.create_task(executor.execute(attempt()))
            await until(lambda: pids_in(file, 2))
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=0.2)
            assert pending
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=GONE_S)
            assert not pending
            await until(lambda: not any(lives(pid) for pid in pids_in(file, 2)))

    run(steps())


def test_cancel_at_any_moment_of_a_start_leaves_nothing(run, tmp_path):
    file = tmp_path / "pids"
    script = f"echo $$ >> {file}; sleep 60 & echo $! >> {file}; wait"

    async def steps():
        async with host(FACTORY, {"command": sh(script), "grace_s": 0.2}) as executor, asyncio.TaskGroup() as group:
            for moment in range(30):
                task = group.create_task(executor.execute(attempt("x")))
                for _ in range(moment % 6):
                    await asyncio.sleep(0)
                await asyncio.sleep(moment // 6 * 0.002)  # another moment each time, not a wait for something
                task.cancel()
                await asyncio.wait([task], timeout=GONE_S)
                assert task.cancelled()
            await until(lambda: not any(lives(pid) for pid in pids_in(file, 0)))

    run(steps())


def test_a_process_left_in_the_background_is_ended_with_the_command(run, tmp_path):
    file = tmp_path / "pids"
    assert run(ask(command=sh(f"sleep 60 & echo $! > {file}; echo hi"))) == Done("hi")
    run(gone(file, 1))


def test_a_daemon_that_keeps_the_output_open_does_not_hold_the_attempt(run, tmp_path):
    file = tmp_path / "pids"
    script = (
        "import os, time\n"
        f"if os.fork() == 0:\n  os.setsid()\n  open({str(file)!r}, 'w').write(str(os.getpid()))\n  time.sleep(60)\n"
        f"while not os.path.exists({str(file)!r}): time.sleep(0.005)\n"
        "print('hi', flush=True)\nos._exit(0)"
    )
    assert run(ask(command=python(script))) == Done("hi")
    run(gone(file, 1))


def test_open_files_and_threads_do_not_grow(run):
    async def steps():
        async with host(FACTORY, {"command": ["cat"], "input_as": "stdin"}) as executor:
            await executor.execute(attempt("warm"))
            before = psutil.Process().num_fds()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(executor.execute(attempt(str(number)))) for number in range(20)]
            assert [task.result().output for task in tasks] == [str(number) for number in range(20)]
            await until(lambda: psutil.Process().num_fds() <= before + 1)

    run(steps())


# --- environment, folder, start


def test_environment(run, monkeypatch):
    monkeypatch.setenv("EXEC_SECRET", "s3cret")
    monkeypatch.setenv("EXEC_PASSED", "passed")
    outcome = run(
        ask(
            command=sh('echo "$A $B $EXEC_PASSED $KNOTWORK_ATTEMPT_ID $KNOTWORK_CAPABILITY $TRACEPARENT"'),
            env={"A": "plain", "B": {"env": "EXEC_SECRET"}},
            pass_env=["EXEC_PASSED", "EXEC_NOT_THERE"],
            fields={"id": "att\0x", "capability": "review", "traceparent": "00-1-2-01"},
        )
    )
    assert outcome == Done("plain s3cret passed attx review 00-1-2-01")


def test_the_environment_is_the_clean_one_of_the_context(run):
    async def steps():
        config = {"command": ["/usr/bin/env"], "env": {"A": "1"}}
        async with host(FACTORY, config, child_env=lambda extra: {"CLEAN": "yes", **extra}) as executor:
            return await executor.execute(attempt())

    names = {line.split("=")[0] for line in run(steps()).output.splitlines()}
    assert {"CLEAN", "A"} <= names
    assert not names & {"HOME", "PYTHONPATH"}


def test_a_secret_that_cannot_be_had_is_a_retriable_failure(run):
    outcome = run(ask(command=["true"], env={"A": {"env": "NO_SUCH_VARIABLE_ANYWHERE"}}))
    assert (outcome.code, outcome.retriable) == ("config.secret", True)


def test_folder(run, tmp_path):
    assert run(ask(command=["pwd"], cwd=str(tmp_path))) == Done(str(tmp_path))


@pytest.mark.parametrize(
    "config", [{"command": ["no-such-program-xyz"]}, {"command": ["true"], "cwd": "/no/such/folder"}]
)
def test_what_is_not_there_is_said_when_opening(run, config):
    with pytest.raises(Unavailable, match=r"no-such-program-xyz|/no/such/folder"):
        run(ask(**config))


def test_a_program_that_vanishes_is_a_typed_failure(run, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho hi\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

    async def steps():
        async with host(FACTORY, {"command": [str(program)]}) as executor:
            first = await executor.execute(attempt())
            program.chmod(0o600)
            second = await executor.execute(attempt())
            program.unlink()
            third = await executor.execute(attempt())
            return first, second, third

    first, second, third = run(steps())
    assert first == Done("hi")
    assert (second.code, second.retriable) == ("agent.not_started", False)
    assert (third.code, third.retriable) == ("agent.not_started", True)


def test_what_vanished_is_named(run, tmp_path):
    folder, program = tmp_path / "folder", tmp_path / "program"
    folder.mkdir()
    program.write_text("#!/bin/sh\necho hi\n")
    program.chmod(0o700)

    async def steps():
        async with host(FACTORY, {"command": [str(program)], "cwd": str(folder)}) as executor:
            folder.rmdir()
            first = await executor.execute(attempt())
            folder.mkdir()
            program.write_text("#!/no/such/interpreter\n")
            return first, await executor.execute(attempt())

    first, second = run(steps())
    assert f"the folder {folder} does not exist" in first.message
    assert "interpreter" in second.message
    assert first.retriable
    assert second.retriable


def test_a_program_is_looked_for_where_the_table_says(run, tmp_path):
    program = tmp_path / "mytool"
    program.write_text("#!/bin/sh\necho hi\n")
    program.chmod(0o700)
    assert run(ask(command=["mytool"], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})) == Done("hi")


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"command": []},
        {"command": "a string"},
        {"command": ["a"], "shell": True},
        {"command": [""]},
        {"command": ["a\0b"]},
        {"command": ["a"], "env": {"A=B": "x"}},
        {"command": ["a"], "time_limit_s": 0},
        {"command": ["a"], "input_as": "pipe"},
        {"command": ["a"], "timeout_s": 3},
    ],
)
def test_bad_configs_are_refused(table):
    with pytest.raises(ValidationError):
        ProcessConfig.model_validate(table)


def test_nobody_reads_the_environment_of_this_process():
    """The mark is set for children only."""
    assert "KNOTWORK_ATTEMPT_MARK" not in os.environ

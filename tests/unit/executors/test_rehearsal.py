"""Does the rehearsal follow its script?"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from pydantic import ValidationError

from knotwork.sdk import Continue, Done, Failed, PluginFailed, Unavailable
from knotwork.sdk.testing import RecordingReporter, attempt, host
from knotwork_plugins.executors.rehearsal import ACTIONS, FACTORY, RehearsalConfig, Step


async def play(*steps: dict[str, Any], given: Any = "in", report: Any = None, number: int = 1, **config: Any):
    async with host(FACTORY, {"steps": steps, **config}) as executor:
        return await executor.execute(attempt(given, report, number=number))


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ({"done": {"a": 1}}, Done({"a": 1})),
        ({"done": None}, Done(None)),
        ({"echo": True}, Done("in")),
        ({"output_bytes": 5}, Done("xxxxx")),
        ({"again": 2}, Continue(2)),
        (
            {"fail": "no", "code": "x.y", "retriable": True, "retry_after_s": 2},
            Failed("no", code="x.y", retriable=True, retry_after_s=2),
        ),
        ({"crash": "exit"}, Failed("`crash` needs allow_crash = true", code="agent.input_invalid")),
    ],
)
def test_endings(run, step, outcome):
    assert run(play({"progress": 1}, step, {"fail": "never reached"})) == outcome


def test_without_an_ending_the_input_is_the_output(run):
    assert run(play({"delay_s": 0.0})) == Done("in")
    assert run(play()) == Done("in")


def test_progress_and_chunks(run):
    report = RecordingReporter()
    run(
        play(
            {"progress": 10, "text": "t"},
            {"chunk": {"a": None}},
            {"chunks": 3, "size": 2, "every_s": 0.001},
            report=report,
        )
    )
    assert report.said == [(10, "t")]
    assert report.chunks == [{"a": None}, "xx", "xx", "xx"]


def test_delays_and_a_blocked_loop(run):
    began_s = time.monotonic()
    run(play({"delay_s": 0.05}, {"block_s": 0.05}, {"ignore_cancel_s": 0.05}, {"allocate_mb": 2}))
    assert time.monotonic() - began_s >= 0.15


def test_the_executor_breaks_when_told(run):
    with pytest.raises(RuntimeError, match="broken"):
        run(play({"error": "broken"}))


def test_garbage_on_standard_output(run, capsys):
    run(play({"say": "}{ garbage"}))
    assert capsys.readouterr().out == "}{ garbage\n"


def test_conditions(run):
    twice = {"fail": "not yet", "retriable": True, "attempts": [1, 2]}
    outcomes = [run(play(twice, {"done": "ok"}, number=number)) for number in (1, 2, 3)]
    assert [type(outcome) for outcome in outcomes] == [Failed, Failed, Done]


def test_chance_is_repeatable(run):
    async def steps(seed: int) -> list[bool]:
        config = {"steps": [{"fail": "bad luck", "chance": 0.5}], "seed": seed}
        async with host(FACTORY, config) as executor:
            return [isinstance(await executor.execute(attempt(id=f"a{n}")), Failed) for n in range(60)]

    first, again, other = run(steps(1)), run(steps(1)), run(steps(2))
    assert first == again != other
    assert 10 < sum(first) < 50


def test_a_script_in_the_input(run):
    given = {"steps": [{"done": 7}]}
    assert run(play(given=given, script_from_input=True)) == Done(7)
    assert run(play(given=given)) == Done(given)
    outcome = run(play(given={"steps": [{"delay_s": -1}]}, script_from_input=True))
    assert outcome.code == "agent.input_invalid"
    assert "delay_s" in outcome.message
    assert run(play(given={"steps": "x"}, script_from_input=True)).code == "agent.input_invalid"
    assert run(play(given={"steps": [{"progress": 1}] * 1001}, script_from_input=True)).code == "agent.input_invalid"


@pytest.mark.parametrize(("step", "least_s"), [({"delay_s": 60}, 0.0), ({"ignore_cancel_s": 0.4}, 0.3)])
def test_cancel(run, step, least_s):
    async def steps():
        report = RecordingReporter()
        async with host(FACTORY, {"steps": [{"progress": 1}, step]}) as executor, asyncio.TaskGroup() as group:
            task = group.create_task(executor.execute(attempt(None, report)))
            while not report.said:
                await asyncio.sleep(0)
            began_s = time.monotonic()
            task.cancel()
            await asyncio.wait([task], timeout=30)
            assert task.cancelled()
            assert least_s <= time.monotonic() - began_s

    run(steps())


def test_starting_fails_when_told(run):
    with pytest.raises(Unavailable, match="later"):
        run(play(open_error="later"))
    with pytest.raises(PluginFailed, match="never"):
        run(play(open_broken="never"))
    with pytest.raises(Unavailable, match="ill"):
        run(play(probe_error="ill"))
    with pytest.raises(TimeoutError):

        async def slow():
            async with host(FACTORY, {"open_delay_s": 30}, start_timeout_s=0.05):
                pass

        run(slow())


def test_a_background_crash_reaches_who_holds_the_plugin(run):
    async def steps():
        async with host(FACTORY, {"background_crash_s": 0.02}):
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup, match="unhandled"):
        run(steps())
    assert run(play(background_crash_s=60)) == Done("in")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("how", "code"), [("exit", 70), ("kill", -signal.SIGKILL), ("segfault", -signal.SIGSEGV)])
def test_a_crash_ends_the_process(how, code):
    program = (
        "import asyncio\nfrom knotwork.sdk.testing import attempt, host\n"
        "from knotwork_plugins.executors.rehearsal import FACTORY\n"
        "async def main():\n"
        f"    async with host(FACTORY, {{'steps': [{{'crash': {how!r}}}], 'allow_crash': True}}) as executor:\n"
        "        await executor.execute(attempt())\n"
        "asyncio.run(main())\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    "table", [{}, {"delay_s": 1, "done": 1}, {"delay_s": -1}, {"crash": "burn"}, {"text": "x"}, {"nap": 1}]
)
def test_bad_steps_are_refused(table):
    with pytest.raises(ValidationError):
        RehearsalConfig.model_validate({"steps": [table]})


def test_every_action_is_a_field():
    assert set(ACTIONS) <= set(Step.model_fields)

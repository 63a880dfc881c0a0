"""The suites for plugin authors catch what they promise to catch."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest
from pydantic import ConfigDict

from knotwork.sdk import Done, Factory, PluginConfig, Route, SecretRef, Unavailable
from knotwork.sdk.testing import (
    DictKeyValue,
    ExecutorContract,
    FakeClock,
    Recorder,
    RecordingStream,
    RouterContract,
    TelemetryContract,
    attempt,
    host,
    make_context,
)


class Config(PluginConfig):
    pass


class Loose(PluginConfig):
    model_config = ConfigDict(extra="allow")


def factory(plugin, config=Config, open_it=None):
    @asynccontextmanager
    async def open_plugin(config, context):
        yield plugin

    return Factory("sample", config, open_it or open_plugin, "Sample.")


def verdicts(suite, made, **given):
    """Run every test of a suite and return the names of those that fail."""
    contract = type("Suite", (suite,), {"factory": made, "timeout_s": 60.0, **given})
    failed = set()
    for name in [name for name in dir(contract) if name.startswith("test_")]:
        try:
            getattr(contract(), name)()
        except (AssertionError, Exception):
            failed.add(name)
    return failed


class Good:
    async def execute(self, attempt):
        if attempt.input == "long":
            await asyncio.sleep(60)
        return Done(attempt.input)


def test_a_good_one_passes():
    assert verdicts(ExecutorContract, factory(Good()), input="x", long_input="long", long_begins_s=0.05) == set()


def test_a_loose_config_is_caught():
    assert verdicts(ExecutorContract, factory(Good(), Loose), input="x") == {"test_config_refuses_what_is_wrong"}


def test_no_outcome_and_no_json_are_caught():
    class NoOutcome:
        async def execute(self, attempt):
            return attempt.input

    class NoJson:
        async def execute(self, attempt):
            return Done({1, 2})

    assert "test_answers_with_an_outcome" in verdicts(ExecutorContract, factory(NoOutcome()), input="x")
    assert verdicts(ExecutorContract, factory(NoJson()), input="x") == {"test_answers_with_an_outcome"}


def test_a_swallowed_cancellation_is_caught():
    class Stubborn(Good):
        async def execute(self, attempt):
            try:
                await asyncio.sleep(0.2)  # long enough to be cancelled
            except asyncio.CancelledError:
                return Done("what cancellation?")
            return Done(1)

    failed = verdicts(ExecutorContract, factory(Stubborn()), input="x", long_input="x", long_begins_s=0.02)
    assert failed == {"test_stops_when_cancelled"}


def test_a_late_end_is_caught():
    class Late(Good):
        async def execute(self, attempt):
            try:
                return await super().execute(attempt)
            finally:
                if attempt.input == "long":
                    await asyncio.sleep(3)  # longer than it may take

    failed = verdicts(ExecutorContract, factory(Late()), input="x", long_input="long", long_begins_s=0.02, cancel_s=0.2)
    assert failed == {"test_stops_when_cancelled"}


def test_processes_and_tasks_left_behind_are_caught(monkeypatch):
    from knotwork.sdk.testing import contract

    monkeypatch.setattr(contract, "LEFT_BEHIND_S", 0.1)
    started = []

    class Litters:
        async def execute(self, attempt):
            started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
            return Done(1)

    tasks = []

    @asynccontextmanager
    async def open_littering(config, context):
        tasks.append(asyncio.get_running_loop().create_task(asyncio.sleep(60)))
        yield Good()

    try:
        assert "test_answers_with_an_outcome" in verdicts(ExecutorContract, factory(Litters()), input="x")
        assert "test_opens_and_closes_again_and_again" in verdicts(
            ExecutorContract, factory(None, open_it=open_littering), input="x"
        )
    finally:
        for child in started:
            child.kill()
            child.wait()


def test_swallowed_errors_are_caught():
    @asynccontextmanager
    async def open_swallowing(config, context):
        with contextlib.suppress(Exception):
            yield Good()

    failed = verdicts(ExecutorContract, factory(None, open_it=open_swallowing), input="x")
    assert failed == {"test_lets_the_error_of_its_user_through"}


def test_a_router_that_makes_things_up_is_caught():
    class Greedy:
        async def route(self, ask, candidates):
            return Route([*candidates, *candidates])

    class Slow:
        async def route(self, ask, candidates):
            time.sleep(0.05 if len(candidates) > 100 else 0)  # too slow, on purpose
            return Route(candidates)

    assert verdicts(RouterContract, factory(Greedy())) == {"test_orders_what_it_was_given"}
    assert verdicts(RouterContract, factory(Slow()), many_s=0.01) == {"test_is_quick_with_many"}


def test_a_sink_that_refuses_is_caught_unless_it_may():
    class Away:
        async def emit(self, records):
            raise Unavailable("nobody there")

    assert "test_takes_every_kind_of_record" in verdicts(TelemetryContract, factory(Away()))
    assert verdicts(TelemetryContract, factory(Away()), loses=True) == set()


async def test_host_gives_a_context_and_cleans_up():
    seen = []

    @asynccontextmanager
    async def open_it(config, context):
        seen.append(context)
        (context.folder / "x").write_text("y")
        yield context

    recorder = Recorder()
    async with host(factory(None, open_it=open_it), emit=recorder, id="mine") as context:
        assert (context.id, context.emit) == ("mine", recorder)
    assert not seen[0].folder.exists()


async def test_host_bounds_the_start():
    @asynccontextmanager
    async def open_it(config, context):
        await asyncio.Event().wait()
        yield

    with pytest.raises(TimeoutError):
        async with host(factory(None, open_it=open_it), start_timeout_s=0.05):
            pass


async def test_the_surroundings_are_as_strict_as_the_node(tmp_path, monkeypatch):
    clock = FakeClock()
    clock.move(2.5)
    assert (clock.monotonic_s(), clock.time_ns()) == (2.5, 1_700_000_002_500_000_000)
    keep = DictKeyValue()
    await keep.put("a", {"b": 1})
    assert await keep.get("a") == {"b": 1}
    with pytest.raises(TypeError):
        await keep.put("a", {1, 2})
    with pytest.raises(ValueError, match="over"):
        await keep.put("a", "x" * 600_000)
    await keep.delete("a")
    assert await keep.get("a") is None
    with pytest.raises(Unavailable):
        await RecordingStream(away=True).publish("spans", b"")
    monkeypatch.setenv("KT_SECRET", "s3")
    (tmp_path / "secret").write_text("s4\nrest")
    context = make_context(folder=tmp_path)
    assert context.secrets(SecretRef(env="KT_SECRET")) == "s3"
    assert context.secrets(SecretRef(file=str(tmp_path / "secret"))) == "s4"
    assert context.secrets(SecretRef(cmd=(sys.executable, "-c", "print('s5')"))) == "s5"
    with pytest.raises(Unavailable):
        context.secrets(SecretRef(env="KT_NO_SUCH_SECRET"))
    assert context.child_env({"A": "1"})["PATH"] == os.environ["PATH"]


def test_attempts_are_numbered():
    first, second = attempt("a"), attempt("b", capability="x")
    assert first.id != second.id
    assert (second.input, second.capability) == ("b", "x")

"""Does a Python function become an agent, async or not, well-behaved or not?"""

import asyncio
import contextvars
import sys
import textwrap
import threading
from typing import Any

import pytest
from pydantic import ValidationError

from knotwork.sdk import Continue, Done, Failed, PluginFailed
from knotwork.sdk.testing import RecordingReporter, attempt, host
from knotwork_plugins.executors.python_function.plugin import FACTORY, PythonConfig

MODULE = """
import asyncio, contextvars, dataclasses, datetime, functools, sys, threading, time
import pydantic
from knotwork.sdk import Continue, Done, Failed, Busy

RELEASE = threading.Event()
STARTED = threading.Event()
ENDED = []

def shout(text): return text.upper()
async def ashout(text): return text.upper()
def nothing(): return 42
def both(given, attempt): attempt.report.progress(50, "half"); return [given, attempt.capability]
async def aboth(given, attempt): attempt.report.progress(50, "half"); return [given, attempt.capability]
def add(a: int, b: int = 1): return a + b
def add_attempt(a, *, attempt): return [a, attempt.id]
def three(a, b, c): pass
def where(_): return threading.current_thread() is threading.main_thread()
def fails(_): raise ValueError("no good")
def refused(_): raise ConnectionRefusedError("later")
def busy(_): raise Busy("full", code="mine.busy", retry_after_s=3)
def leaves(_): sys.exit(3)
async def aleaves(_): sys.exit(3)
async def cancels_itself(_): raise asyncio.CancelledError
def interrupted(_): raise KeyboardInterrupt
def stops(_): raise StopIteration(1)
def failed(_): return Failed("because", code="mine.code", retriable=True)
def again(given): return Continue({"n": given})
async def grouped(_):
    async with asyncio.TaskGroup() as group: group.create_task(asyncio.to_thread(refused, _))
def several(_): raise ExceptionGroup("many", [ValueError("no good"), ExceptionGroup("more", [ConnectionError("later")])])
def busy_group(_): raise ExceptionGroup("one", [Busy("full", code="mine.busy", retry_after_s=3)])
class Mute(Exception):
    def __str__(self): raise RuntimeError
def mute(_): raise Mute
def long(_): raise ValueError("x" * 10_000_000)
def odd(_): return object()
def ring(_): x = []; x.append(x); return x
@dataclasses.dataclass
class Point: x: int; when: datetime.date
class Model(pydantic.BaseModel): y: int
def plain(_): return {"point": Point(1, datetime.date(2030, 1, 2)), "model": Model(y=2), "set": (1, 2), 3: 4}
def count(n):
    for i in range(n): yield i
def count_and_return(n):
    yield 1
    return {"total": n}
async def acount(n):
    try:
        for i in range(n): yield i; await asyncio.sleep(0)
    finally: ENDED.append("acount")
async def adone(_): yield 1; yield Done("end"); yield 2
def broken_generator(_): yield 1; raise ValueError("half way")
def hang(_): STARTED.set(); RELEASE.wait(60); ENDED.append("hang")
async def ahang(_):
    STARTED.set()
    try: await asyncio.sleep(60)
    finally: ENDED.append("ahang")
class Adder:
    def __init__(self, n): self.n = n
    def __call__(self, x): return x + self.n
    async def later(self, x): return x + self.n
add5 = Adder(5)
part = functools.partial(add, b=10)
lazy = lambda text: ashout(text)
VAR = contextvars.ContextVar("VAR", default=None)
def var(_): return VAR.get()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "functions.py"
    path.write_text(textwrap.dedent(MODULE))
    return path


@pytest.fixture
def ask(run, file):
    def call(name: str, given: Any = None, report: Any = None, fields: Any = None, **config: Any) -> Any:
        async def steps():
            async with host(FACTORY, {"function": f"{file}:{name}", **config}) as executor:
                return await executor.execute(attempt(given, report, **(fields or {})))

        return run(steps())

    return call


@pytest.mark.parametrize(
    ("name", "given", "output"),
    [
        ("shout", "hi", "HI"),
        ("ashout", "hi", "HI"),
        ("lazy", "hi", "HI"),
        ("nothing", "hi", 42),
        ("add5", 1, 6),
        ("add5.later", 1, 6),
        ("part", 1, 11),
        ("where", 1, False),
        ("plain", 1, {"point": {"x": 1, "when": "2030-01-02"}, "model": {"y": 2}, "set": [1, 2], "3": 4}),
    ],
)
def test_what_is_returned_is_the_output(ask, name, given, output):
    assert ask(name, given) == Done(output)


@pytest.mark.parametrize("name", ["both", "aboth"])
def test_the_attempt_is_given_and_progress_arrives(ask, name):
    report = RecordingReporter()
    assert ask(name, 1, report, {"capability": "cap"}) == Done([1, "cap"])
    assert report.said == [(50, "half")]


def test_spread_gives_each_key_as_an_argument(ask):
    assert ask("add", {"a": 1, "b": 2}, spread=True) == Done(3)
    assert ask("add_attempt", {"a": 1}, None, {"id": "att"}, spread=True) == Done([1, "att"])
    for bad in ({"a": 1, "c": 2}, {}, [1, 2], None):
        outcome = ask("add", bad, spread=True)
        assert (outcome.code, outcome.retriable) == ("agent.input_invalid", False)


@pytest.mark.parametrize(
    ("name", "code", "retriable", "words"),
    [
        ("fails", "agent.exception", False, "ValueError: no good"),
        ("refused", "agent.exception", True, "later"),
        ("busy", "mine.busy", True, "full"),
        ("leaves", "agent.exception", False, "SystemExit: 3"),
        ("aleaves", "agent.exception", False, "SystemExit: 3"),
        ("cancels_itself", "agent.exception", False, "nobody cancelled"),
        ("interrupted", "agent.exception", False, "KeyboardInterrupt"),
        ("stops", "agent.exception", False, "StopIteration"),
        ("failed", "mine.code", True, "because"),
        ("odd", "agent.output_not_json", False, "object"),
        ("ring", "agent.output_not_json", False, "recursion"),
        ("broken_generator", "agent.exception", False, "half way"),
        ("grouped", "agent.exception", True, "ConnectionRefusedError: later"),
        ("several", "agent.exception", False, "ValueError: no good; ConnectionError: later"),
        ("busy_group", "mine.busy", True, "full"),
        ("mute", "agent.exception", False, "Mute: its text cannot be had"),
    ],
)
def test_failures(ask, name, code, retriable, words):
    outcome = ask(name, 1)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == (code, retriable)
    assert words in outcome.message


def test_of_a_long_text_only_the_beginning_is_told(ask, caplog):
    with caplog.at_level("WARNING"):
        assert len(ask("long").message) <= 2000
    assert len(caplog.text) < 4000


def test_where_an_exception_came_from_is_told(ask, file):
    for name in ("fails", "grouped", "several"):
        assert ask(name).detail["where"].startswith(f"{file}:")


def test_continue_is_kept(ask):
    assert ask("again", 3) == Continue({"n": 3})


@pytest.mark.parametrize(
    ("name", "given", "outcome", "chunks"),
    [
        ("count", 3, Done([0, 1, 2]), [0, 1, 2]),
        ("count", 0, Done([]), []),
        ("acount", 3, Done([0, 1, 2]), [0, 1, 2]),
        ("count_and_return", 7, Done({"total": 7}), [1]),
        ("adone", 1, Done("end"), [1]),
    ],
)
def test_generators_stream(ask, name, given, outcome, chunks):
    report = RecordingReporter()
    assert ask(name, given, report) == outcome
    assert report.chunks == chunks


def test_a_generator_without_end_is_stopped(ask):
    for name in ("count", "acount"):
        assert ask(name, 10**9, chunks_max=50).code == "agent.output_too_large"


def functions(executor: Any) -> Any:
    return sys.modules[executor._loaded.module_name]


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_cancel_interrupts_an_async_function(run, file):
    async def steps():
        async with host(FACTORY, {"function": f"{file}:ahang"}) as executor, asyncio.TaskGroup() as group:
            task = group.create_task(executor.execute(attempt(1)))
            await until(functions(executor).STARTED.is_set)
            task.cancel()
            await asyncio.wait([task], timeout=30)
            assert task.cancelled()
            assert functions(executor).ENDED == ["ahang"]

    run(steps())


def test_a_thread_that_is_given_up_is_counted_refused_over_the_limit_and_used_again(run, file):
    async def steps():
        async with (
            host(FACTORY, {"function": f"{file}:hang", "threads_max": 1}) as executor,
            asyncio.TaskGroup() as group,
        ):
            module = functions(executor)
            task = group.create_task(executor.execute(attempt(1)))
            await until(module.STARTED.is_set)
            task.cancel()
            await asyncio.wait([task], timeout=30)
            assert task.cancelled()
            assert executor.threads.abandoned == 1
            refused = await executor.execute(attempt(2))
            assert (refused.code, refused.retriable) == ("python.threads_taken", True)
            module.RELEASE.set()
            await until(lambda: executor.threads.abandoned == 0)
            assert await executor.execute(attempt(3)) == Done(None)
            assert module.ENDED == ["hang", "hang"]
            assert executor.threads.alive == 1

    run(steps())


def test_threads_run_side_by_side_and_end_with_the_executor(run, file):
    async def steps():
        async with host(FACTORY, {"function": f"{file}:shout"}) as executor:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(executor.execute(attempt(f"a{n}"))) for n in range(30)]
            assert [task.result() for task in tasks] == [Done(f"A{n}") for n in range(30)]
            assert 1 <= executor.threads.alive <= 30
        await until(
            lambda: executor.threads.alive == 0 or not any("python-test" in t.name for t in threading.enumerate())
        )

    run(steps())


def test_context_variables_go_along(run, file):
    async def steps():
        async with host(FACTORY, {"function": f"{file}:var"}) as executor:
            variable: contextvars.ContextVar[Any] = functions(executor).VAR
            variable.set("mine")
            return await executor.execute(attempt(1))

    assert run(steps()) == Done("mine")


def test_a_sync_function_does_not_hold_up_the_loop(run, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import threading\nBEGUN, GO = threading.Event(), threading.Event()\ndef slow(_): BEGUN.set(); return GO.wait(60)\n"
    )

    async def steps():
        async with (
            host(FACTORY, {"function": f"{tmp_path / 'slow.py'}:slow"}) as executor,
            asyncio.TaskGroup() as group,
        ):
            task = group.create_task(executor.execute(attempt()))
            await until(functions(executor).BEGUN.is_set)
            functions(executor).GO.set()  # the loop can do that only while it is not held up
            assert await task == Done(True)

    run(steps())


def test_a_file_is_loaded_anew_and_leaves_no_module_behind(run, tmp_path):
    path = tmp_path / "mine.py"
    before = set(sys.modules)

    async def steps(source: str):
        path.write_text(source)
        async with host(FACTORY, {"function": f"{path}:f"}) as executor:
            return await executor.execute(attempt())

    assert run(steps("def f(_): return 'one'")) == Done("one")
    assert run(steps("def f(_): return 'other one'")) == Done("other one")
    assert not {name for name in set(sys.modules) - before if "mine" in name}


def test_a_module_by_name_and_path(run, tmp_path):
    (tmp_path / "knot_test_pkg_a").mkdir()
    (tmp_path / "knot_test_pkg_a" / "inner.py").write_text("class C:\n  @staticmethod\n  def f(x): return [x]\n")

    async def steps():
        async with host(FACTORY, {"function": "knot_test_pkg_a.inner:C.f", "path": [str(tmp_path)]}) as executor:
            return await executor.execute(attempt(1))

    assert run(steps()) == Done([1])
    sys.path.remove(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("raise RuntimeError('at import')", "python.import_failed"),
        ("import sys; sys.exit(1)", "python.import_failed"),
        ("def f(:", "python.import_failed"),
        ("x = 1", "python.no_function"),
        ("f = 1", "python.no_function"),
        ("def f(a, b, c): pass", "python.wrong_signature"),
        ("def f(a, *, b): pass", "python.wrong_signature"),
    ],
)
def test_what_cannot_be_called_is_said_when_opening(run, tmp_path, source, code):
    (tmp_path / "bad.py").write_text(source)

    async def steps():
        async with host(FACTORY, {"function": f"{tmp_path / 'bad.py'}:f"}):
            pass

    with pytest.raises(PluginFailed) as caught:
        run(steps())
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize("function", ["no_such_module_at_all:f", "./no/such/file.py:f"])
def test_what_is_not_there_is_said_when_opening(run, function):
    async def steps():
        async with host(FACTORY, {"function": function}):
            pass

    with pytest.raises(PluginFailed):
        run(steps())


@pytest.mark.parametrize(
    "table", [{}, {"function": ""}, {"function": "os"}, {"function": "os:"}, {"function": "os:a b"}]
)
def test_bad_configs_are_refused(table):
    with pytest.raises(ValidationError):
        PythonConfig.model_validate(table)

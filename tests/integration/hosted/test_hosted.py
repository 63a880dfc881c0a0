"""The same class runs in process or in a process of its own; what happens there stays there."""

import asyncio
import functools
import logging
from pathlib import Path

import psutil
import pytest

from knotwork.bus import child as bus_child
from knotwork.sdk import (
    Ask,
    Candidate,
    ConfigInvalid,
    Continue,
    Done,
    Event,
    Factory,
    Failed,
    Metric,
    PluginFailed,
    Span,
    TooLarge,
    Unavailable,
)
from knotwork.sdk.testing import (
    DictKeyValue,
    ExecutorContract,
    Recorder,
    RecordingReporter,
    RecordingStream,
    RouterContract,
    TelemetryContract,
    attempt,
    host,
)
from knotwork.sockets import catalog, hosted, loading, scaffold

HERE = Path(__file__).parent
MIB = 1024 * 1024


@functools.cache  # what was found never changes, and finding it starts a process
def found(kind):
    settings = catalog.CatalogSettings(files=("./hosted_plugin.py",), base=HERE, group="knotwork-tests", patience_s=60)
    return loading.load(settings).find(kind, "./hosted_plugin.py")


def apart(kind="executors", memory_mb=0, hosting=None):
    return hosted.wrap(found(kind), memory_mb, hosting or hosted.Hosting())


class Apart:
    """The factory of a contract, had when a test asks for it and not when tests are collected."""

    def __init__(self, kind="executors"):
        self.kind = kind

    def __get__(self, instance, owner=None):
        return apart(self.kind)


@pytest.fixture(autouse=True)
def _nothing_is_left():
    before = {child.pid for child in psutil.Process().children()}
    yield
    left = [child for child in psutil.Process().children() if child.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []


async def test_answers_and_errors_come_back_whole():
    async with host(apart()) as sample:
        assert await sample.execute(attempt(["echo", {"ü": [None, 1.5, "\n"]}])) == Done({"ü": [None, 1.5, "\n"]})
        assert await sample.execute(attempt(["continue"])) == Continue(1)
        assert await sample.execute(attempt(["fail"])) == Failed(
            "no", "sample.no", retriable=True, retry_after_s=1.5, detail={"a": [1]}
        )
        whole = await sample.execute(attempt(["whole"], id="att_x", labels={"a": "b"}, deadline_s=2.5))
        assert whole == Done({"id": "att_x", "labels": {"a": "b"}, "deadline_s": 2.5})
        with pytest.raises(Unavailable) as later:
            await sample.execute(attempt(["busy"]))
        assert (later.value.code, later.value.retry_after_s) == ("sample.later", 2.0)
        for wrong, told in (
            ("raise", "ValueError: boom"),
            ("exit", "SystemExit: 7"),
            ("odd", "TypeError: answered int, not an outcome: return Done, Failed or Continue"),
        ):
            assert await sample.execute(attempt([wrong])) == Failed(told, "agent.crashed", retriable=True)
        assert (await sample.execute(attempt(["no_json"]))).code == "agent.bad_output"
        assert await sample.execute(attempt(["echo", 1])) == Done(1)


async def test_progress_and_chunks_come_in_order():
    report = RecordingReporter()
    async with host(apart()) as sample:
        await sample.execute(attempt(["report"], report))
    assert report.chunks == [{"n": number} for number in range(20)]
    assert report.said == [(number * 5, "on") for number in range(20)]


async def test_many_at_once():
    async with host(apart()) as sample, asyncio.TaskGroup() as group:
        calls = [group.create_task(sample.execute(attempt(["echo", number]))) for number in range(500)]
    assert [call.result().output for call in calls] == list(range(500))


async def test_the_context_works_from_there(tmp_path, caplog):
    (tmp_path / "key").write_text("s3cret\n")
    recorder, stream = Recorder(), RecordingStream()
    parts = {"emit": recorder, "stream": stream, "keep": DictKeyValue(), "log": logging.getLogger("kt.hosted")}
    with caplog.at_level(logging.INFO):
        async with host(apart(), {"key": {"file": str(tmp_path / "key")}}, **parts) as sample:
            outcome = await sample.execute(attempt(["context"]))
    env = outcome.output.pop("env")
    assert outcome.output == {"got": {"v": 1}, "gone": None, "secret": "s3cret"}
    assert {"EXTRA", "PATH", bus_child.WARD} <= set(env)
    assert recorder.records == [Event("sample.seen", 5, data={"x": 1})]
    assert stream.published == [("spans", bytes(range(256)))]
    assert ("kt.hosted", logging.WARNING, "executors test: a warning") in caplog.record_tuples


async def test_a_router_and_a_sink_run_there_too():
    candidates = [Candidate("n", name, frozenset({"c"})) for name in "ab"]
    async with host(apart("routers")) as router:
        route = await router.route(Ask(capability="c"), candidates)
    assert [one.agent for one in route.candidates] == ["b", "a"]
    assert (route.refused, route.reason) == ({"n/x": "because"}, "c")
    recorder = Recorder()
    records = [Event("e", 1), Span("s", "1" * 32, "2" * 16, "", 1, 2), Metric("m", 1.5, "gauge", {"a": "b"})]
    async with host(apart("telemetry"), emit=recorder) as sink:
        await sink.emit(records)
        with pytest.raises(PluginFailed):
            await sink.emit([])
        await sink.probe()
        assert sink.wants == {"events", "spans", "metrics"}
    assert recorder.records == records


async def test_what_is_wrong_with_its_table_is_said():
    sample = found("executors")
    unjudged = Factory("sample", catalog.AnyConfig, sample.factory.open)
    unseen = catalog.Entry("executors", "sample", unjudged, sample.source, hosted_only=True)
    with pytest.raises(ConfigInvalid) as raised:
        async with host(hosted.wrap(unseen, 0, hosted.Hosting()), {"nope": 1, "start": 2}):
            pass
    assert [problem["key"] for problem in raised.value.detail["problems"]] == ["start", "nope"]


@pytest.mark.parametrize(
    ("start", "error", "code"),
    [
        ("raises", PluginFailed, "plugin.raised"),
        ("unavailable", Unavailable, "sample.not_yet"),
        ("unwell", Unavailable, "node.unavailable"),
        ("dies", PluginFailed, "plugin.crashed"),
    ],
)
async def test_a_failed_start_says_why(start, error, code):
    with pytest.raises(error) as raised:
        async with host(apart(), {"start": start}):
            pass
    assert raised.value.code == code


@pytest.mark.parametrize("start", ["hangs", "blocks"])
async def test_a_start_that_hangs_is_ended(start):
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            async with host(apart(), {"start": start}, start_timeout_s=0.8):
                pass


async def test_a_cancelled_call_is_ended_there(tmp_path):
    async with host(apart(), folder=tmp_path) as sample:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(sample.execute(attempt(["sleep", "mark"])))
            async with asyncio.timeout(30):
                while not (tmp_path / "mark").exists():
                    await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call], timeout=30)
        assert call.cancelled()
        assert (tmp_path / "mark").read_text() == "ended"
        assert await sample.execute(attempt(["echo", 1])) == Done(1)


async def test_frames_over_the_limit_are_refused_and_harm_nobody():
    async with host(apart()) as sample:
        with pytest.raises(TooLarge):
            await sample.execute(attempt(["echo", "x" * 17 * MIB]))
        with pytest.raises(TooLarge):
            await sample.execute(attempt(["big", 17 * MIB]))
        assert len((await sample.execute(attempt(["big", 8 * MIB]))).output) == 8 * MIB


async def test_closing_ends_what_it_started():
    async with host(apart()) as sample:
        pid = (await sample.execute(attempt(["child"]))).output
        assert psutil.pid_exists(pid)
    async with asyncio.timeout(30):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def test_a_command_that_is_none_is_said():
    hosting = hosted.Hosting(command=("/no/such/program",))
    with pytest.raises(PluginFailed) as raised:
        async with host(apart(hosting=hosting)):
            pass
    assert raised.value.code == "plugin.spawn_failed"


class TestExecutorHosted(ExecutorContract):
    factory = Apart()
    input = ("echo", "x")
    long_input = ("sleep", "mark")

    def attempt(self, *given, **more):
        return super().attempt(
            *(list(one) if isinstance(one, tuple) else one for one in given or (self.input,)), **more
        )


class TestRouterHosted(RouterContract):
    factory = Apart("routers")
    many_s = 5.0  # to another process and back


class TestTelemetryHosted(TelemetryContract):
    factory = Apart("telemetry")
    loses = True  # this one refuses an empty batch


async def test_a_folder_with_packages_of_its_own(tmp_path):
    folder = tmp_path / "plugins" / "mine"
    scaffold.write("executor", "mine", folder)
    (folder / "vendor" / "kt_vendored").mkdir(parents=True)
    (folder / "vendor" / "kt_vendored" / "__init__.py").write_text("WORD = 'vendored'")
    (folder / "helper_of_mine.py").write_text("import kt_vendored\nWORD = kt_vendored.WORD")
    text = (folder / "mine.py").read_text()
    text = text.replace("knotwork_api = 1", "import helper_of_mine\n\nknotwork_api = 1").replace(
        "{attempt.input}", "{helper_of_mine.WORD}"
    )
    (folder / "mine.py").write_text(text)
    (folder / "plugin.toml").write_text((folder / "plugin.toml").read_text() + 'dependencies = ["kt_vendored"]\n')
    settings = catalog.CatalogSettings(
        folders=(tmp_path / "plugins",), base=tmp_path, group="knotwork-tests", patience_s=60
    )
    mine = loading.load(settings).find("executors", "mine")
    assert mine.hosted_only
    async with host(hosted.wrap(mine, 0, hosted.Hosting()), {"greeting": "hi"}) as sample:
        assert await sample.execute(attempt("x")) == Done({"text": "hi vendored"})

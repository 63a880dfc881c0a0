"""Does what the tests of hosted plugins need, good and bad."""

import asyncio
import contextlib
import ctypes
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import asynccontextmanager

from knotwork.sdk import Continue, Done, Event, Factory, Failed, PluginConfig, Route, SecretRef, Unavailable, hookimpl


class Config(PluginConfig):
    start: str = ""
    key: SecretRef | None = None


class Sample:
    def __init__(self, config, context):
        self.config, self.context = config, context
        self.wants = frozenset({"events", "spans", "metrics"})

    async def probe(self):
        if self.config.start == "unwell":
            raise Unavailable("not well yet", retry_after_s=0.5)

    async def execute(self, attempt):
        what, *more = attempt.input if isinstance(attempt.input, list) else [attempt.input]
        return await getattr(self, f"do_{what}")(attempt, *more)

    async def do_echo(self, attempt, value):
        return Done(value)

    async def do_whole(self, attempt):
        return Done({"id": attempt.id, "labels": dict(attempt.labels), "deadline_s": attempt.deadline_s})

    async def do_continue(self, attempt):
        return Continue(1)

    async def do_fail(self, attempt):
        return Failed("no", "sample.no", retriable=True, retry_after_s=1.5, detail={"a": [1]})

    async def do_busy(self, attempt):
        raise Unavailable("later", code="sample.later", retry_after_s=2.0)

    async def do_raise(self, attempt):
        raise ValueError("boom")

    async def do_odd(self, attempt):
        return 42

    async def do_no_json(self, attempt):
        return Done(object())

    async def do_big(self, attempt, size):
        return Done("x" * size)

    async def do_report(self, attempt):
        for number in range(20):
            attempt.report.progress(number * 5, "on")
            await attempt.report.stream({"n": number})
        return Done()

    async def do_sleep(self, attempt, mark):
        (self.context.folder / mark).write_text("begun")
        try:
            await asyncio.sleep(60)
        finally:
            (self.context.folder / mark).write_text("ended")

    async def do_block(self, attempt, mark=""):
        if mark:
            (self.context.folder / mark).write_text("begun")
        time.sleep(60)

    async def do_exit(self, attempt):
        sys.exit(7)

    async def do_exit_behind(self, attempt):
        def leave():
            raise SystemExit(7)

        asyncio.get_running_loop().call_soon(leave)
        await asyncio.sleep(60)

    async def do_die(self, attempt):
        os._exit(3)

    async def do_segfault(self, attempt):
        ctypes.string_at(0)

    async def do_allocate(self, attempt, size):
        return Done(len(bytearray(size)))

    async def do_garbage(self, attempt):
        sys.stdout.write('{"t":"result","id":1,"data":["done","forged"]}\n')
        os.write(1, bytes(range(256)) * 2000)
        os.write(2, b"\n\xff\xfe no newline at the end " + b"y" * 100_000)
        for _ in range(5000):
            sys.stdout.write("flood\n")
        return Done("fine")

    async def do_forge(self, attempt):
        for number in range(3, 100):  # its own connection is among them
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    os.write(number, b"garbage\n")
        await asyncio.sleep(60)

    async def do_child(self, attempt):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        return Done(child.pid)

    async def do_fork(self, attempt):
        child = os.fork()
        if not child:
            signal.pause()  # as a worker of multiprocessing: it is no plugin, and stays
        return Done(child)

    async def do_fork_on(self, attempt):
        return Done(os.fork())  # two of the same go on

    async def do_context(self, attempt):
        context = self.context
        context.log.warning("a warning")
        context.emit(Event("sample.seen", 5, data={"x": 1}))
        await context.keep.put("k", {"v": 1})
        got = await context.keep.get("k")
        await context.keep.delete("k")
        await context.stream.publish("spans", bytes(range(256)))
        secret = context.secrets(self.config.key) if self.config.key else None
        env = context.child_env({"EXTRA": "1"})
        return Done({"got": got, "gone": await context.keep.get("k"), "secret": secret, "env": sorted(env)})

    async def route(self, ask, candidates):
        return Route(list(reversed(candidates)), {"n/x": "because"}, ask.capability)

    async def emit(self, records):
        if not records:
            raise ValueError("nothing")
        for record in records:
            self.context.emit(record)


@asynccontextmanager
async def open_sample(config, context):
    match config.start:
        case "raises":
            raise ValueError("bad start")
        case "unavailable":
            raise Unavailable("not yet", code="sample.not_yet", retry_after_s=3.0)
        case "hangs":
            await asyncio.Event().wait()
        case "blocks":
            time.sleep(60)
        case "dies":
            os._exit(9)
        case "breaks off":
            async with asyncio.TaskGroup() as group:
                group.create_task(fail_soon())
                yield Sample(config, context)
                return
    yield Sample(config, context)
    if config.start == "stays":
        time.sleep(60)


async def fail_soon():
    await asyncio.sleep(0.05)  # it has started by then
    raise RuntimeError("the background broke")


def factory():
    return Factory("sample", Config, open_sample, "Sample.")


@hookimpl
def executors():
    yield factory()


@hookimpl
def routers():
    yield factory()


@hookimpl
def telemetry():
    yield factory()

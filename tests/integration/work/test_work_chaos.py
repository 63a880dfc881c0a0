"""Everything is killed again and again while tasks run: each acknowledged one ends exactly once, none is lost.

The short version strikes for `KNOTWORK_CHAOS_S` seconds, 60 by default. Both are slow:
`python -m pytest -n0 -m slow tests/integration/work/test_work_chaos.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.integration.work.conftest import Bench

from knotwork.bus import reading, subjects
from knotwork.sdk.errors import KnotworkError
from knotwork.view import archive
from knotwork.work import fold, records

LEASE_S = 2.0
WORKERS = 2


class Chaos:
    """Kills at random, and counts."""

    def __init__(self, bench: Bench, folder: Path, seed: int) -> None:
        self.bench, self.folder = bench, folder
        self.chance = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.acked = folder / "acknowledged"
        self.workers: list[asyncio.subprocess.Process] = []
        self.submitter: asyncio.subprocess.Process | None = None
        self.started = 0

    async def start_worker(self) -> None:
        while True:  # a node that finds no server says so and ends; it is started again, as a service would be
            self.started += 1
            view = self.folder / f"view{self.started}"
            with contextlib.suppress(AssertionError):
                worker = self.bench.worker(f"worker{self.started}", LEASE_S, view=str(view), do={"concurrency": 30})
                self.workers.append(await worker)
                return

    async def start_submitter(self, seconds: float) -> None:
        told = {
            "url": self.bench.url, "seed": self.bench.seed, "file": str(self.acked), "seconds": seconds, "at_once": 40
        }  # fmt: skip
        program = Path(__file__).with_name("submit_node.py")
        while True:  # likewise
            self.submitter = await asyncio.create_subprocess_exec(
                sys.executable, str(program), json.dumps(told), stdout=asyncio.subprocess.PIPE, start_new_session=True
            )
            self.bench.processes.append(self.submitter)
            if await self.submitter.stdout.readline() == b"ready\n":
                return

    async def strike(self, left_s: float) -> None:
        """Kill or freeze something, and start it again."""
        what = self.chance.choices(["worker", "freeze", "server", "submitter", "all"], [8, 3, 6, 3, 1])[0]
        self.kills[what] += 1
        if what in ("worker", "all"):
            await self.kill(self.workers.pop(self.chance.randrange(len(self.workers))))
        if what in ("server", "all"):
            with contextlib.suppress(ProcessLookupError):
                await self.bench.kill_server()
        if what in ("submitter", "all"):
            await self.kill(self.submitter)
            await self.start_submitter(left_s)
        if what == "freeze":
            await self.freeze(self.chance.choice(self.workers))
        while len(self.workers) < WORKERS:
            await self.start_worker()

    @staticmethod
    async def kill(process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def freeze(self, process: asyncio.subprocess.Process) -> None:
        """Stop a worker for longer than its lease."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
            await asyncio.sleep(LEASE_S * 1.5)  # the fault itself: it lasts as long as this
            os.kill(process.pid, signal.SIGCONT)

    def acknowledged(self) -> list[str]:
        text = self.acked.read_text() if self.acked.exists() else ""
        whole, _, _ = text.rpartition("\n")  # a line that was being written when it was killed counts for nobody
        return [line for line in whole.split("\n") if records.is_run(line)]


async def outcomes(connection: Any) -> dict[str, list[records.Outcome]]:
    """Return every outcome on record by run, in FACTS and in ARCHIVE, each subject once."""
    by_subject: dict[str, bytes] = {}
    for stream, pattern in ((subjects.ARCHIVE, "ended.>"), (subjects.FACTS, "run.*.*.outcome.>")):
        place = 1
        while found := await reading.batch(connection, stream, pattern, place, 500, timeout_s=30):
            place = found[-1].seq + 1
            for stored in found:
                if stream == subjects.FACTS:
                    assert by_subject.setdefault(stored.subject, stored.data) == stored.data, "recorded twice"
                    continue
                for packed in archive.unpack(stored.data):
                    assert by_subject.setdefault(packed.s, bytes(packed.d)) == bytes(packed.d), "recorded twice"
    ended: dict[str, list[records.Outcome]] = {}
    for subject, data in by_subject.items():
        at = fold.outcome_at(subject, data)
        assert at is not None
        ended.setdefault(subject.split(".")[2], []).append(at[1])
    return ended


async def chaos(bench: Bench, folder: Path, *, seconds: float, kills: int, tasks: int) -> None:
    """Strike for `seconds`, and until there were so many kills and tasks; then every acknowledged task must end once."""
    seed = int(os.environ.get("KNOTWORK_CHAOS_SEED", "0")) or random.randrange(1, 10**6)
    here = await bench.room("checker", LEASE_S)
    run = Chaos(bench, folder, seed)
    limit_s = 10 * seconds + 600
    for _ in range(WORKERS):
        await run.start_worker()
    await run.start_submitter(limit_s)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s or sum(run.kills.values()) < kills or len(run.acknowledged()) < tasks:
        await asyncio.sleep(run.chance.uniform(0.2, 1.0))  # faults come at any time
        await run.strike(limit_s)
    await run.kill(run.submitter)
    acknowledged = run.acknowledged()
    assert len(acknowledged) == len(set(acknowledged)) > 0
    told = f"seed {seed}: {len(acknowledged)} tasks, kills {dict(run.kills)}"

    async with asyncio.timeout(150):
        left = set(acknowledged)
        while left:
            with contextlib.suppress(KnotworkError):
                ended = await outcomes(here._connection)
                left = {one for one in left if not any(end.state in records.FINAL for end in ended.get(one, ()))}
            await asyncio.sleep(0.5)  # a pause between two looks
    ended = await outcomes(here._connection)
    for one in acknowledged:
        finals = [end for end in ended[one] if end.state in records.FINAL]
        assert len(finals) == 1, f"{one} ended {len(finals)} times; {told}"
    states = Counter(end.state for one in acknowledged for end in ended[one])
    sys.stderr.write(f"chaos: {told}, ends {dict(states)}\n")


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_acknowledged_task_ends_exactly_once_whatever_is_killed(bench, tmp_path):
    await chaos(bench, tmp_path, seconds=float(os.environ.get("KNOTWORK_CHAOS_S", "60")), kills=20, tasks=500)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_two_hundred_kills_and_twenty_thousand_tasks(bench, tmp_path):
    await chaos(bench, tmp_path, seconds=60, kills=200, tasks=20_000)

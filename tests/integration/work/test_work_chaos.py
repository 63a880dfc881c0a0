"""Everything is killed again and again while tasks run: each acknowledged one ends exactly once, none is lost.

The short version strikes for `KNOTWORK_CHAOS_S` seconds, 40 by default. The long one is slow:
`python -m pytest -n0 -m slow tests/integration/work/test_work_chaos.py`. A failure tells its seed (`KNOTWORK_CHAOS_SEED`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from tests.integration.work.conftest import ROOT, Bench

from knotwork.bus import patterns, reading, subjects
from knotwork.bus.connection import Connection
from knotwork.sdk.errors import KnotworkError
from knotwork.view import archive
from knotwork.work import fold, records

LEASE_S = 2.0
WORKERS = 2
PER_S = float(os.environ.get("KNOTWORK_CHAOS_PER_S", "60"))
"""Tasks submitted in a second: what is found out is how they end, not how many there can be."""
PATIENCE_S = 90.0
"""How long the last tasks may take after the last strike, on a machine that has other things to do."""


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
            with contextlib.suppress(AssertionError, TimeoutError):
                worker = self.bench.worker(f"worker{self.started}", LEASE_S, view=str(view), do={"concurrency": 30})
                self.workers.append(await worker)
                return

    async def start_submitter(self, seconds: float) -> None:
        told = {
            "url": self.bench.url, "seed": self.bench.seed, "file": str(self.acked), "seconds": seconds, "at_once": 40,
            "per_s": PER_S,
        }  # fmt: skip
        while True:  # likewise
            self.submitter = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.work.submit_node",
                json.dumps(told),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
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


class Ledger:
    """Every outcome on record, in FACTS and in ARCHIVE, read on from where it was read up to.

    It remembers what FACTS has forgotten since: an outcome that is recorded anew in the place of one that was packed
    away is noticed, even when both say the same.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.read_to = {subjects.FACTS: 0, subjects.ARCHIVE: 0}
        self.places: dict[str, tuple[int, bytes]] = {}
        self.ends: dict[str, list[str]] = {}

    async def read_on(self) -> None:
        """Read what was recorded since; FACTS first, so that what moves meanwhile is found in ARCHIVE."""
        for stream, pattern in ((subjects.FACTS, "run.*.*.outcome.>"), (subjects.ARCHIVE, "ended.>")):
            while found := await reading.batch(self.connection, stream, pattern, self.read_to[stream] + 1, 500):
                for stored in found:
                    if stream == subjects.FACTS:
                        self.note(stored.subject, stored.seq, stored.data)
                        continue
                    for packed in archive.unpack(stored.data):
                        self.note(packed.s, packed.q, bytes(packed.d))
                self.read_to[stream] = found[-1].seq

    def note(self, subject: str, place: int, data: bytes) -> None:
        """Take note of one outcome; found in both streams, it is the same message of FACTS."""
        found = place, hashlib.sha256(data).digest()
        before = self.places.get(subject)
        if before is not None:
            assert before == found, f"{subject} was recorded twice: at {before[0]} and at {place}"
            return
        at = fold.outcome_at(subject, data)
        assert at is not None, f"{subject} holds no outcome of that task"
        self.places[subject] = found
        self.ends.setdefault(subject.split(".")[2], []).append(at[1].state)

    def open_of(self, runs: Iterable[str]) -> list[str]:
        """Return those of the runs that have not ended."""
        return [run for run in runs if not records.FINAL.intersection(self.ends.get(run, ()))]

    async def read_until_ended(self, runs: Sequence[str], patience_s: float) -> None:
        """Read on until every run has ended; when one does not, the test fails and says where it is."""
        left = list(runs)
        try:
            async with asyncio.timeout(patience_s):
                while left:
                    with contextlib.suppress(KnotworkError):  # the server comes back
                        await self.read_on()
                        left = self.open_of(left)
                    await asyncio.sleep(0.2)  # a pause between two looks
        except TimeoutError:
            where = [f"{run}: ends {self.ends.get(run)}, {await self.where(run)}" for run in left[:10]]
            pytest.fail(f"{len(left)} tasks have not ended after {patience_s:g} s: " + "; ".join(where))

    async def where(self, run: str) -> list[str]:
        """Return every message there is of a run."""
        places = {
            subjects.TASKS: patterns.tasks_of(run), subjects.FACTS: f"run.*.{run}.>",
            subjects.TIMERS: f"*.*.{run}.>", subjects.DEAD: patterns.dead_of(run),
        }  # fmt: skip
        found = []
        for stream, pattern in places.items():
            found += [one.subject for one in await reading.batch(self.connection, stream, pattern, 1, 50)]
        return found


async def chaos(bench: Bench, folder: Path, *, seconds: float, kills: int, tasks: int) -> None:
    """Strike for `seconds`, and until there were so many kills and tasks; then every acknowledged task must end once."""
    seed = int(os.environ.get("KNOTWORK_CHAOS_SEED", "0")) or random.randrange(1, 10**6)
    here = await bench.room("checker", LEASE_S)
    run, ledger = Chaos(bench, folder, seed), Ledger(here._connection)
    limit_s = 10 * seconds + 3600
    for _ in range(WORKERS):
        await run.start_worker()
    await run.start_submitter(limit_s)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s or sum(run.kills.values()) < kills or len(run.acknowledged()) < tasks:
        await asyncio.sleep(run.chance.uniform(0.2, 1.0))  # faults come at any time
        await run.strike(limit_s)
        with contextlib.suppress(KnotworkError):  # it was struck: what cannot be read now is read later
            await ledger.read_on()
    await run.kill(run.submitter)
    acknowledged = run.acknowledged()
    assert len(acknowledged) == len(set(acknowledged)) > 0
    told = f"seed {seed}: {len(acknowledged)} tasks, kills {dict(run.kills)}"

    began_s = time.monotonic()
    await ledger.read_until_ended(acknowledged, PATIENCE_S)
    took_s = time.monotonic() - began_s
    await asyncio.sleep(2 * LEASE_S)  # whoever was frozen, or holds a task a second time, has spoken by then
    await ledger.read_until_ended(acknowledged, PATIENCE_S)
    for one in acknowledged:
        finals = [state for state in ledger.ends[one] if state in records.FINAL]
        assert len(finals) == 1, f"{one} ended {len(finals)} times; {told}"
    states = Counter(state for one in acknowledged for state in ledger.ends[one])
    sys.stderr.write(f"chaos: {told}, ends {dict(states)}, the last {took_s:.1f} s after the last strike\n")


@pytest.mark.timeout(600)  # it takes one; every wait within is bounded, and long for a machine that is busy
async def test_every_acknowledged_task_ends_exactly_once_whatever_is_killed(bench, tmp_path):
    seconds = float(os.environ.get("KNOTWORK_CHAOS_S", "40"))
    await chaos(bench, tmp_path, seconds=seconds, kills=10, tasks=500)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_two_hundred_kills_and_twenty_thousand_tasks(bench, tmp_path):
    await chaos(bench, tmp_path, seconds=60, kills=200, tasks=20_000)

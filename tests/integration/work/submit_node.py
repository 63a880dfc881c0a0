"""A submitter in a process of its own: stores about `per_s` random tasks a second, and writes down what was acknowledged.

`python submit_node.py '{…}'`: a line `<run>` is written (and synced) to the file only after the task was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from tests.integration.work import work_node

from knotwork.sdk.errors import KnotworkError
from knotwork.work import ids, records


def script(chance: random.Random) -> tuple[Any, records.Retry]:
    """Return what one task does, and how it is tried again."""
    retry = records.Retry(max_attempts=5, delay_s=0.05, max_crashes=1000)
    dice = chance.random()
    if dice < 0.05:
        return {"sleep": chance.uniform(0.05, 1.0)}, retry
    if dice < 0.10:
        return {"fail": {"message": "not yet", "retriable": True}, "fail_until": 3}, retry
    if dice < 0.12:
        return {"fail": {"message": "never"}}, retry
    if dice < 0.15:
        return {"loops": 3}, retry
    return {}, retry


async def main(url: str, seed: str, file: str, seconds: float, at_once: int, per_s: float) -> None:
    """Submit until the time is over or we are killed."""
    chance = random.Random()
    end_s = time.monotonic() + seconds
    with Path(file).open("a") as log:
        async with work_node.open_node(url, seed, f"submitter{os.getpid()}", {}) as work:
            print("ready", flush=True)  # noqa: T201  what the test waits for

            async def submit() -> None:
                while time.monotonic() < end_s:
                    value, retry = script(chance)
                    task = records.Task(
                        run=ids.new_run(), queue="do", capability="do", retry=retry, submitted_ns=time.time_ns(),
                        input=msgspec.Raw(json.dumps(value).encode()), priority=chance.randint(1, 10),
                    )  # fmt: skip
                    try:
                        await work.submitter.submit(task)
                    except KnotworkError:
                        await asyncio.sleep(0.05)  # not acknowledged: whether it is stored or not, nobody counts on it
                        continue
                    log.write(f"{task.run}\n")
                    log.flush()
                    await asyncio.sleep(chance.uniform(0, 2 * at_once / per_s))  # so many a second, all together

            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(submit())


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))

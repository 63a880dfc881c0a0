"""Three nodes are killed again and again while workflows of many kinds run: every run ends as it must, once.

The short version strikes for 20 s, the long one for three minutes:
`python -m pytest -n0 -m slow tests/integration/flow/test_flow_chaos.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from typing import Any

import pytest
from tests.integration.flow.conftest import Flows, define, start

from knotwork.flow import history
from knotwork.sdk.errors import KnotworkError

LEASE_S = 2.0
DO = {"do": {"concurrency": 20}}


def workflows() -> dict[str, dict[str, Any]]:
    """Return workflows of many kinds, each with what it must give for an input."""
    step = {"capability": "do"}
    return {
        "chain": {"steps": {f"s{n}": {**step, "depends_on": [f"s{n - 1}"] if n else []} for n in range(4)}},
        "fan": {
            "steps": {
                "a": step,
                **{f"f{n}": {**step, "depends_on": ["a"], "input": f"[input, `{n}`]"} for n in range(5)},
                "z": {"kind": "join", "depends_on": [f"f{n}" for n in range(5)]},
            },
            "output": "steps.z.output.f3",
        },
        "map": {"steps": {"m": {**step, "kind": "map", "items": "[input, input, input]", "parallelism": 2}}},
        "nap": {"steps": {"n": {"kind": "sleep", "duration": "700ms"}, "s": {**step, "depends_on": ["n"]}}},
        "child": {"steps": {"c": {"kind": "workflow", "workflow": "chain"}, "s": {**step, "depends_on": ["c"]}}},
        "tries": {
            "steps": {"t": {**step, "input": {"fail": "{message: 'again', retriable: `true`}", "fail_until": "`2`", "n": "input"}}},
            "retry": {"max_attempts": 5, "delay": "100ms"}, "output": "steps.t.output.n",
        },
        "saga": {
            "steps": {
                "one": {**step, "compensate": "undo"},
                "two": {**step, "depends_on": ["one"], "input": {"fail": "{message: 'no'}"}},
                "undo": step,
            },
        },
        "wait": {"steps": {"w": {"kind": "wait_for_signal", "signal": "go"}, "s": {**step, "depends_on": ["w"]}}},
    }  # fmt: skip


EXPECTED = {
    "chain": lambda n: n, "fan": lambda n: [n, 3], "map": lambda n: [n, n, n], "nap": lambda n: n, "child": lambda n: n,
    "tries": lambda n: n, "wait": lambda n: n,
}  # fmt: skip


async def strike(flows: Flows, nodes: list[Any], names: Any, chance: random.Random, kills: Counter[str]) -> None:
    what = chance.choices(["node", "server"], [3, 1])[0]
    kills[what] += 1
    if what == "server":
        await flows.bench.kill_server()
    else:
        victim = nodes.pop(chance.randrange(len(nodes)))
        with contextlib.suppress(ProcessLookupError):
            victim.kill()
        await victim.wait()
    while len(nodes) < 3:
        with contextlib.suppress(AssertionError):  # it found no server: as a service would, it is started again
            nodes.append(await flows.process(f"node{next(names)}", LEASE_S, **DO))


async def chaos(flows: Flows, seconds: float, count: int) -> None:
    """Start `count` runs and strike for so long; then every run must have ended as it must."""
    seed = random.randrange(10**6)
    chance, kills = random.Random(seed), Counter()
    names = iter(range(10**6))
    nodes = [await flows.process(f"node{next(names)}", LEASE_S, **DO) for _ in range(3)]
    here = await flows.here("observer")  # it starts runs and looks after some, but does no work
    for name, one in workflows().items():
        await define(here, name=name, **one)
    runs: dict[str, tuple[str, int]] = {}
    end_s = time.monotonic() + seconds

    async def starter() -> None:
        for number in range(count):
            kind = chance.choice(sorted(workflows()))
            key = f"{seed}-{number}"
            while True:  # with a key it is one run, however often it is asked for
                with contextlib.suppress(KnotworkError):
                    run = await start(here, number, kind, key=key)
                    if kind == "wait":
                        await here.runs.signal(run, "go", str(number).encode(), key="once")
                    break
                await asyncio.sleep(0.1)  # NATS is away: what a caller does
            runs[run] = (kind, number)
            await asyncio.sleep(max(0.0, (end_s - time.monotonic()) / max(1, count - number)))  # spread over the time

    async with asyncio.TaskGroup() as group:
        starting = group.create_task(starter())
        while time.monotonic() < end_s:
            await asyncio.sleep(chance.uniform(0.5, 2.0))  # faults come at any time
            await strike(flows, nodes, names, chance, kills)
        await starting
    told = f"seed {seed}, {len(runs)} runs, kills {dict(kills)}"
    for run, (kind, number) in runs.items():
        try:
            async with asyncio.timeout(120):
                finish = await here.runs.ended(run)
        except TimeoutError:
            sight = await here.runs.look(run)
            raise AssertionError(
                f"{kind} {run} hangs: {sight.run.open}, {[one.subject for one in sight.facts]}; {told}"
            ) from None
        if kind == "saga":
            assert (finish.state, finish.error["code"]) == ("failed", "agent.failed"), f"{run}: {finish}; {told}"
        else:
            assert finish.state == "completed", f"{kind} {run}: {finish}; {told}"
            assert json.loads(bytes(finish.output)) == EXPECTED[kind](number), f"{kind} {run}; {told}"
        sight = await here.runs.look(run)
        assert len({one.subject for one in sight.facts}) == len(sight.facts), f"recorded twice: {run}; {told}"
        assert await here.runs.replay(run) is None, f"replays differently: {run}; {told}"
    sys.stderr.write(f"flow chaos: {told}\n")


@pytest.mark.timeout(400)
async def test_every_run_ends_as_it_must_whatever_is_killed(flows, monkeypatch):
    monkeypatch.setattr(history, "KEEP_S", 2.0)
    await chaos(flows, 20, 80)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_three_minutes(flows):
    await chaos(flows, 180, 600)

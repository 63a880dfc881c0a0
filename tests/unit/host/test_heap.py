"""What was in use and is free goes back to the system, also from between what is still in use."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from knotwork.bus.background import background
from knotwork.host import heap

CHILD = """
import asyncio
from knotwork.host import heap

heap.LOOK_S = 0.05
BLOCK, COUNT = 190_000, 2_000

async def main():
    giving = asyncio.create_task(heap.give_back())
    await asyncio.sleep(0)  # it has looked how much there was
    for _ in range(2):  # after the first time the allocator takes blocks of this size from its heap
        blocks, between = [], []
        for _ in range(COUNT):
            blocks.append(bytes(bytearray(BLOCK)))
            between.append(bytes(600))
        most = heap.resident_bytes()
        await asyncio.sleep(0.3)  # it looks while all of it is in use, too
        del blocks
    async with asyncio.timeout(30):
        while heap.resident_bytes() > most - BLOCK * COUNT * 0.9:
            await asyncio.sleep(0.05)
    giving.cancel()
    print(len(between))

asyncio.run(main())
"""


@pytest.mark.skipif(heap._trim() is None, reason="this system's allocator cannot be asked to")
def test_what_is_free_between_what_is_in_use_goes_back_to_the_system():
    """A node that had put large results together kept most of a gigabyte for ever."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == "2000\n", done.stderr


async def test_a_node_goes_on_when_the_system_does_not_say_how_much_it_has(monkeypatch):
    """Where no file can be opened for a moment, to look ended the task, and the whole node with it."""
    told = iter([0, OSError("too many open files"), 2 * heap.GROWN_BYTES])
    given_back = asyncio.Event()
    loop = asyncio.get_running_loop()

    def resident_bytes() -> int:
        found = next(told, 0)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(heap, "LOOK_S", 0.001)
    monkeypatch.setattr(heap, "resident_bytes", resident_bytes)
    monkeypatch.setattr(heap, "_trim", lambda: lambda _: loop.call_soon_threadsafe(given_back.set))
    async with background() as group, asyncio.timeout(30):
        group.create_task(heap.give_back())
        await given_back.wait()

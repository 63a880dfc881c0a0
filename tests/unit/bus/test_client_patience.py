"""A node that shows that it lives may take longer to put its answer together; one that does not is given up in time."""

from __future__ import annotations

import asyncio

from knotwork.bus import client


async def test_a_sign_of_life_gives_time_for_the_next_and_never_more_than_there_is():
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(300.0) as limit:
        first, now_s = limit.when(), loop.time()
        client._allow(limit, now_s + 900.0)
        assert limit.when() == first, "what is left is enough"
        limit.reschedule(now_s + 5.0)
        client._allow(limit, now_s + 900.0)
        assert now_s + client.ALIVE_MAX_S <= limit.when() < now_s + 300.0
        limit.reschedule(now_s + 5.0)
        client._allow(limit, now_s + 10.0)
        assert limit.when() == now_s + 10.0, "the answer has come by then, or not at all"

"""A node that is nothing but one hosted plugin; prints its process id, then blocks it and waits to be killed."""

import asyncio
from pathlib import Path

from knotwork.bus import child as bus_child
from knotwork.sdk.testing import attempt, host
from knotwork.sockets import catalog, hosted, loading


async def main():
    settings = catalog.CatalogSettings(
        files=("./hosted_plugin.py",), base=Path(__file__).parent, group="knotwork-tests", patience_s=60
    )
    entry = loading.load(settings).find("executors", "./hosted_plugin.py")
    async with bus_child.guard(), host(hosted.wrap(entry, 0, hosted.Hosting())) as sample:
        grandchild = await sample.execute(attempt(["child"]))
        print(sample.child.process.pid, grandchild.output, flush=True)  # noqa: T201  read by the test
        await sample.execute(attempt(["block"]))


asyncio.run(main())

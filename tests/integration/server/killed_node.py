"""Not a test: a node in small, for tests that kill it. Arguments: the store, the loop (asyncio or uvloop).

It runs nats-server and a child which starts a grandchild in a session of its own and one without environment; it
prints their numbers and waits to be killed.
"""

import asyncio
import sys
from pathlib import Path

from knotwork.bus import child
from knotwork.bus.server import Account, ServerSettings, run_server

FAMILY = """
import subprocess, sys, time
sleeper = ["sleep", "300"]
own_session = subprocess.Popen(sleeper, start_new_session=True)
bare = subprocess.Popen(sleeper, start_new_session=True, env={})
orphan = subprocess.run(["sh", "-c", "setsid sleep 300 >/dev/null & echo $!"], stdout=subprocess.PIPE).stdout
print(own_session.pid, bare.pid, int(orphan), flush=True)
time.sleep(300)
"""


async def main(store: Path) -> None:
    settings = ServerSettings(store, (Account("SYS", jetstream=False), Account("COMMONS")))
    async with run_server(settings) as server:
        process = await child.spawn(sys.executable, "-I", "-S", "-c", FAMILY, stdout=asyncio.subprocess.PIPE)
        assert process.stdout
        grandchildren = (await process.stdout.readline()).decode().split()
        print(server.pid, process.pid, *grandchildren, child.warden_pid(), flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(main(Path(sys.argv[1])))
    else:
        asyncio.run(main(Path(sys.argv[1])))

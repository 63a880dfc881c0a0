import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from knotwork.bus.server import Account, Server, ServerSettings, User
from knotwork.trust import keys


@dataclass
class Place:
    """A store, and the keys of the users in its accounts."""

    settings: ServerSettings
    seeds: dict[str, str]

    def account(self, name: str, **limits: Any) -> Account:
        pair = keys.generate()
        self.seeds[name] = pair.seed
        return Account(name, (User(pair.public, **limits.pop("user", {})),), **limits)

    def but(self, **changes: Any) -> ServerSettings:
        return replace(self.settings, **changes)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(ServerSettings(tmp_path / "store", (), restart_pause_max_s=0.1), {})
    made.settings = made.but(accounts=(Account("SYS", jetstream=False), made.account("COMMONS"), made.account("p1")))
    return made


Connect = Callable[..., Any]


async def _quiet(*_: object) -> None:
    return


@pytest_asyncio.fixture
async def connect(place: Place) -> AsyncIterator[Connect]:
    """Connect as the user of an account; `lost` collects disconnections."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_client(server: Server, account: str, lost: list[str] | None = None, **options: Any) -> Client:
            async def on_lost() -> None:
                if lost is not None:
                    lost.append(account)

            given = {
                "nkeys_seed_str": place.seeds[account],
                "reconnect_time_wait": 0.02,
                "max_reconnect_attempts": 10_000,
            }
            client = await nats.connect(
                server.url, error_cb=_quiet, disconnected_cb=on_lost, **{**given, "connect_timeout": 30, **options}
            )
            stack.push_async_callback(client.close)
            return client

        yield open_client


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    return wait

"""Credentials that are refused are read anew; whose account they are of can be asked."""

from __future__ import annotations

import dataclasses

import pytest

from knotwork.bus import account
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import Unavailable, Unreachable
from knotwork.trust import keys

ACCOUNTS = """accounts {
  ONE { users: [ { user: a, password: x }, { user: b, password: x } ] }
  TWO { users: [ { user: c, password: x, permissions: { publish: "ok.>", subscribe: "_INBOX.>" } }, { user: d, password: x } ] }
}"""


def quick(url: str, **settings) -> Endpoint:
    return Endpoint((url,), pause_min_s=0.02, pause_max_s=0.1, connect_timeout_s=20.0, **settings)


async def test_a_key_replaced_where_it_lies_is_taken_when_the_old_one_is_refused(make_server, until):
    old, new = keys.generate(), keys.generate()
    server = await make_server(f"authorization {{ users: [ {{ nkey: {new.public} }} ] }}")
    endpoint, asked = quick(server.url, seed=old.seed), []

    async def anew() -> Endpoint:
        asked.append(1)
        if len(asked) == 1:
            raise Unavailable("it is just being written", code="config.secret_unavailable")
        return dataclasses.replace(endpoint, seed=new.seed) if len(asked) > 2 else endpoint

    async with open_connection(endpoint, wait_first=False, anew=anew) as connection:
        await until(lambda: connection.state == "connected")
        assert connection.endpoint.seed == new.seed
        assert len(asked) == 3


async def test_the_account_is_told_by_the_server_where_one_may_ask(make_server, connect):
    server = await make_server(ACCOUNTS)
    links = {user: await connect(server.url, user=user, password="x") for user in "abcd"}
    assert [await account.of(links[user]) for user in "abcd"] == ["ONE", "ONE", "", "TWO"]
    assert links["c"].forbidden == ""


async def test_that_nats_is_away_is_said_once(server, connect, until):
    connection = await connect(server.url)
    await server.kill()
    await until(lambda: connection.failure is not None)
    with pytest.raises(Unreachable) as caught:
        connection.send("x")
    assert caught.value.code == "bus.disconnected"
    assert caught.value.message.count(server.url) == 1
    assert not caught.value.message.endswith("..")

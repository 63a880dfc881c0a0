"""NATS over web sockets: for where only HTTP gets through. Its library is loaded then, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.free_port import free_port

from knotwork.bus import publisher, streams
from knotwork.sdk.errors import Unreachable

LOADED = "import sys, {module}; print('aiohttp' in sys.modules, 'nats' in sys.modules)"


pytestmark = pytest.mark.filterwarnings("ignore:parameter 'timeout' of type:DeprecationWarning")  # nats-py's own call


async def test_a_web_socket_carries_what_a_plain_link_carries(make_server, connect, until):
    port = free_port()
    server = await make_server(f"websocket {{ host: 127.0.0.1, port: {port}, no_tls: true }}")
    plain, web = await connect(server.url), await connect(f"ws://127.0.0.1:{port}")
    heard: list[bytes] = []
    await web.listen("from.plain", lambda message: heard.append(message.data))
    await plain.listen("to.plain", lambda message: plain.send(message.reply, message.data[::-1]))
    await web.round_trip()
    await plain.round_trip()
    large = bytes(range(256)) * 2000
    for number in range(100):
        plain.send("from.plain", b"%d" % number)
    plain.send("from.plain", large)
    assert (await web.request("to.plain", large, timeout_s=30.0)).data == large[::-1]
    await until(lambda: len(heard) == 101)
    assert heard == [b"%d" % number for number in range(100)] + [large]
    await streams.ensure(web, streams.StreamSpec("S", ("s.>",), {}))
    await server.kill()
    await until(lambda: "connected" not in (web.state, plain.state))
    await server.start()
    await until(lambda: web.state == plain.state == "connected")
    assert (await web.request("to.plain", b"ab", timeout_s=30.0)).data == b"ba"
    assert (await publisher.publish(web, "s.one", b"stored")).seq == 1


async def test_a_web_socket_that_nobody_answers_leaves_nothing_open(connect):
    for _ in range(3):
        with pytest.raises(Unreachable) as caught:
            await connect(f"ws://127.0.0.1:{free_port()}")
        assert caught.value.code == "bus.unreachable"


def test_the_library_of_web_sockets_is_not_loaded_without_one():
    for module in ("knotwork.bus.connection", "knotwork.host.node", "knotwork.view.serving", "knotwork.cli.remote"):
        done = subprocess.run(
            [sys.executable, "-c", LOADED.format(module=module)],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.split()[0] == "False", module

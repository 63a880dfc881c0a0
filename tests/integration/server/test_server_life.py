import asyncio
import os
import shutil
import signal
import socket
import time

import psutil
import pytest

from knotwork.bus import server as bus_server
from knotwork.bus import server_fault, server_talk
from knotwork.bus.server import Account, User, run_server
from knotwork.sdk.errors import Conflict, Invalid, TimedOut, Unavailable
from knotwork.trust import keys


async def test_ready_means_that_jetstream_answers(place, connect):
    states = []
    async with run_server(place.settings, on_state=lambda state, why: states.append(state)) as server:
        client = await connect(server, "COMMONS")
        js = client.jetstream()
        await js.add_stream(name="S", subjects=["s.>"])
        assert (await js.publish("s.1", b"x", timeout=30)).seq == 1
        assert server.state == "running"
        assert server.version
        assert "Server is ready" in server_fault.tail(place.settings.store_dir, 40)
        assert psutil.pid_exists(server.pid)
        pid = server.pid
    assert states == ["running", "stopped"]
    assert server.pid == 0
    assert not psutil.pid_exists(pid)


async def test_the_start_is_written_down(place, record_property):
    record_property("server_start_s", round(min([await _start_s(place) for _ in range(3)]), 4))


async def _start_s(place) -> float:
    started = time.perf_counter()
    async with run_server(place.settings):
        return time.perf_counter() - started


async def test_nobody_gets_in_without_a_key(place, connect):
    async with run_server(place.settings) as server:
        assert "Authorization" in await refusal(server, keys.generate().seed)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert b"-ERR 'Authorization Violation'" in await reader.read()
        writer.close()


async def refusal(server, seed: str) -> str:
    with pytest.raises(Unavailable) as caught:
        async with server_talk.open_line("127.0.0.1", server.port, seed, timeout_s=30):
            pytest.fail("the key must be refused")
    return str(caught.value)


async def test_files_with_secrets_are_private(place):
    async with run_server(place.settings):
        store = place.settings.store_dir
        assert store.stat().st_mode & 0o777 == 0o700
        assert (store / "nats-server.conf").stat().st_mode & 0o777 == 0o600


async def test_the_limits_reach_the_server(place, connect):
    settings = place.but(accounts=(place.account("p1", max_storage=3_000_000),), max_payload=8 * 1024 * 1024)
    async with run_server(settings) as server:
        client = await connect(server, "p1")
        assert client.max_payload == 8 * 1024 * 1024
        assert (await client.jetstream().account_info()).limits.max_storage == 3_000_000


async def test_a_user_keeps_to_its_subjects(place, connect, until):
    place.seeds.clear()
    account = place.account("p1", user={"publish": ("a.>",), "subscribe": ("_INBOX.>", "a.>")})
    async with run_server(place.but(accounts=(account,))) as server:
        client = await connect(server, "p1")
        heard = []

        async def on_message(message) -> None:
            heard.append(message.subject)

        await client.subscribe("a.>", cb=on_message)
        await client.publish("b.1", b"")
        await client.publish("a.1", b"")
        await until(lambda: heard)
        assert heard == ["a.1"]


async def test_the_same_port_next_time_unless_somebody_took_it(place):
    async with run_server(place.settings) as server:
        first = server.port
    async with run_server(place.settings) as server:
        assert server.port == first
    with socket.create_server(("127.0.0.1", first)):
        async with run_server(place.settings) as server:
            assert server.port != first
    (place.settings.store_dir / "port").write_text("99999999999999999999")
    async with run_server(place.settings) as server:
        assert server.port


async def test_it_comes_back_at_the_same_port_with_everything_stored(place, connect, until):
    states = []
    async with run_server(place.settings, on_state=lambda *state: states.append(state)) as server:
        client = await connect(server, "p1")
        js = client.jetstream()
        await js.add_stream(name="S", subjects=["s"])
        await js.publish("s", b"kept")
        port, pid = server.port, server.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: server.restarts == 1)
        await server.wait_running(30)
        assert (server.port, server.state) == (port, "running")
        assert server.pid not in (0, pid)
        await until(lambda: client.is_connected)
        assert (await js.get_msg("S", 1)).data == b"kept"
    assert [state for state, _ in states] == ["running", "restarting", "running", "stopped"]
    assert "-9" in states[1][1]


async def test_restart_on_demand(place):
    async with run_server(place.settings) as server:
        pid = server.pid
        await server.restart(timeout_s=30)
        assert server.pid not in (0, pid)
        assert server.restarts == 1


async def test_accounts_come_and_go_while_others_work_on(place, connect, until):
    async with run_server(place.settings) as server:
        lost: list[str] = []
        steady = await connect(server, "p1", lost)
        js = steady.jetstream()
        await js.add_stream(name="S", subjects=["s.>"])
        pid, base = server.pid, server.settings.accounts
        for round_ in range(5):
            extra = place.account("p2")
            await server.reload((*base, extra))
            client = await connect(server, "p2", lost)
            other = client.jetstream()
            if round_ == 0:
                await other.add_stream(name="KEPT", subjects=["k"])
            await other.publish("k", b"")
            assert (await other.stream_info("KEPT")).state.messages == round_ + 1  # it outlives its account's absence
            assert (await js.publish(f"s.{round_}", b"", timeout=30)).seq == round_ + 1
            await client.close()
            lost.clear()
            await server.reload(base)
            assert "Authorization" in await refusal(server, place.seeds["p2"])
            assert await steady.flush(timeout=30) is None
        assert lost == []
        assert (server.pid, server.restarts) == (pid, 0)


async def test_clients_of_a_removed_account_are_sent_away(place, connect, until):
    async with run_server(place.settings) as server:
        lost: list[str] = []
        await connect(server, "p1", lost, allow_reconnect=False)
        await connect(server, "COMMONS", lost)
        await server.reload(tuple(account for account in server.settings.accounts if account.name != "p1"))
        await until(lambda: lost == ["p1"])


async def test_what_a_removed_account_might_have_used_is_there_for_others(place, connect):
    base = place.settings.accounts
    async with run_server(place.but(max_file_store=4_000_000_000)) as server:
        for name in ("large", "larger", "large"):  # the store holds one of them at a time; the first comes back
            await server.reload((*base, place.account(name, max_storage=3_000_000_000)))
            client = await connect(server, name)
            await client.jetstream().add_stream(name="S", subjects=["s.>"])
            assert (await client.jetstream().publish("s.1", b"x", timeout=30)).seq >= 1
            await client.close()
            await server.reload(base)


async def test_room_that_is_still_set_aside_for_a_removed_account_is_told_as_such(place, connect):
    base = place.settings.accounts
    async with run_server(place.but(max_file_store=4_000_000_000)) as server:
        await server.reload((*base, place.account("before", max_storage=3_000_000_000)))
        client = await connect(server, "before")
        await client.jetstream().add_stream(name="S", subjects=["s.>"], max_bytes=2_500_000_000)
        await client.close()
        await server.reload(base)
        with pytest.raises(Conflict, match="no room for after") as caught:
            await server.reload((*base, place.account("after", max_storage=3_000_000_000)))
        assert caught.value.code == "bus.no_room"
        await server.reload((*base, place.account("after", max_storage=1_000_000_000)))
        assert (await connect(server, "after")).is_connected
        await server.reload((*base, place.account("later", max_storage=1_000_000_000)))


async def test_a_wrong_reload_changes_nothing(place, connect):
    async with run_server(place.settings) as server:
        client = await connect(server, "p1")
        text = (place.settings.store_dir / "nats-server.conf").read_text()
        with pytest.raises(Invalid):
            await server.reload((Account("p1", (User("nonsense"),)),))
        assert (place.settings.store_dir / "nats-server.conf").read_text() == text
        await client.flush(timeout=30)


async def test_what_the_server_refuses_is_told_in_its_words(place, connect, monkeypatch):
    async with run_server(place.settings) as server:
        client = await connect(server, "p1")
        before = server.settings
        render = bus_server.server_conf.render
        monkeypatch.setattr(
            bus_server.server_conf,
            "render",
            lambda settings, *rest: render(settings, *rest) + ("surprise: 1\n" if "p9" in place.seeds else ""),
        )
        with pytest.raises(Conflict, match="surprise") as caught:
            await server.reload((place.account("p9"),))
        del place.seeds["p9"]
        assert caught.value.code == "bus.reload_refused"
        assert server.settings is before
        await client.flush(timeout=30)
        os.kill(server.pid, signal.SIGKILL)
        await server.wait_running(30)


async def test_a_reload_while_the_server_is_down_holds_at_the_next_start(place, connect):
    async with run_server(place.settings) as server:
        os.kill(server.pid, signal.SIGKILL)
        await server.reload((*server.settings.accounts, place.account("p2")), timeout_s=30)
        assert (await connect(server, "p2")).is_connected


async def test_waiting_has_an_end(place, until):
    async with run_server(place.settings) as server:
        ports = place.settings.store_dir / "ports"
        shutil.rmtree(ports)
        ports.write_text("no folder: the server cannot come back")
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: server.state == "restarting")
        with pytest.raises(TimedOut, match="cannot be used") as caught:
            await server.wait_running(0.3)
        assert caught.value.code == "bus.server_away"
        with pytest.raises(TimedOut):
            await server.reload(server.settings.accounts, timeout_s=0.1)
        ports.unlink()
        await server.wait_running(30)
    with pytest.raises(Unavailable):
        await server.wait_running(30)


async def test_an_error_in_the_block_comes_out_as_it_is(place):
    with pytest.raises(KeyError):
        async with run_server(place.settings):
            raise KeyError("mine")


async def test_a_cancelled_block_leaves_no_server(place):
    pids = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit, run_server(place.settings) as server:
            pids.append(server.pid)
            limit.reschedule(0)
            await asyncio.Event().wait()
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize("after_ms", [0, 5, 10, 15, 20, 30])
async def test_a_start_cancelled_at_any_moment_leaves_no_server(place, after_ms):
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(after_ms / 1000), run_server(place.settings):
            await asyncio.Event().wait()
    mine = [process.name() for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert mine == []


def test_uvloop_carries_it_too(place, connect):
    uvloop = pytest.importorskip("uvloop")

    async def live() -> int:
        async with run_server(place.settings) as server:
            os.kill(server.pid, signal.SIGKILL)
            await server.reload((*server.settings.accounts, place.account("p2")), timeout_s=30)
            return server.restarts

    assert uvloop.run(live()) == 1

"""How is the HTTP door opened and closed? uvicorn inside our loop, on a socket of our own, signals left alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from knotwork.bus import server_fault
from knotwork.bus.background import begin_in
from knotwork.ops.ports import NodeControl
from knotwork.sdk.errors import ConfigInvalid, Conflict, Internal
from knotwork.web import app
from knotwork.web.guard import Doorkeeper, names_of
from knotwork.web.leaving import Leaving
from knotwork.web.patience import PatientProtocol
from knotwork.web.standby import CONNECTIONS_MAX, Standby

START_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Where to listen and what to ask for. An empty token lets nobody in.

    Port 0 takes the one of last time, kept in `port_file`, or a free one.
    """

    token: str
    host: str = "127.0.0.1"
    port: int = 0
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    port_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Web:
    """The open door."""

    url: str
    port: int
    keeper: Doorkeeper
    host: str
    leaving: Leaving
    standby: Standby

    def allow(self, hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
        """Put other allowed hosts and origins into force, from the next request on."""
        self.keeper.hosts = names_of(self.host, hosts)
        self.keeper.origins = frozenset(origins)

    async def leave(self) -> None:
        """Answer whoever still waits that the node stops, and everybody who comes."""
        await self.leaving.leave()


class _Server(uvicorn.Server):
    """A uvicorn that leaves the process's signals to the node."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that was taken in by somebody else."""

        def protocol() -> asyncio.Protocol:
            return PatientProtocol(config=self.config, server_state=self.server_state, app_state={})

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        except OSError:  # gone again
            connection.close()


@asynccontextmanager
async def run_web(
    settings: WebSettings,
    node: NodeControl,
    metrics: app.Metrics = app.no_metrics,
    default_project: Callable[[], str] = lambda: "default",
    agents: ASGIApp | None = None,
) -> AsyncIterator[Web]:
    """Serve HTTP while the context is open; requests still running at its end get `CLOSE_TIMEOUT_S` seconds.

    Raises `Conflict` (`web.port_in_use`) when the address is taken, `ConfigInvalid` (`web.cannot_listen`) when it is not
    ours to take.
    """
    keeper = Doorkeeper(
        settings.token, names_of(settings.host, settings.allowed_hosts), frozenset(settings.allowed_origins)
    )
    listener = _opened(settings)
    port = int(listener.getsockname()[1])
    leaving = Leaving()
    server = _Server(
        uvicorn.Config(
            app.make(node, keeper, metrics, default_project, agents, within=leaving.before),
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=int(CLOSE_TIMEOUT_S),
        )
    )
    problem: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        standby = Standby(listener, keeper, _giving_to(server, group))
        try:
            serving = group.create_task(server.serve(sockets=[listener]), name="web")
            await _started(server, serving)
            yield Web(f"http://{reached_by(settings.host)}:{port}", port, keeper, settings.host, leaving, standby)
        except BaseException as error:  # noqa: BLE001 - raised again below: the door closes in good order first
            problem = error
        await asyncio.to_thread(standby.close)
        await leaving.leave()
        server.should_exit = True
    listener.close()
    if problem is not None:
        raise problem


def reached_by(host: str) -> str:
    """Return the host of a URL by which this machine reaches a door bound to `host`, which may mean every address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    six = isinstance(address, ipaddress.IPv6Address)
    if address.is_unspecified:
        return "[::1]" if six else "127.0.0.1"
    return f"[{host}]" if six else host


def _giving_to(server: _Server, group: asyncio.TaskGroup) -> Callable[[socket.socket], None]:
    """Return what gives a connection to the loop's server, to be called in another thread."""
    loop = asyncio.get_running_loop()

    def take(connection: socket.socket) -> None:
        if begin_in(group, server.adopt(connection)) is None:
            connection.close()

    def give(connection: socket.socket) -> None:
        try:
            loop.call_soon_threadsafe(take, connection)
        except RuntimeError:  # the loop is closed
            connection.close()

    return give


async def _started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not server.started:  # uvicorn has no event for it; it is set within the first turns of the loop
            if serving.done():
                raise Internal("The HTTP server ended while it started.", code="web.start_failed")
            await asyncio.sleep(0.001)


def _opened(settings: WebSettings) -> socket.socket:
    """Return the socket to serve on; a port that we chose ourselves is chosen again, as long as it is free."""
    path = settings.port_file
    if settings.port or path is None:
        return _listen(settings.host, settings.port)
    try:
        listener = _listen(settings.host, int(path.read_text(encoding="ascii")[:16]))
    except (OSError, ValueError, OverflowError, Conflict):
        listener = _listen(settings.host, server_fault.free_port(settings.host))
    with contextlib.suppress(OSError):  # a full disk: the next start takes another one
        path.write_text(f"{listener.getsockname()[1]}\n", encoding="ascii")
    return listener


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    return listener


def _refused(host: str, port: int, error: OSError) -> Conflict | ConfigInvalid:
    """Return why nobody can listen there: somebody does already, or it is no address of ours."""
    why = f"HTTP cannot listen on {host}:{port}: {error.strerror or error}"
    if error.errno != errno.EADDRINUSE:
        return ConfigInvalid(
            f"{why}.",
            code="web.cannot_listen",
            hint="Set web.host to an address of this machine, and web.port to one that its user may take, or 0.",
        )
    pid, name = server_fault.holder(port)
    return Conflict(
        f"{why} by {server_fault.who_has(pid, name)}.",
        code="web.port_in_use",
        hint="Set web.port = 0 for a free port, or stop who uses it.",
        detail={"host": host, "port": port, "pid": pid, "process": name},
    )

"""Which projects does this node serve? One task each holds its connection and its membership, until it is let go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from knotwork.bus import account
from knotwork.bus.away import BLINK_S
from knotwork.bus.connection import open_connection
from knotwork.bus.pauses import Pauses
from knotwork.bus.waits import set_within
from knotwork.host.ground import Ground
from knotwork.mesh.membership import Membership
from knotwork.sdk.errors import ConfigInvalid, Conflict, Denied, KnotworkError, NotFound, Unavailable, leaves

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.endpoint import Endpoint
    from knotwork.config.loaded import Loaded

log = logging.getLogger(__name__)
AGAIN_MIN_S, AGAIN_MAX_S = 0.2, 5.0
STEADY_S = 10.0
"""What went well for this long is tried again without a long pause."""
LEAVE_TIMEOUT_S = 5.0
FINAL = (Denied, Conflict, ConfigInvalid)
"""What stays wrong until somebody changes something."""

Member = Callable[[str, "Connection"], AbstractAsyncContextManager[Membership]]
"""Be a member of a project over its connection, inside the block."""


@dataclass(eq=False)
class Project:
    """One project being served."""

    name: str
    endpoint: Endpoint | None = None
    connection: Connection | None = None
    membership: Membership | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failure: KnotworkError | None = None
    """Why it will never be served."""
    trouble: KnotworkError | None = None
    """Why it is not served just now."""
    task: asyncio.Task[None] | None = None
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def why(self) -> str:
        """Return why it is not served just now, empty when it is."""
        up = self.connection is not None and self.connection.state == "connected"
        if up and self.membership is not None:
            return ""
        if self.trouble is not None:
            return str(self.trouble)
        return (self.connection.last_error if self.connection is not None else "") or "not connected yet"

    async def is_one_of(self, logins: Iterable[Endpoint], accounts: Container[str]) -> bool:
        """Return whether it is served with one of these logins (nameless endpoints), or in one of these accounts."""
        if self.endpoint is not None and replace(self.endpoint, name="") in logins:
            return True
        link = self.connection
        if link is None or link.state != "connected":
            return False
        return await account.of(link) in accounts


class Projects:
    """All projects of this node."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        endpoint: Callable[[Loaded, str], Endpoint],
        member: Member,
        on_state: Callable[[str, str], None],
        ground: Ground | None = None,
        *,
        parted: bool = False,
    ) -> None:
        """Serve none yet. `endpoint(found, project)` may block (secrets); `on_state(project, state)` hears of connections.

        What `ground` has begun for a project is waited for. `parted`: it is certain that each has an account of its own.
        """
        self._group = group
        self._endpoint = endpoint
        self._member = member
        self._on_state = on_state
        self._ground = ground or Ground()
        self._parted = parted
        self._served: dict[str, Project] = {}

    def get(self, name: str) -> Membership:
        """Return our membership; raises `NotFound` (`project.not_found`), `Unavailable` while it is not connected."""
        project = self._served.get(name)
        if project is None:
            served = ", ".join(sorted(self._served))
            raise NotFound(
                f"This node does not serve a project {name[:64]!r}.",
                code="project.not_found",
                hint=f"It serves: {served}.",
            )
        if project.membership is None:
            raise Unavailable(f"Project {name} is not connected to NATS.", code="bus.disconnected", retry_after_s=1.0)
        return project.membership

    def first_connection(self) -> Connection | None:
        """Return the connection of the first project, for what belongs to the node as a whole."""
        return next((project.connection for project in self._served.values() if project.connection), None)

    def all(self) -> list[Project]:
        """Return every project served."""
        return list(self._served.values())

    def must_reach(self) -> None:
        """Raise `Unavailable` (`bus.unreachable`) when all that is served has lost NATS: a new project would only wait for it.

        One that NATS refuses has not: it answers.
        """
        links = [project.connection for project in self._served.values() if project.connection is not None]
        if links and all(link.down_for_s() > BLINK_S and not isinstance(link.failure, FINAL) for link in links):
            raise Unavailable(
                f"NATS at {links[0].endpoint.shown} is away, and a new project needs it: {links[0].last_error}.",
                code="bus.unreachable", hint="Say `knotwork reload` when it is back; nothing was changed.", retry_after_s=5.0,
            )  # fmt: skip

    def memberships(self) -> list[Membership]:
        """Return every membership that is up."""
        return [project.membership for project in self._served.values() if project.membership is not None]

    async def start(self, names: Iterable[str], found: Loaded, *, wait_s: float | None) -> None:
        """Begin to serve these projects too.

        With `wait_s` a project that is not ready by then fails the call, and so does one that is refused; without, it
        is only waited for until it is ready or refused. Raises `Denied`, `Conflict`, `ConfigInvalid`, `Unavailable`; none of the new
        ones is served then.
        """
        fresh = [Project(name) for name in dict.fromkeys(names) if name not in self._served]
        try:
            for project in fresh:
                self._begin(project, found)
            async with asyncio.timeout(wait_s):
                for project in fresh:
                    await project.ready.wait()
            _raise_first(fresh)
        except TimeoutError:
            why = next((str(project.trouble) for project in fresh if project.trouble is not None), "no answer")
            await self.stop([project.name for project in fresh])
            raise Unavailable(f"NATS is not ready for a new project: {why}", code="bus.unreachable") from None
        except BaseException:  # whoever asked may be cancelled: nothing of it stays behind
            await self.stop([project.name for project in fresh])
            raise

    async def moved(self, names: Iterable[str], found: Loaded, *, wait_s: float) -> list[str]:
        """Return which of these are served with another address or other credentials than `found` says.

        The new ones were tried: raises `Denied`, `ConfigInvalid` and `Unavailable` when there is no connecting with
        them within `wait_s` seconds, and nothing is changed.
        """
        moved = []
        for name in names:
            project = self._served.get(name)
            if project is None:
                continue
            endpoint = await asyncio.to_thread(self._endpoint, found, name)
            if endpoint == project.endpoint:
                continue
            try:
                async with asyncio.timeout(wait_s), open_connection(endpoint):
                    moved.append(name)
            except TimeoutError:
                why = f"NATS did not answer for project {name} within {wait_s:g} s."
                raise Unavailable(why, code="bus.unreachable") from None
        return moved

    async def renamed(self, gone: Iterable[str], new: Iterable[str], found: Loaded, *, wait_s: float) -> list[str]:
        """Return which of those that are to go are of an account that `found` has a new one in, waiting `wait_s` for each.

        Such a one is the same project under another name: it has to be left before the new one is joined.
        """
        served = [self._served[name] for name in gone if name in self._served and not self._parted]
        if not served:
            return []
        logins: list[Endpoint] = []
        accounts: set[str] = set()
        for name in new:
            endpoint = await asyncio.to_thread(self._endpoint, found, name)
            logins.append(replace(endpoint, name=""))
            with suppress(KnotworkError, TimeoutError):  # that it cannot be reached says who joins it
                async with asyncio.timeout(wait_s), open_connection(endpoint) as connection:
                    accounts.add(await account.of(connection))
        return [one.name for one in served if await one.is_one_of(logins, accounts - {""})]

    def begin(self, names: Iterable[str], found: Loaded) -> None:
        """Begin to serve these, and do not wait for it; raises `Unavailable` when the node is stopping."""
        for name in names:
            if name not in self._served:
                self._begin(Project(name), found)

    async def stop(self, names: Iterable[str]) -> None:
        """Serve these no longer; others are told that we left. Takes `LEAVE_TIMEOUT_S` twice at most."""
        going = [self._served.pop(name) for name in list(names) if name in self._served]
        for project in going:
            project.leave.set()
            if project.membership is None and project.task is not None:
                project.task.cancel()  # nobody has to be told, and whatever it waits for may take long
        if not await _all_left(going):
            for project in going:
                if project.task is not None:
                    project.task.cancel()
            if not await _all_left(going):
                log.warning(
                    "these projects do not end: %s", ", ".join(one.name for one in going if not one.left.is_set())
                )

    def _begin(self, project: Project, found: Loaded) -> None:
        serving = self._serve(project, found)
        try:
            project.task = self._group.create_task(serving, name=f"project {project.name}")
        except RuntimeError:  # the group is closing
            serving.close()
            raise Unavailable("The node is stopping.", code="node.stopping") from None
        self._served[project.name] = project

        def over(_task: object) -> None:  # not in a `finally`: a task cancelled before its first step runs none
            project.ready.set()
            project.left.set()

        project.task.add_done_callback(over)

    async def _serve(self, project: Project, found: Loaded) -> None:
        """Connect, join, and stay until told to leave; whatever may pass is tried again with growing pauses.

        Before the project was ever ready a refusal (`FINAL`) ends it, and is kept in `failure`.
        """
        loop = asyncio.get_running_loop()
        pauses = Pauses(AGAIN_MIN_S, AGAIN_MAX_S)
        while not project.leave.is_set():
            began_s = loop.time()
            try:
                await self._stay(project, found)
            except Exception as error:  # noqa: BLE001  one project's trouble must not end the others
                project.trouble = trouble = _ours(error)
                if isinstance(trouble, FINAL) and not project.ready.is_set():
                    project.failure = trouble
                    return
                if loop.time() - began_s > STEADY_S:
                    pauses.shorten()
                pause_s = pauses.next_s()
                log.warning("project %s is tried again in %.1f s: %s", project.name, pause_s, trouble)
                await set_within(project.leave, pause_s)

    async def _stay(self, project: Project, found: Loaded) -> None:
        """Be a member until told to leave; raises what goes wrong, which may be a group of errors."""

        async def anew() -> Endpoint:
            project.endpoint = await asyncio.to_thread(self._endpoint, found, project.name)
            return project.endpoint

        endpoint = await anew()
        try:
            async with AsyncExitStack() as stack:
                connection = await stack.enter_async_context(
                    open_connection(
                        endpoint,
                        on_state=lambda state: self._on_state(project.name, state),
                        wait_first=False,
                        anew=anew,
                    )
                )
                project.connection = connection
                if not await _connected(project, connection):
                    return
                await self._check_account(project, connection)
                async with connection.allowed():
                    await self._ground.lay(project.name, connection, found.config)
                    membership = await stack.enter_async_context(self._member(project.name, connection))
                project.membership = membership
                project.trouble = None
                project.ready.set()
                try:
                    await project.leave.wait()
                finally:
                    project.membership = None
        finally:
            project.connection = None

    async def _check_account(self, project: Project, connection: Connection) -> None:
        """Raise `ConfigInvalid` when another project served here is of the same account: nothing would part them."""
        others = [(one, one.connection) for one in self._served.values() if one is not project and not self._parted]
        mine = await account.of(connection) if others else ""
        for other, link in others:
            if mine and link is not None and link.state == "connected" and await account.of(link) == mine:
                raise ConfigInvalid(
                    f"Projects {other.name} and {project.name} are one account of NATS ({mine[:64]}): "
                    "what is sent in one of them would be done in the other.",
                    code="config.same_account",
                    hint=f"Give each credentials of an account of its own, under [projects.{project.name}].",
                )


def _raise_first(fresh: list[Project]) -> None:
    """Raise why one of them will never be served."""
    for project in fresh:
        if project.failure is not None:
            raise project.failure


async def _connected(project: Project, connection: Connection) -> bool:
    """Wait for the first connection: for ever, but not when it can never come about or we are to leave."""
    while connection.state != "connected":
        if isinstance(connection.failure, (ConfigInvalid, Denied)):
            raise connection.failure
        if project.leave.is_set():
            return False
        project.trouble = connection.failure or project.trouble
        try:
            async with asyncio.timeout(0.2):
                await connection.wait_connected()
        except TimeoutError:
            continue
    return True


async def _all_left(going: list[Project]) -> bool:
    """Return whether all have left, at the latest after `LEAVE_TIMEOUT_S`."""
    try:
        async with asyncio.timeout(LEAVE_TIMEOUT_S):
            for project in going:
                await project.left.wait()
    except TimeoutError:
        return False
    return True


def _ours(error: Exception) -> KnotworkError:
    """Return the error on purpose that matters most, also from within a group; anything else is a bug, written down."""
    found = list(leaves(error))
    ours = [leaf for leaf in found if isinstance(leaf, KnotworkError)]
    if len(ours) < len(found):
        log.error("a project failed", exc_info=error)
    final = [leaf for leaf in ours if isinstance(leaf, FINAL)]
    return next(iter(final or ours), None) or KnotworkError.of(found[0])

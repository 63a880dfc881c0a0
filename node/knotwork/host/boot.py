"""How does the node come by its NATS? It boots its own server, or joins one; either way it ends with addresses and keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from knotwork.bus import child, patterns, server
from knotwork.bus.endpoint import Endpoint, Tls, shown_url
from knotwork.config import secrets
from knotwork.config.model import CommonsTable, NatsTable, ProjectTable, TlsTable
from knotwork.host import launch_keys
from knotwork.sdk.errors import ConfigInvalid
from knotwork.trust import keys

if TYPE_CHECKING:
    from knotwork.config.loaded import Loaded
    from knotwork.config.model import Config
    from knotwork.host.layout import Layout
    from knotwork.sdk import SecretRef


OnState = Callable[[str, str], None]
COMMONS = "COMMONS"
"""The account for what is personal or public: shared by all projects, and by all nodes that have credentials for it."""
LOCAL_PUBLISH = (patterns.ANY_OP, "$SRV.>", patterns.ANY_PROMPT, patterns.ANY_STATUS)
LOCAL_SUBSCRIBE = ("_INBOX.>", patterns.ANY_BEAT)
"""What local doors may do: ask for ops and see services. Streams, agents and what nodes answer are out of reach.

The answers that other holders of the same key get are not: permissions belong to a user, and they are one.
"""


class Nats:
    """Where this node's NATS is: `endpoint(project)` says how to connect for a project."""

    def __init__(
        self, layout: Layout, running: server.Server | None, projects: Mapping[str, ProjectTable] | None = None
    ) -> None:
        """Serve `projects` from our own server when there is one."""
        self.layout = layout
        self.server = running
        self._projects = dict(projects or {})
        self._serving = asyncio.Lock()

    def endpoint(self, found: Loaded, project: str, name: str) -> Endpoint:
        """Return how the node connects for `project`; raises `ConfigInvalid` when it has no credentials for it."""
        if self.server is not None:
            return self._own(self.server, project, name)
        table = found.config.projects.get(project, ProjectTable())
        if _has_credentials(table):
            return _joining(found, table, name)
        if len(found.config.project_names()) > 1:
            raise ConfigInvalid(
                f"Project {project} has no credentials for the NATS that is joined.",
                code="config.no_credentials",
                hint=f"Set user, token, nkey_seed or creds under [projects.{project}].",
            )
        return _joining(found, found.config.nats, name)

    def commons(self, found: Loaded, name: str) -> Endpoint | None:
        """Return how the node connects to what all projects share; None without credentials for a NATS it joined."""
        if self.server is not None:
            return self._own(self.server, COMMONS, name)
        table = found.config.nats.commons
        return _joining(found, table, name) if _has_credentials(table) else None

    def _own(self, own: server.Server, account: str, name: str) -> Endpoint:
        pair = keys.load_or_create(self.layout.keys, f"node-{account}")
        return Endpoint(
            (own.url,), name=name, seed=pair.seed, pause_min_s=0.02, pause_max_s=1.0, inbox_prefix="_NODE"
        )  # fmt: skip

    def local_seed_file(self, project: str) -> str:
        """Return the file with the key for local doors, empty when the server is not ours to give keys for."""
        if self.server is None:
            return ""
        keys.load_or_create(self.layout.keys, f"local-{project}")
        return str(self.layout.keys / f"local-{project}.nk")

    def url(self, config: Config) -> str:
        """Return where it is, without any password."""
        return self.server.url if self.server is not None else shown_url(config.nats.urls[0])

    async def serve(self, projects: Mapping[str, ProjectTable]) -> None:
        """Let the server have exactly these accounts; clients of those that stay are not dropped."""
        async with self._serving:
            await self._serve(projects)

    async def _serve(self, projects: Mapping[str, ProjectTable]) -> None:
        if self.server is not None:
            await self.server.reload(await asyncio.to_thread(accounts, self.layout, projects))
            self._projects = dict(projects)

    async def admit(self, project: str, launch: str) -> str:
        """Let an agent that is started join with a key of its own, and return its seed; "" at a NATS that others run.

        Raises what the server says against it.
        """
        if self.server is None:
            return ""
        async with self._serving:
            pair = await asyncio.to_thread(launch_keys.admit, self.layout, project, launch)
            await self._serve(self._projects)
        return pair.seed

    async def dismiss(self, project: str, launches: Collection[str]) -> None:
        """Let the agents of launches that are over connect no more; those that still are lose their connection."""
        async with self._serving:
            if await asyncio.to_thread(launch_keys.dismiss, self.layout, project, launches):
                await self._serve(self._projects)


def accounts(layout: Layout, projects: Mapping[str, ProjectTable]) -> tuple[server.Account, ...]:
    """Return the accounts of the server: COMMONS, and one for each project, each with a node key and a local key.

    The agents that targets have started have a key each, too. All are read from files, or written: it blocks.
    """
    made = [_account(layout, COMMONS, COMMONS, 0)]
    made += [_account(layout, name, name, table.max_storage) for name, table in projects.items()]
    return tuple(made)


def _account(layout: Layout, account: str, name: str, max_storage: int) -> server.Account:
    node = keys.load_or_create(layout.keys, f"node-{name}")
    local = keys.load_or_create(layout.keys, f"local-{name}")
    launched = (server.User(public) for public in launch_keys.public(layout, name))
    users = (server.User(node.public), server.User(local.public, LOCAL_PUBLISH, LOCAL_SUBSCRIBE), *launched)
    return server.Account(account, users, jetstream=True, max_storage=max_storage)


def projects_of(config: Config) -> dict[str, ProjectTable]:
    """Return every project served and its table; one called `default` when none is declared."""
    return {name: config.projects.get(name, ProjectTable()) for name in config.project_names()}


@asynccontextmanager
async def bring_up(config: Config, layout: Layout, node: str, on_state: OnState) -> AsyncIterator[Nats]:
    """Run the embedded server inside the block, or nothing at all when another NATS is joined."""
    if config.nats.mode == "join":
        yield Nats(layout, None)
        return
    settings = server.ServerSettings(
        store_dir=layout.nats,
        host=config.nats.host,
        port=config.nats.port,
        sync_always=config.nats.durability == "always",
        max_file_store=config.nats.max_file_store,
        max_payload=config.nats.max_payload,
        server_name=node,
        accounts=await asyncio.to_thread(accounts, layout, projects_of(config)),
    )
    async with server.run_server(settings, on_state=on_state) as running:
        yield Nats(layout, running, projects_of(config))


def _has_credentials(table: NatsTable | ProjectTable | CommonsTable) -> bool:
    return any((table.user, table.token, table.nkey_seed, table.creds))


def _joining(found: Loaded, shown: NatsTable | ProjectTable | CommonsTable, name: str) -> Endpoint:
    """Return how to connect to the NATS that is joined, with the credentials in `shown`."""
    config, folder = found.config, found.folder
    tls = config.nats.tls
    wants_tls = any((tls.ca, tls.cert, tls.key, tls.hostname, tls.handshake_first))
    return Endpoint(
        tuple(config.nats.urls),
        name=name,
        user=shown.user,
        password=_secret(shown.password, folder),
        token=_secret(shown.token, folder),
        seed=_secret(shown.nkey_seed, folder),
        creds=_private(_path(shown.creds, folder)),
        tls=_tls(tls, folder) if wants_tls else None,
        connect_timeout_s=config.nats.connect_timeout_s,
        pause_min_s=1.0,
        pause_max_s=30.0,
        inbox_prefix="_NODE",
    )


def _secret(reference: SecretRef | None, folder: Path) -> str:
    if reference is not None and reference.file is not None:
        _private(_path(reference.file, folder))
    return secrets.resolve(reference, folder=folder, child_env=child.clean_env) if reference is not None else ""


def _private(path: str) -> str:
    """Return the path of a secret file; raises `Denied` (`trust.key_exposed`) when others may read it, as of our own."""
    if path:
        keys.check_private(Path(path))
    return path


def _path(written: str, folder: Path) -> str:
    """Return a path of the configuration, a relative one counted from its folder; nothing stays nothing."""
    return str(folder / Path(written).expanduser()) if written else ""


def _tls(table: TlsTable, folder: Path) -> Tls:
    ca, cert, key = (_path(written, folder) for written in (table.ca, table.cert, table.key))
    return Tls(ca, cert, _private(key), table.hostname, table.handshake_first)

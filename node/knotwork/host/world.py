"""What is in force now? The configuration, its plugins and agents; and how a new configuration takes its place.

`prepare` does everything that can fail, beside what runs; `Change.commit` swaps without an await; `Change.retire` lets the old
ones finish. Start and reload go through the same three steps.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import child
from knotwork.config import diff, instances, load, secrets
from knotwork.config.instance_tables import SECTIONS
from knotwork.config.keys import lookup
from knotwork.host import code_files
from knotwork.mesh import policy as policies
from knotwork.mesh.admission import Admission
from knotwork.mesh.hosting import HostedAgent, Job
from knotwork.mesh.records import AgentRecord, AwayRecord
from knotwork.mesh.schemas import Schema
from knotwork.sdk import KINDS, PluginConfig
from knotwork.sdk.errors import ConfigInvalid, PluginFailed
from knotwork.sockets import catalog as catalogs
from knotwork.sockets import loading, offered
from knotwork.sockets.slot import Instance

if TYPE_CHECKING:
    from knotwork.config.instance_tables import ExecutorTable
    from knotwork.config.loaded import Loaded
    from knotwork.mesh.hosting import Hosting
    from knotwork.mesh.policy import Policy
    from knotwork.sdk import Kind
    from knotwork.sockets.catalog import Catalog, Entry
    from knotwork.sockets.slot import Slot
    from knotwork.sockets.slots import Prepared, Slots
    from knotwork.telemetry.emitter import Emitter

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 20.0
"""What a start may take longer that has to look at a broken plugin first, in a process made for that; nobody waits."""
WHY_MAX = 200
Marks = dict[tuple["Kind", str], str]


@dataclass(eq=False)
class World:
    """Everything that a reload exchanges. `revision` counts accepted configurations."""

    loaded: Loaded
    catalog: Catalog
    slots: Slots
    hosting: Hosting
    emitter: Emitter
    revision: int = 0
    marks: Marks = field(default_factory=dict)
    code: code_files.Code = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    on_commit: Callable[[], None] = lambda: None
    policy: Policy = policies.READY

    def routers(self) -> list[Slot]:
        """Return the routers in the order they are asked."""
        found = (self.slots.get("routers", name) for name in self.loaded.config.routing.routers)
        return [slot for slot in found if slot is not None]

    def triggers(self, project: str) -> dict[str, Slot]:
        """Return the plugins that triggers of a project may name, by their ids."""
        tables = self.loaded.config.triggers
        found = ((name, self.slots.get("triggers", name)) for name in tables if project in tables[name].projects)
        return {name: slot for name, slot in found if slot is not None}

    def read(self) -> Loaded:
        """Return what the sources say now; blocks. Raises `ConfigInvalid`; imports no plugin to tell what is wrong."""
        return load.read(
            self.loaded.sources, find_types=lambda data, _: offered.types_of(self.catalog, data, complete=False)
        )

    def plan(self, loaded: Loaded) -> diff.Plan:
        """Return what putting `loaded` into force would do; changes nothing, imports no plugin. Blocks.

        Raises `ConfigInvalid` for everything that plugins and schemas have against it.
        """
        catalog = loading.extended(self.catalog, offered.files_of(loaded), offered.uses_of(loaded), imports=False)
        configs = _check(loaded, catalog)
        for table in loaded.config.executors.values():
            if table.enabled:
                _schemas(table)
        marks = _marks(loaded, configs)
        plan = diff.plan(self.loaded.config, loaded.config, self.marks, marks)
        return self._with_new_code(plan, loaded, self._wanted(loaded, catalog, configs, marks))

    async def prepare(self, loaded: Loaded, *, first: bool = False) -> Change:
        """Start whatever is new beside what runs; raises `ConfigInvalid` with nothing changed.

        With `first` (the node's own start) a plugin that cannot start yet is no reason to fail.
        """
        # in a thread: a new plugin that hangs while it is imported must not stop heartbeats
        files, uses = offered.files_of(loaded), offered.uses_of(loaded)
        catalog = await asyncio.to_thread(loading.extended, self.catalog, files, uses)
        configs = await asyncio.to_thread(_check, loaded, catalog)
        code = await asyncio.to_thread(code_files.of, configs, loaded.folder)  # before it is loaded: later means again
        marks = await asyncio.to_thread(_marks, loaded, configs)
        plan = diff.plan(self.loaded.config, loaded.config, self.marks, marks)
        if plan.refused and not first:
            raise ConfigInvalid(
                f"This cannot change while the node runs: {', '.join(plan.refused)}.",
                code="config.needs_restart",
                hint="Restart the node, or take these changes back.",
                detail={"keys": list(plan.refused)},
            )
        wanted = self._wanted(loaded, catalog, configs, marks)
        plan = self._with_new_code(plan, loaded, wanted)
        schemas = {name: _schemas(table) for name, table in loaded.config.executors.items() if table.enabled}
        policy = _policy(loaded)
        try:
            prepared = await self.slots.prepare(wanted, lenient=first)
        except PluginFailed as error:
            raise _not_started(error) from error
        return Change(self, loaded, catalog, marks, code, tuple(wanted), plan, prepared, schemas, policy)

    def _with_new_code(self, plan: diff.Plan, loaded: Loaded, wanted: list[Instance]) -> diff.Plan:
        """Return the plan with those instances as changed whose table is the same, but not the code of their plugin."""
        found, reopen = dict(plan.instances), dict(plan.reopen)
        for instance in wanted:
            slot = self.slots.get(instance.kind, instance.id)
            table = loaded.config.instances(instance.kind).get(instance.id)
            if slot is None or table is None or instance.same_as(slot.instance):
                continue
            known = found[instance.kind]
            changed = {instance.id: (table, table), **known.changed}
            found[instance.kind] = diff.Difference(known.added, changed, known.removed)
            reopen[instance.kind] = reopen.get(instance.kind, frozenset()) | {instance.id}
        return replace(plan, instances=found, reopen=reopen)

    def _wanted(
        self, loaded: Loaded, catalog: Catalog, configs: Mapping[tuple[Kind, str], PluginConfig], marks: Marks
    ) -> list[Instance]:
        """Return every instance there is to be; one of a broken plugin has a slot, too, so that status says why."""
        wanted = []
        for kind in KINDS:
            for name, table in loaded.config.instances(kind).items():
                if not table.enabled:
                    continue
                mark = marks.get((kind, name), "")
                error = _broken(catalog, kind, table.type)
                if error is None:
                    entry, config = catalog.find(kind, table.type), configs[kind, name]
                    wanted.append(_instance(loaded, kind, name, entry, config, mark=mark))
                    continue
                entry = catalogs.stand_in(kind, table.type, error)
                config = catalogs.AnyConfig(**lookup(loaded.merged.data, (SECTIONS[kind], name)))
                broken = _instance(loaded, kind, name, entry, config, mark=mark)
                again = partial(self._look_again, loaded, kind, name)
                start_timeout_s = 2 * broken.start_timeout_s + LOOK_AGAIN_S
                if error.code == catalogs.SAFE_MODE:  # left out on purpose: that ends no start, and no reload either
                    broken = replace(broken, on_start_error="ignore")
                wanted.append(replace(broken, again=again, start_timeout_s=start_timeout_s))
        for name in instances.implied_routers(loaded.config):
            entry = catalog.find("routers", name)
            wanted.append(Instance("routers", name, entry, entry.factory.config()))
        for name in instances.implied_memories(loaded.config):
            entry = catalog.find("memories", name)
            wanted.append(Instance("memories", name, entry, entry.factory.config()))
        return wanted

    async def _look_again(self, loaded: Loaded, kind: Kind, name: str) -> Instance:
        """Return what an instance is whose plugin was broken; raises what is wrong with it.

        It is given more time than a reload gives it, because nobody waits for it.
        """
        table = loaded.config.instances(kind)[name]
        use, patience_s = offered.use_of(loaded, kind, name), loaded.config.plugins.start_timeout_s
        piece = await asyncio.to_thread(loading.looked_again, self.catalog, use, patience_s=patience_s)
        entry = piece.find(kind, table.type)
        known = instances.Known(piece.config_classes(), piece.config_classes(apart=True))
        configs = await asyncio.to_thread(instances.check_instances, loaded, known, only=(kind, name))
        marks = await asyncio.to_thread(_marks, loaded, configs)
        self.catalog = self.catalog.healed(piece)
        self.marks = {**self.marks, (kind, name): marks[kind, name]}
        return _instance(loaded, kind, name, entry, configs[kind, name], mark=marks[kind, name])

    def agents(self, schemas: Mapping[str, tuple[Schema | None, Schema | None]]) -> list[HostedAgent]:
        """Return the agents of the configuration in force; those that stay keep their running and waiting calls."""
        made = []
        for name, table in self.loaded.config.executors.items():
            slot = self.slots.get("executors", name)
            if slot is None:
                continue
            old = self.hosting.get(name)
            admission: Admission[Job] = old.admission if old else Admission(table.concurrency, table.queue_max)
            admission.resize(table.concurrency, table.queue_max)
            agent = HostedAgent(_record(name, table), frozenset(table.projects), slot, admission, *schemas[name])
            if old is not None:
                agent.counts = old.counts
            made.append(agent)
        return made

    def visible(self, project: str) -> tuple[AgentRecord, ...]:
        """Return what others may see of our agents in a project: those whose plugin runs, with their load of now."""
        return tuple(
            _with_load(agent)
            for agent in self.hosting.agents()
            if project in agent.projects and agent.slot.state == "running"
        )

    def away(self, project: str) -> tuple[AwayRecord, ...]:
        """Return those of our agents in a project whose plugin does not run, and why."""
        return tuple(
            AwayRecord(agent.record.name, agent.record.capabilities, _why_away(agent.slot))
            for agent in self.hosting.agents()
            if project in agent.projects and agent.slot.state != "running"
        )

    def sync_sinks(self) -> None:
        """Send telemetry to every sink that runs and to no other: one that crashed is closed, and gets nothing."""
        attached = self.emitter.sinks()
        for slot in self.slots.all("telemetry"):
            if slot.state != "running":
                self.emitter.drop(slot.id)
            elif attached.get(slot.id) is not slot.plugin:
                self.emitter.attach(slot.id, slot.plugin)


@dataclass(eq=False)
class Change:
    """A new configuration, ready to be put into force or dropped."""

    world: World
    loaded: Loaded
    catalog: Catalog
    marks: Marks
    code: code_files.Code
    wanted: tuple[Instance, ...]
    plan: diff.Plan
    prepared: Prepared
    schemas: dict[str, tuple[Schema | None, Schema | None]]
    policy: Policy

    def commit(self) -> None:
        """Put it into force in one step: readers see the old world or the new, never a mixture."""
        world = self.world
        self.prepared.commit()
        world.loaded, world.catalog, world.marks, world.instances = self.loaded, self.catalog, self.marks, self.wanted
        world.policy, world.code = self.policy, self.code
        world.hosting.replace(world.agents(self.schemas))
        try:
            world.sync_sinks()
            world.on_commit()
        except Exception:  # it is in force: whoever cannot be told, a sink of a plugin say, must not undo half of it
            log.exception("not everybody was told of the new configuration")

    async def retire(self, drain_s: float) -> None:
        """Let what was replaced finish, `drain_s` seconds at most."""
        gone = [slot.id for slot in self.prepared.old if slot.kind == "telemetry"]
        kept = {slot.id for slot in self.world.slots.all("telemetry")}
        try:
            for sink in gone:
                if sink not in kept:
                    await self.world.emitter.detach(sink)
            await self.world.emitter.settle()
        finally:
            await self.prepared.retire(drain_s)

    async def abandon(self) -> None:
        """Drop it: everything stays as it was."""
        await self.prepared.abandon()


def _not_started(error: PluginFailed) -> ConfigInvalid:
    """Return the error of a configuration that is refused because plugins of it do not start."""
    told = [
        {
            "message": f"{SECTIONS[one['kind']]}.{one['id']}: {one['message']}",
            "key": f"{SECTIONS[one['kind']]}.{one['id']}",
            "code": one["code"],
        }
        for one in error.detail["problems"]
    ]
    return ConfigInvalid(error.message, code="plugin.start_failed", hint=error.hint, detail={"problems": told})


def _policy(loaded: Loaded) -> Policy:
    return policies.compiled(loaded.config.boundaries, home=os.path.expanduser("~"))  # noqa: PTH111  never raises


def _why_away(slot: Slot) -> str:
    """Return how a plugin is that does not run, in no more words than others need."""
    return (f"its plugin is {slot.state}" + (f": {secrets.redact(slot.why)}" if slot.why else ""))[:WHY_MAX]


def _with_load(agent: HostedAgent) -> AgentRecord:
    """Return the agent's record with the calls it has now."""
    running, queued = agent.admission.running, agent.admission.queued
    if (running, queued) == (agent.record.running, agent.record.queued):
        return agent.record
    return msgspec.structs.replace(agent.record, running=running, queued=queued)


def _check(loaded: Loaded, catalog: Catalog) -> dict[tuple[Kind, str], PluginConfig]:
    """Return the plugin's own configuration of every instance; one of a broken plugin is an error of the plugin."""
    return instances.check_instances(loaded, offered.types_of(catalog, loaded.merged.data))


def _instance(loaded: Loaded, kind: Kind, name: str, entry: Entry, config: PluginConfig, *, mark: str) -> Instance:
    table = loaded.config.instances(kind)[name]
    return Instance(
        kind,
        name,
        entry,
        config,
        hosted=table.hosted,
        memory_mb=table.memory_mb,
        on_start_error=table.on_start_error,
        start_timeout_s=loaded.config.plugins.start_timeout_s,
        fingerprint=mark,
    )


def _broken(catalog: Catalog, kind: Kind, type_name: str) -> PluginFailed | None:
    """Return why a type that exists cannot be used, None when it can."""
    try:
        catalog.find(kind, type_name)
    except PluginFailed as error:
        return error
    return None


def _marks(loaded: Loaded, configs: Mapping[tuple[Kind, str], PluginConfig]) -> Marks:
    """Return a mark of every instance; it changes with the plugin's own settings, its secrets and the files of its code.

    Not with what the node itself knows of it: a new description or limit is no reason to end what runs.
    """

    def read(reference: object) -> str:
        return secrets.resolve(reference, folder=loaded.folder, child_env=child.clean_env)

    return {
        (kind, name): secrets.fingerprint((table.settings, config, _code_of(config, loaded.folder)), read)
        for kind in KINDS
        for name, table in loaded.config.instances(kind).items()
        for config in [configs.get((kind, name))]
        if table.enabled
    }


def _code_of(config: PluginConfig | None, base: Path) -> list[str]:
    return [] if config is None else list(code_files.read(config.code_files(base)).values())


def _schemas(table: ExecutorTable) -> tuple[Schema | None, Schema | None]:
    return (
        Schema(table.input_schema, "input schema") if table.input_schema is not None else None,
        Schema(table.output_schema, "output schema") if table.output_schema is not None else None,
    )


def _record(name: str, table: ExecutorTable) -> AgentRecord:
    return AgentRecord(
        name=name,
        capabilities=table.capabilities,
        description=table.description,
        tags=table.tags,
        boundaries=table.boundaries,
        executor=table.type,
        concurrency=table.concurrency,
        queue_max=table.queue_max,
        timeout_s=table.timeout_s,
        input_schema=table.input_schema,
        output_schema=table.output_schema,
    )

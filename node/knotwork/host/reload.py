"""How does a changed configuration come into force? One path for a changed file, SIGHUP, the op and a rollback.

One reload runs at a time, and to its end, whoever waits for it. A bad file changes nothing and stops
nothing: the verdict says why, in the log, as an event, in `knotwork status` and to whoever asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from knotwork.bus.background import together
from knotwork.config import problems, revisions
from knotwork.config.instance_tables import SECTIONS
from knotwork.desk.moments import rfc3339
from knotwork.host import boot, code_files, put_back
from knotwork.host.watch import watch
from knotwork.ops import replies
from knotwork.sdk.errors import ConfigInvalid, KnotworkError, Unavailable

if TYPE_CHECKING:
    from knotwork.config.loaded import Loaded
    from knotwork.config.model import ProjectTable
    from knotwork.host.boot import Nats
    from knotwork.host.layout import Layout
    from knotwork.host.projects import Projects
    from knotwork.host.world import Change, World

Work = Callable[[], Awaitable[replies.ReloadVerdict]]
log = logging.getLogger(__name__)
NEW_PROJECT_WAIT_S = 10.0
DRAIN_LOOK_S = 0.05
DRAIN_END_S = 2.0
"""How long calls that were ended may take to stop."""


class Reloader:
    """Puts new configurations into force, one at a time."""

    def __init__(self, world: World, projects: Projects, nats: Nats, layout: Layout, group: asyncio.TaskGroup) -> None:
        """Work on `world` and `projects`; reloads, and old plugins that finish, are tasks of `group`."""
        self._world = world
        self._projects = projects
        self._nats = nats
        self._layout = layout
        self._group = group
        self._one = asyncio.Lock()
        self._triggers: set[str] = set()
        self._asked = asyncio.Event()
        self._leaving: dict[str, tuple[ProjectTable, Change]] = {}
        self._closed = False
        self.launched: Callable[[str], bool] = lambda _project: False
        """Whether something runs that our targets started for a project; set by the rooms."""
        self._taken: replies.ReloadVerdict | None = None
        """What the last change of the files did: asked again, we tell that instead of nothing."""
        self.last: replies.ReloadVerdict | None = None

    def ask(self, trigger: str) -> None:
        """Reload soon; for those who do not wait for the verdict."""
        self._triggers.add(trigger)
        self._asked.set()

    async def run(self) -> None:
        """Carry out what `ask` asked for, and watch the files, until cancelled."""
        async with asyncio.TaskGroup() as group:
            files = watch(lambda: self._world.loaded, partial(self.ask, "file"), lambda: self._world.code)
            group.create_task(files, name="config watch")
            while True:
                await self._asked.wait()
                self._asked.clear()
                # a changed file is the least of reasons: it says "unchanged" where a signal means secrets, too
                trigger = min(self._triggers - {"file"}, default="file")
                self._triggers.clear()
                try:
                    await self.reload(trigger)
                except KnotworkError as error:
                    log.error("%s", error)  # noqa: TRY400  a verdict for people, not a bug with a traceback

    async def reload(self, trigger: str) -> replies.ReloadVerdict:
        """Read the files and put them into force; raises `ConfigInvalid` with nothing changed.

        Whoever asks only waits for the verdict: being cancelled does not interrupt the reload.
        """
        return await self._to_the_end(partial(self._reload, trigger))

    async def rollback(self, number: int) -> replies.ReloadVerdict:
        """Write the files of an earlier revision again and put them into force; when refused, the files are put back.

        Raises `NotFound`, `Conflict` and what `reload` raises.
        """
        return await self._to_the_end(partial(self._rollback, number))

    def close(self) -> None:
        """Refuse every further reload: a closing group takes no new tasks."""
        self._closed = True

    # -- one at a time -----------------------------------------------------------------------------------------------

    async def _to_the_end(self, work: Work) -> replies.ReloadVerdict:
        """Return the verdict of work that goes on when nobody waits for it any more."""
        carried = _carried_out(work)
        try:
            task = self._group.create_task(carried, name="reload once")
        except RuntimeError:  # the group is closing
            carried.close()
            raise _stopping() from None
        await asyncio.wait([task])  # leaves the task alone when whoever waits is cancelled
        if task.cancelled():
            raise _stopping()
        outcome = task.result()
        if isinstance(outcome, KnotworkError):
            raise outcome
        return outcome

    async def _reload(self, trigger: str) -> replies.ReloadVerdict:
        async with self._one:
            return await self._exchange(trigger)

    async def _rollback(self, number: int) -> replies.ReloadVerdict:
        async with self._one:
            self._admit()
            revision = await asyncio.to_thread(revisions.load, self._layout.revisions, number)
            before = await asyncio.to_thread(put_back.Before, revision)
            kept = await asyncio.to_thread(revisions.listed, self._layout.revisions)
            try:
                done = await asyncio.to_thread(revisions.restore, revision, kept)
                return await self._exchange("rollback", put_back.Back(revision, done))
            except BaseException as error:
                await asyncio.to_thread(before.put_back)
                if isinstance(error, ConfigInvalid) and error.code == "config.needs_restart":
                    hint = f"Stop the node, say `knotwork config rollback {number}` again, and start it."
                    raise ConfigInvalid(error.message, code=error.code, hint=hint, detail=error.detail) from error
                raise

    async def _exchange(self, trigger: str, back: put_back.Back | None = None) -> replies.ReloadVerdict:
        """Put what the files say into force; the caller holds the lock. `back` is the revision they were written from."""
        start_s = time.monotonic()
        try:
            self._admit()
            loaded = await asyncio.to_thread(self._world.read)
            # a file that was only touched; whoever asks by name also means secrets and plugins, which have no digest
            if loaded.digest == self._world.loaded.digest and trigger == "file" and not await self._has_new_code():
                return self._told(
                    replies.ReloadVerdict(result="unchanged", revision=self._world.revision), start_s, trigger
                )
            if back is None:
                refuse_emptied(self._world.loaded, loaded)
            else:
                back.refuse_other(loaded)
            change = await self._world.prepare(loaded)
            await self._put(change)
        except Exception as error:  # a plugin or a bug of ours: it must not end a node that runs
            ours = _as_ours(error)
            self._told(_refused(ours, self._world.revision), start_s, trigger)
            if ours is error:
                raise
            raise ours from error
        told = [back.aside if back else "", await self._keep(change.loaded)]
        message = " ".join(line for line in told if line)
        return self._told(_applied(change, self._world.revision, message), start_s, trigger)

    async def _has_new_code(self) -> bool:
        code = self._world.code
        return await asyncio.to_thread(code_files.read, code) != code

    def _admit(self) -> None:
        if self._closed:
            raise _stopping()

    async def _put(self, change: Change) -> None:
        """Commit, after everything that can still fail."""
        projects = change.plan.projects
        before = boot.projects_of(self._world.loaded.config)
        served, moved = False, list[str]()
        try:
            if projects.added:
                self._projects.must_reach()
            if projects.added or projects.changed:
                served = True
                await self._nats.serve(self._accounts({**before, **boot.projects_of(change.loaded.config)}))
                touched = [*projects.added, *projects.changed]
                moved = await self._projects.moved(touched, change.loaded, wait_s=NEW_PROJECT_WAIT_S)
                moved_on = await self._projects.renamed(
                    projects.removed, projects.added, change.loaded, wait_s=NEW_PROJECT_WAIT_S
                )
                await self._cut([*moved, *moved_on])
                await self._projects.start([*projects.added, *moved], change.loaded, wait_s=NEW_PROJECT_WAIT_S)
            self._admit()
        except BaseException:
            try:
                await change.abandon()
            finally:
                if served:
                    await self._again(before, [*projects.added, *moved])
            raise
        change.commit()  # from here to the end of this method nothing waits and nothing fails
        for name in projects.added:
            self._leaving.pop(name, None)
        self._leaving.update({name: (table, change) for name, table in projects.removed.items()})
        self._group.create_task(self._retire(change), name="retire old plugins")
        if projects.removed:
            self._group.create_task(self._let_go(change), name="leave projects")

    def _accounts(self, projects: Mapping[str, ProjectTable]) -> dict[str, ProjectTable]:
        """Return these projects and those that are still being left."""
        return {**{name: table for name, (table, _) in self._leaving.items()}, **projects}

    async def _cut(self, names: list[str]) -> None:
        """Leave projects whose credentials are others now: what runs there cannot be answered over the new ones."""
        if names:
            await self._drain(lambda: set(names), 0.0)
            await self._projects.stop(names)

    async def _again(self, before: Mapping[str, ProjectTable], touched: Iterable[str]) -> None:
        """Serve what was served before a reload that failed."""
        if self._closed:
            return
        try:
            await self._projects.stop([name for name in touched if name not in {*before, *self._leaving}])
            await self._nats.serve(self._accounts(before))
            self._projects.begin(before, self._world.loaded)  # those that were left for nothing
        except KnotworkError as error:
            log.warning("accounts of a refused configuration stay until the next: %s", error)

    async def _keep(self, loaded: Loaded) -> str:
        """Keep a configuration that is in force; returns why that failed, empty when it did not."""
        try:
            revision = await asyncio.to_thread(revisions.save, self._layout.revisions, loaded, time.time())
        except Exception as error:  # noqa: BLE001  it is in force, whatever is wrong with our disk
            why = f"It is in force, but not kept for a rollback: {KnotworkError.of(error)}"
            log.warning("%s", why)
            self._world.emitter.event("config.not_kept", {"why": why}, level="warning")
            return why
        self._world.revision = revision.number
        return ""

    # -- afterwards --------------------------------------------------------------------------------------------------

    async def _retire(self, change: Change) -> None:
        try:
            await change.retire(change.loaded.config.node.drain_s)
        except Exception as error:  # noqa: BLE001  what is left of old plugins must not end a node that runs
            log.warning("after the reload: %s", _as_ours(error))

    async def _let_go(self, change: Change) -> None:
        """Leave the projects that were removed: their calls may finish first. One added again meanwhile stays."""

        def going() -> set[str]:
            return {name for name, (_, by) in self._leaving.items() if by is change}

        try:
            drain_s = change.loaded.config.node.drain_s
            await together(self._drain(going, drain_s), self._ended(going, drain_s))
            async with self._one:
                names = going()
                await self._projects.stop(names)
                for name in names:
                    del self._leaving[name]
                if names and not self._closed:
                    await self._nats.serve(self._accounts(boot.projects_of(self._world.loaded.config)))
        except Exception as error:  # noqa: BLE001  an account too many must not end a node that runs
            log.warning("after the reload: %s", _as_ours(error))

    async def _ended(self, going: Callable[[], set[str]], within_s: float) -> None:
        """Wait until what targets started for these projects has ended, `within_s` seconds: later nobody could end it."""
        end_s = time.monotonic() + within_s
        while any(self.launched(name) for name in going()) and time.monotonic() < end_s:  # noqa: ASYNC110  as below
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _drain(self, going: Callable[[], set[str]], drain_s: float) -> None:
        """Let the calls of these projects finish for `drain_s` seconds, then end the rest."""
        hosting = self._world.hosting

        async def over(timeout_s: float) -> bool:
            end_s = time.monotonic() + timeout_s
            while any(job.project in going() for job in hosting.running()):
                if (left_s := end_s - time.monotonic()) <= 0:
                    return False
                await asyncio.sleep(min(DRAIN_LOOK_S, left_s))
            return True

        if await over(drain_s):
            return
        for job in hosting.running():
            if job.project in going():
                why = f"The node no longer serves project {job.project}; the call was ended."
                hosting.end(job, Unavailable(why, code="node.stopping", retry_after_s=1.0))
        await over(DRAIN_END_S)

    def _told(self, verdict: replies.ReloadVerdict, start_s: float, trigger: str) -> replies.ReloadVerdict:
        if verdict.result == "unchanged" and not verdict.message and self._taken is not None:
            verdict = verdict.model_copy(update={"message": _taken_over(self._taken)})
        took_s = round(time.monotonic() - start_s, 4)
        verdict = verdict.model_copy(update={"took_s": took_s, "at": rfc3339(None), "trigger": trigger})
        self.last, self._taken = verdict, verdict if verdict.result == "applied" else self._taken
        name = "config.refused" if verdict.result == "refused" else f"config.{verdict.result}"
        level = "error" if verdict.result == "refused" else "info"
        self._world.emitter.event(name, verdict.model_dump(mode="json"), level=level)
        touched = _touched(verdict)
        log.info("configuration %s in %.3f s%s", verdict.result, took_s, f": {touched}" if touched else "")
        return verdict


def refuse_emptied(before: Loaded, now: Loaded) -> None:
    """Raise `ConfigInvalid` when files that said something are empty: seen while an editor or a full disk truncates one."""
    if _says_nothing(now) and not _says_nothing(before):
        path = str((now.texts or before.texts)[0].path)
        hint = "Comments alone mean the defaults at the start; to take everything away now, write an empty [executors]."
        raise problems.invalid(
            [problems.Problem(path, 1, 1, "", "the file is empty now, or gone", hint, "config.emptied")]
        )


def _says_nothing(loaded: Loaded) -> bool:
    return not any(tomllib.loads(text.text) for text in loaded.texts)


async def _carried_out(work: Work) -> replies.ReloadVerdict | KnotworkError:
    """Return the error instead of raising it: a task that fails would end its group, the node's."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001  a bug in a reload must not end a node that runs
        return _as_ours(error)


def _stopping() -> Unavailable:
    return Unavailable("The node is stopping.", code="node.stopping")


def _as_ours(error: Exception) -> KnotworkError:
    """Return an error on purpose as it is, anything else as a bug, after writing it down."""
    if isinstance(error, KnotworkError):
        return error
    log.error("the reload failed", exc_info=error)
    return KnotworkError.of(error)


def _applied(change: Change, revision: int, message: str) -> replies.ReloadVerdict:
    plan = change.plan
    found = plan.instances
    started = change.prepared.started  # a plugin's code may be new, too
    reopened = {f"{SECTIONS[slot.kind]}.{slot.id}" for slot in started}
    named = {f"{SECTIONS[kind]}.{name}" for kind in found for name in (*found[kind].added, *found[kind].changed)}
    return replies.ReloadVerdict(
        result="applied" if plan or reopened else "unchanged",
        revision=revision,
        added=[f"{SECTIONS[kind]}.{name}" for kind in found for name in found[kind].added]
        + [f"projects.{name}" for name in plan.projects.added],
        changed=[f"{SECTIONS[kind]}.{name}" for kind in found for name in found[kind].changed]
        + sorted(reopened - named)
        + [f"projects.{name}" for name in plan.projects.changed],
        removed=[f"{SECTIONS[kind]}.{name}" for kind in found for name in found[kind].removed]
        + [f"projects.{name}" for name in plan.projects.removed],
        live=list(plan.live),
        message=message,
    )


def _touched(verdict: replies.ReloadVerdict) -> str:
    return ", ".join([*verdict.added, *verdict.changed, *verdict.removed, *verdict.live])


def _taken_over(verdict: replies.ReloadVerdict) -> str:
    """Return, in a sentence, that what somebody asks for again was done: the watch may be quicker than who saved a file."""
    return f"What the files say is in force since {verdict.at}: {_touched(verdict)[:1000]}."


def _refused(error: KnotworkError, revision: int) -> replies.ReloadVerdict:
    rows = error.detail.get("problems") if isinstance(error, ConfigInvalid) else None
    problems = [
        replies.Problem(**{key: value for key, value in row.items() if key in replies.Problem.model_fields})
        for row in rows or []
        if isinstance(row, dict)
    ]
    return replies.ReloadVerdict(result="refused", revision=revision, problems=problems, message=str(error)[:4000])

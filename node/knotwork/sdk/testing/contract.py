"""What must every plugin do, whatever its kind? Start and stop cleanly, however it is treated."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
from pydantic import ValidationError

from knotwork.sdk.factory import Factory, PluginConfig
from knotwork.sdk.testing.one import host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

LEFT_BEHIND_S = 15.0
"""Generous: a machine that tests is a busy one, and what ends in time does not wait for this."""
POLL_S = 0.02
REPEATS = 3


class PluginContract:
    """Derive from the suite of your kind, set `factory` and what it needs; plain pytest runs the tests.

    `config` is what an operator would write, `bad_configs` are tables that must be refused. Set them on the class or
    in an autouse fixture. `timeout_s` (seconds) bounds each test.
    """

    __test__: ClassVar[bool] = False
    factory: ClassVar[Factory[Any]]
    config: Mapping[str, Any] = {}
    bad_configs: Sequence[Mapping[str, Any]] = ()
    timeout_s: float = 90.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let pytest collect what derives from a suite, not the suites themselves."""
        super().__init_subclass__(**kwargs)
        cls.__test__ = not cls.__module__.startswith("knotwork.sdk.testing")

    def run(self, steps: Coroutine[Any, Any, None]) -> None:
        """Run the steps of one test in a loop of their own and check that nothing is left behind."""

        async def bounded() -> None:
            async with asyncio.timeout(self.timeout_s):
                async with nothing_left_behind():
                    await steps

        asyncio.run(bounded())

    def test_factory_is_well_formed(self) -> None:
        """The name is a token, the config a `PluginConfig`, and there is a summary for listings."""
        assert self.factory.name.replace("-", "").replace("_", "").isalnum(), "the type name is not a token"
        assert self.factory.name == self.factory.name.lower(), "the type name has capitals"
        assert issubclass(self.factory.config, PluginConfig), "the config class does not derive from PluginConfig"
        assert self.factory.summary, "a summary is what `knotwork plugin list` shows"

    def test_config_is_accepted_and_frozen(self) -> None:
        """The sample config is valid, equals itself when read again, and cannot be changed."""
        checked = self.factory.config.model_validate(dict(self.config))
        assert checked == self.factory.config.model_validate(dict(self.config)), "equal tables make unequal configs"
        assert self.factory.config.model_config.get("frozen"), "the config can be changed after it was checked"

    def test_config_survives_json(self) -> None:
        """The config can be handed to a process of its own and shown to people."""
        checked = self.factory.config.model_validate(dict(self.config))
        again = self.factory.config.model_validate_json(checked.model_dump_json(exclude_unset=True))
        assert again == checked, "the config changes on its way through JSON"
        assert self.factory.config.model_json_schema()["type"] == "object"

    def test_config_refuses_what_is_wrong(self) -> None:
        """An unknown key and every one of `bad_configs` are refused."""
        for table in ({**self.config, "no_such_key_anywhere": 1}, *self.bad_configs):
            try:
                self.factory.config.model_validate(dict(table))
            except ValidationError:
                continue
            raise AssertionError(f"accepted: {table}")

    def test_opens_and_closes_again_and_again(self) -> None:
        """What was closed can be opened again."""

        async def steps() -> None:
            for _ in range(REPEATS):
                async with host(self.factory, self.config):
                    pass

        self.run(steps())

    def test_two_run_side_by_side(self) -> None:
        """A reload starts the new one beside the old; an `exclusive` plugin need not."""

        async def steps() -> None:
            async with host(self.factory, self.config), host(self.factory, self.config):
                pass

        if not self.factory.exclusive:
            self.run(steps())

    def test_lets_the_error_of_its_user_through(self) -> None:
        """Leaving because of an error closes the plugin and keeps the error."""

        class OfTheUser(Exception):
            pass

        async def steps() -> None:
            try:
                async with host(self.factory, self.config):
                    raise OfTheUser  # noqa: TRY301  this is what is tried
            except OfTheUser:
                return
            except BaseExceptionGroup as group:
                assert group.subgroup(OfTheUser) is not None, "lost the error"  # noqa: PT017  a TaskGroup wraps it
                return
            raise AssertionError("swallowed the error")

        self.run(steps())

    def test_can_be_cancelled_while_it_starts(self) -> None:
        """A start that is cancelled, early or late, ends at once and leaves nothing behind."""

        async def steps() -> None:
            for turns in (0, 1, 3):
                await self._cancelled_start(turns)

        self.run(steps())

    async def _cancelled_start(self, turns: int) -> None:
        async def open_it() -> None:
            async with host(self.factory, self.config):
                await asyncio.Event().wait()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(open_it())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=LEFT_BEHIND_S)
            assert not pending, f"still starting {LEFT_BEHIND_S:g} s after it was cancelled"


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Check that the block leaves no task and no child process that was not there before."""
    tasks = asyncio.all_tasks()
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = ""
    try:
        async with asyncio.timeout(LEFT_BEHIND_S):
            while left := _left(tasks, children):  # noqa: ASYNC110  processes end without telling us
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"left behind: {left}") from None


def _left(tasks: set[asyncio.Task[Any]], children: set[int]) -> str:
    """Name what is there now and was not before; an empty text when nothing is."""
    new_tasks = [task.get_name() for task in asyncio.all_tasks() - tasks if not task.done()]
    new_children = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.pid not in children and child.status() != psutil.STATUS_ZOMBIE:
                new_children.append(f"{child.name()} ({child.pid})")
        except psutil.NoSuchProcess:
            continue
    return "; ".join([*(f"task {name}" for name in new_tasks), *(f"process {name}" for name in new_children)])

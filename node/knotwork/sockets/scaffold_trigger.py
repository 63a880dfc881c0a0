"""The texts of a new trigger: it fires for each line that is added to a file."""

MODULE = '''"""$name: fires for each line that is added to a file."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from knotwork.sdk import Context, Factory, Firing, Mark, PluginConfig, Trigger, Unavailable, hookimpl
from pydantic import Field

knotwork_api = $api


class ${Name}Config(PluginConfig):
    """What an operator may write in the plugin's table."""

    file: str = Field(default="lines.txt", min_length=1, description="the file; relative: from the configuration")
    every_s: float = Field(default=0.2, gt=0, le=3600, description="seconds between two looks at it")


class $Name:
    """Tells of lines."""

    def __init__(self, config: ${Name}Config, context: Context) -> None:
        self.config = config
        self.file = Path(context.base, config.file)

    async def firings(self, since: Any) -> AsyncIterator[Firing | Mark]:
        """Tell each line from where the mark is; its place in the file is its id, and the mark is where it ends."""
        place = since
        if place is None:  # lines that are there already are none of its business
            place = len(await asyncio.to_thread(self.read, 0))
            yield Mark(place)
        while True:
            for line in (await asyncio.to_thread(self.read, place)).splitlines(keepends=True):
                if not line.endswith(b"\\n"):
                    break  # it is still being written
                begin, place = place, place + len(line)
                yield Firing(f"line-{begin}", line.decode("utf-8", "replace").rstrip("\\n"), mark=place)
            await asyncio.sleep(self.config.every_s)

    def read(self, place: int) -> bytes:
        """Return what stands in the file from a place on; a file that is not there is empty."""
        try:
            return self.file.read_bytes()[place:]
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise Unavailable(f"{self.file} cannot be read: {error.strerror}.", code="$name.unreadable") from error


@asynccontextmanager
async def open_plugin(config: ${Name}Config, context: Context) -> AsyncIterator[$Name]:
    """Entering is start, leaving is stop; open what it needs before the yield and close it after."""
    yield $Name(config, context)


FACTORY = Factory(name="$name", config=${Name}Config, open=open_plugin, summary="Fires for each line of a file.")


@hookimpl
def triggers() -> Iterator[Factory[Trigger]]:
    """Offer it to the node."""
    yield FACTORY
'''

TEST = """\
import asyncio
from contextlib import aclosing

import pytest
from knotwork.sdk import Firing
from knotwork.sdk.testing import TriggerContract, host

import $module


class TestContract(TriggerContract):
    factory = $module.FACTORY
    bad_configs = [{"every_s": 0}]
    since = 0
    fires = 2

    @pytest.fixture(autouse=True)
    def lines(self, tmp_path):
        file = tmp_path / "lines.txt"
        file.write_text("one\\ntwo\\n")
        self.config = {"file": str(file)}


def test_a_line_that_is_added_fires(tmp_path):
    file = tmp_path / "lines.txt"

    async def steps():
        async with host($module.FACTORY, {"file": str(file)}) as plugin, aclosing(plugin.firings(None)) as telling:
            assert (await anext(telling)).value == 0
            file.write_text("hello\\n")
            assert await anext(telling) == Firing("line-0", "hello", mark=6)

    asyncio.run(steps())
"""

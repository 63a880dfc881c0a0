"""Listings and pages are made from the plugin's own words."""

from contextlib import asynccontextmanager
from typing import Literal

from pydantic import Field

from knotwork.sdk import Factory, PluginConfig, SecretRef
from knotwork.sockets import describe, loading, options
from knotwork.sockets.catalog import CatalogSettings, Entry
from knotwork.sockets.sources import Source


class Config(PluginConfig):
    """Options of a thing."""

    path: str = Field(description="where | how")
    many: list[int] = Field(default=[1], description="numbers")
    mode: Literal["a", "b"] = "a"
    key: SecretRef | None = None
    on: bool = True


@asynccontextmanager
async def open_it(config, context):
    yield None


ENTRY = Entry(
    "executors",
    "thing",
    Factory("thing", Config, open_it, "Does things.", exclusive=True),
    Source("package", "p", "p", version="3"),
)


def test_options_say_type_default_and_whether_required():
    told = {one.name: (one.type, one.required, one.default) for one in options.options(Config)}
    assert told == {
        "path": ("text", True, ""),
        "many": ("list of integer", False, "[1]"),
        "mode": ('"a" or "b"', False, '"a"'),
        "key": ("table", False, "null"),
        "on": ("true or false", False, "true"),
    }


def test_a_page_holds_all_of_it():
    page = describe.docs(ENTRY)
    assert page.startswith("# executors: `thing`\n\nDoes things.")
    assert "Options of a thing." in page
    assert "| `path` | text | required | where \\| how |" in page
    assert "version 3" in page
    assert "side by side" in page
    assert "path = …" in page


def test_rows_of_a_catalog_say_what_is_broken(tmp_path):
    (tmp_path / "bad.py").write_text('"""Bad."""\nimport nothing_of_that_name')
    settings = CatalogSettings(files=("bad.py", "none.py"), base=tmp_path, group="knotwork-tests", patience_s=60)
    loaded = describe.rows(loading.load(settings))
    assert [row.state for row in loaded] == ["broken", "broken"]
    assert "nothing_of_that_name" in loaded[1].reason

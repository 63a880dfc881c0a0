"""The keys of launches: each project has its own, and one that cannot be used keeps no server from starting."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from knotwork.config.model import ProjectTable
from knotwork.host import boot, launch_keys
from knotwork.host.layout import Layout

ONE, TWO = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def users(layout: Layout, *projects: str) -> dict[str, set[str]]:
    accounts = boot.accounts(layout, {name: ProjectTable() for name in projects})
    return {account.name: {user.public_key for user in account.users} for account in accounts}


def test_a_launch_is_a_user_of_its_project_alone_until_it_is_over(layout: Layout):
    before = users(layout, "a", "a-b")
    one, two = launch_keys.admit(layout, "a", ONE), launch_keys.admit(layout, "a-b", TWO)
    assert launch_keys.admit(layout, "a", ONE) == one
    assert stat.S_IMODE((layout.keys / f"launch-a-{ONE}.nk").stat().st_mode) == 0o600
    assert (launch_keys.known(layout, "a"), launch_keys.known(layout, "a-b")) == ({ONE}, {TWO})
    after = users(layout, "a", "a-b")
    assert {name: after[name] - before[name] for name in after} == {
        boot.COMMONS: set(), "a": {one.public}, "a-b": {two.public},
    }  # fmt: skip
    assert not launch_keys.dismiss(layout, "a", {TWO})
    assert launch_keys.dismiss(layout, "a", {ONE, TWO})
    assert users(layout, "a", "a-b") == {**before, "a-b": {*before["a-b"], two.public}}


def test_a_key_that_cannot_be_used_is_passed_over(layout: Layout, caplog: pytest.LogCaptureFixture):
    before = users(layout, "default")
    launch_keys.admit(layout, "default", ONE)
    (layout.keys / f"launch-default-{ONE}.nk").chmod(0o644)
    broken = layout.keys / f"launch-default-{TWO}.nk"
    broken.write_text("no seed")
    broken.chmod(0o600)
    (layout.keys / "launch-default-notes.nk").write_text("of somebody else")
    assert users(layout, "default") == before
    assert [ONE in one or TWO in one for one in caplog.messages] == [True, True]


async def test_keys_are_read_and_written_beside_the_loop(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    threads: set[str] = set()
    load = boot.keys.load_or_create

    def noting(*where):
        threads.add(threading.current_thread().name)
        return load(*where)

    async def reload(_accounts) -> None:
        """Take what was read."""

    monkeypatch.setattr(boot.keys, "load_or_create", noting)
    nats = boot.Nats(layout, SimpleNamespace(reload=reload))  # type: ignore[arg-type]
    await nats.serve({"a": ProjectTable()})
    assert (await nats.admit("a", ONE)).startswith("SU")
    await nats.dismiss("a", {ONE})
    assert launch_keys.known(layout, "a") == set()
    assert threads
    assert threading.current_thread().name not in threads

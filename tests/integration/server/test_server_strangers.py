"""A nats-server that somebody started by hand on the store of a node is noticed before it is destroyed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.free_port import free_port

from knotwork.bus import binary, server, strangers
from knotwork.sdk.errors import Conflict


@pytest.mark.parametrize("how", ["flag", "file"])
async def test_a_server_of_somebody_else_on_our_store_is_refused_by_its_number(tmp_path, how):
    store = tmp_path / "nats"
    store.mkdir()
    settings = server.ServerSettings(store, accounts=(server.Account("A"),))
    (tmp_path / "other.conf").write_text(f'jetstream {{\n  store_dir: "{store}"\n}}\n')
    words = ["-js", "-sd", "nats"] if how == "flag" else ["-c", "other.conf"]
    stranger = subprocess.Popen(
        [binary.find().path, "-a", "127.0.0.1", "-p", str(free_port()), *words],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert stranger.stderr is not None
        assert any("Server is ready" in line for line in stranger.stderr)
        with pytest.raises(Conflict) as refused:
            async with server.run_server(settings):
                pass
        assert (refused.value.code, refused.value.detail["pid"]) == ("bus.store_locked", stranger.pid)
        assert str(stranger.pid) in refused.value.message
    finally:
        stranger.kill()
        stranger.communicate()
    async with server.run_server(settings) as ours:
        assert ours.state == "running"
    strangers.check(store)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["nats-server", "-sd", "/a/b"], ["/a/b"]),
        (["nats-server", "--store_dir=/a/b"], ["/a/b"]),
        (["nats-server", "-sd", "b/../c"], ["/x/c"]),
        (["nats-server", "-c", "/none.conf"], []),
        (["nats-server", "-sd"], []),
        (["nats-server"], []),
    ],
)
def test_what_a_command_line_names(words, found):
    assert strangers.stores_named(words, Path("/x")) == [Path(path) for path in found]

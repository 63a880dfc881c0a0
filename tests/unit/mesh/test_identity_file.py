"""A node stays who it is, and says so when its file is damaged."""

from __future__ import annotations

import json

import pytest

from knotwork.bus import subjects
from knotwork.mesh import identity
from knotwork.sdk.errors import ConfigInvalid


def test_a_node_stays_who_it_is(tmp_path):
    first = identity.load(tmp_path / "deep" / "er")
    assert subjects.is_token(first.name)
    assert identity.load(tmp_path / "deep" / "er") == first
    assert identity.load(tmp_path / "other").uid != first.uid


def test_a_new_name_keeps_the_id(tmp_path):
    first = identity.load(tmp_path)
    renamed = identity.load(tmp_path, "hub")
    assert (renamed.name, renamed.uid) == ("hub", first.uid)
    assert identity.load(tmp_path) == renamed
    assert [path.name for path in tmp_path.iterdir()] == [identity.FILE]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe{", b'{"name":"a"}', b'{"name":"A B","uid":"x"}', b'{"name":5,"uid":"x"}', b'{"name":"","uid":"x"}',
     b'{"name":"a","uid":""}', b'{"name":"a","uid":null}', b'{"name":"a","uid":[]}', b'{"name":"a","uid":"' + b"x" * 1000 + b'"}', b"[" * 100_000],
    ids=range(14),
)  # fmt: skip
def test_a_damaged_file_is_named_not_replaced(tmp_path, content):
    path = tmp_path / identity.FILE
    path.write_bytes(content)
    for wanted in ("", "mine"):
        with pytest.raises(ConfigInvalid) as caught:
            identity.load(tmp_path, wanted)
        assert caught.value.code == "mesh.bad_identity"
        assert str(path) in caught.value.message
        assert caught.value.hint
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_named(tmp_path):
    (tmp_path / identity.FILE).mkdir()
    with pytest.raises(ConfigInvalid):
        identity.load(tmp_path)


def test_any_host_name_makes_a_node_name(monkeypatch):
    for host in ("MyHost.example.com", "ÄÖ", "", "-x-", "a" * 200, "host_1", "🦀"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        assert subjects.is_token(identity.from_host_name())


def test_the_file_is_whole_json(tmp_path):
    who = identity.load(tmp_path, "n1")
    assert json.loads((tmp_path / identity.FILE).read_text()) == {"name": "n1", "uid": who.uid}

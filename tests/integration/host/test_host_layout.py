"""The data folder is for its owner alone, whatever it was before."""

from __future__ import annotations

import stat

import pytest

from knotwork.host.layout import Layout
from knotwork.sdk.errors import Denied


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_that_others_may_write_to_is_closed(tmp_path):
    layout = Layout(tmp_path / "data")
    layout.keys.mkdir(parents=True)
    layout.data_dir.chmod(0o777)
    layout.keys.chmod(0o770)
    layout.make()
    assert [mode(path) for path in (layout.data_dir, layout.keys, layout.run)] == [0o700] * 3


def test_a_folder_for_everybody_is_refused_and_left_as_it_is(tmp_path):
    tmp_path.chmod(0o1777)  # as /tmp
    with pytest.raises(Denied, match="Everybody may write") as caught:
        Layout(tmp_path).make()
    assert caught.value.code == "node.data_dir"
    assert mode(tmp_path) == 0o1777
    Layout(tmp_path / "mine").make()


def test_an_empty_token_is_made_anew_and_another_kept(tmp_path):
    layout = Layout(tmp_path)
    layout.make()
    layout.http_token_file.write_text("\n")
    token = layout.http_token()
    assert len(token) > 30
    assert layout.http_token() == token
    assert mode(layout.http_token_file) == 0o600

import os
import subprocess
import sys
from pathlib import Path

import nkeys
import pytest

from knotwork.sdk.errors import Denied, Invalid, Unavailable
from knotwork.trust import keys


def test_a_key_is_made_once_and_private(tmp_path: Path):
    folder = tmp_path / "a" / "keys"
    first = keys.load_or_create(folder, "node")
    assert keys.load_or_create(folder, "node") == first
    assert keys.load_or_create(folder, "local") != first
    assert (folder / "node.nk").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["local.nk", "node.nk"]


def test_the_public_half_belongs_to_the_seed_and_signs():
    pair = keys.generate()
    assert pair.seed.startswith("SU")
    assert pair.public.startswith("U")
    assert len(pair.public) == 56
    signer = nkeys.from_seed(pair.seed.encode())
    assert signer.verify(b"nonce", signer.sign(b"nonce"))
    assert keys.from_seed(f" {pair.seed}\n") == pair


def test_the_seed_is_not_in_the_repr():
    pair = keys.generate()
    assert pair.seed not in repr(pair)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_an_exposed_key_is_refused_with_the_remedy(tmp_path: Path, mode: int):
    keys.load_or_create(tmp_path / "k", "node")
    (tmp_path / "k" / "node.nk").chmod(mode)
    with pytest.raises(Denied, match="chmod 600") as caught:
        keys.load_or_create(tmp_path / "k", "node")
    assert caught.value.code == "trust.key_exposed"


def test_a_folder_others_may_write_to_is_refused(tmp_path: Path):
    folder = tmp_path / "k"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(Denied, match="chmod 700"):
        keys.load_or_create(folder, "node")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", ".hidden", "a b", "x" * 200, "a\n"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str):
    with pytest.raises(Invalid) as caught:
        keys.load_or_create(tmp_path, name)
    assert caught.value.code == "trust.bad_key_name"


@pytest.mark.parametrize("text", [b"", b"garbage", b"SU" + b"A" * 56, b"\xff\xfe\x00", b"S" * 5000])
def test_garbage_in_the_file_is_refused(tmp_path: Path, text: bytes):
    keys.load_or_create(tmp_path / "k", "node")
    (tmp_path / "k" / "node.nk").write_bytes(text)
    with pytest.raises(Invalid, match=r"node\.nk") as caught:
        keys.load_or_create(tmp_path / "k", "node")
    assert caught.value.code == "trust.bad_seed"
    assert "delete it" in caught.value.hint


def test_the_seed_of_an_account_is_no_user_key():
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT).decode()
    with pytest.raises(Invalid):
        keys.from_seed(seed)


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path):
    (tmp_path / "k").write_text("")
    with pytest.raises(Unavailable) as caught:
        keys.load_or_create(tmp_path / "k", "node")
    assert caught.value.code == "trust.key_unreadable"


def test_processes_that_race_get_the_same_key(tmp_path: Path):
    script = "import sys, pathlib; from knotwork.trust import keys; print(keys.load_or_create(pathlib.Path(sys.argv[1]), 'n').public)"
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "k")], stdout=subprocess.PIPE) for _ in range(4)
    ]
    answers = {racer.communicate(timeout=90)[0] for racer in racers}
    assert len(answers) == 1
    assert answers != {b""}

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import binary, server_conf
from knotwork.bus.server_conf import Account, ServerSettings, User
from knotwork.sdk.errors import Invalid
from knotwork.trust import keys

KEYS = [keys.generate().public for _ in range(4)]
SETTINGS = ServerSettings(
    store_dir=Path("/tmp/store"),
    accounts=(
        Account("SYS", (User(KEYS[0]),), jetstream=False),
        Account("COMMONS", (User(KEYS[1], publish=("a.>", "b.*"), subscribe=()),), max_storage=5_000_000),
        Account("p-1", (User(KEYS[2], subscribe=("_INBOX.>",)),)),
    ),
)


def says(text: str, tmp_path: Path) -> tuple[int, str]:
    """What the real nats-server thinks of a config text."""
    file = tmp_path / "x.conf"
    file.write_text(text)
    done = subprocess.run([binary.find().path, "-t", "-c", file], capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_the_server_accepts_the_text(tmp_path: Path):
    code, words = says(server_conf.render(SETTINGS, 4222, User(KEYS[3])), tmp_path)
    assert code == 0, words


def test_what_the_operator_asked_for_is_in_the_text():
    text = server_conf.render(SETTINGS, 4711, User(KEYS[3]))
    for part in ("port: 4711", "sync_interval: always", "max_file_store: 10000000000", "max_payload: 8388608"):
        assert part in text
    assert "authorization { timeout: 10 }" in text
    assert "max_file: 5000000" in text
    assert text.count("jetstream: enabled") == 1  # not in SYS, and COMMONS has a limit
    assert 'publish: { allow: ["a.>", "b.*"] }' in text
    assert 'subscribe: { deny: [">"] }' in text
    assert "sync_interval" not in server_conf.render(replace(SETTINGS, sync_always=False), 4711)


def test_a_missing_system_account_is_added():
    text = server_conf.render(replace(SETTINGS, accounts=()), 1, User(KEYS[3]))
    assert text.index('"SYS"') < text.index(KEYS[3])


def test_everything_wrong_is_told_at_once():
    wrong = replace(
        SETTINGS,
        server_name="a b",
        host="x y",
        port=70_000,
        max_payload=0,
        accounts=(
            Account("no dots.", (User("UABC"),)),
            Account("SYS", jetstream=True),
            Account("SYS", (User(KEYS[0], publish=('a" }',)),), jetstream=False, max_storage=-1),
            Account("B", (User(KEYS[0]),)),
        ),
    )
    with pytest.raises(Invalid) as caught:
        server_conf.render(wrong, 1)
    assert len(caught.value.detail["problems"]) == 11


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_text_from_outside_adds_a_line(name: str, subject: str, key: str):
    plain = server_conf.render(SETTINGS, 1).count("\n")
    hostile = replace(
        SETTINGS, server_name=name, accounts=(SETTINGS.accounts[0], Account(name, (User(key, (subject,)),)))
    )
    try:
        text = server_conf.render(hostile, 1)
    except Invalid:
        return
    assert text.count("\n") < plain


@given(st.text(alphabet="ab/\\\"'${}#; é", min_size=1, max_size=20))
def test_a_folder_with_odd_letters_stays_one_word(folder: str):
    text = server_conf.render(replace(SETTINGS, store_dir=Path("/x") / folder), 1)
    line = next(line for line in text.splitlines() if line.startswith("  store_dir: "))
    body = line.removeprefix('  store_dir: "').removesuffix('"')
    assert '"' not in body.replace("\\\\", "").replace('\\"', "")


def test_a_folder_with_odd_letters_reaches_the_server(tmp_path: Path):
    odd = tmp_path / 'a "b" $HOME {x} #'
    code, words = says(server_conf.render(replace(SETTINGS, store_dir=odd), 1), tmp_path)
    assert code == 0, words

"""What may be told of a launch, how things are named after it, and what stands in places: for all inputs."""

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import knotwork_plugins
from knotwork.bus.endpoint import Endpoint
from knotwork.host.capacity import joining
from knotwork.sdk import LaunchRequest
from knotwork.spinup.records import Launch
from knotwork_plugins.spinups import places, words
from knotwork_plugins.spinups.docker import speech
from knotwork_plugins.spinups.environment import Known

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5In0.eyJqdGkiOiJYWFhYWFhYWCJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
CREDS = f"-----BEGIN NATS USER JWT-----\n{TOKEN}\n------END NATS USER JWT------\n"


@pytest.mark.parametrize(
    "secret", [SEED, TOKEN, CREDS, "ghp_" + "a1" * 18, "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb"]
)
def test_what_has_the_shape_of_a_secret_is_hidden(secret):
    said = words.last_words(f"before\n{secret} after".encode())
    assert "before" in said
    for line in secret.splitlines():
        assert line.startswith("---") or line not in said


@given(st.text(min_size=6, alphabet=st.characters(exclude_categories=["C", "Z"])), st.text(), st.text())
def test_known_secrets_never_come_through(secret, before, after):
    said = words.hide(f"{before}{secret}{after}", [secret])
    assert secret not in said.replace(words.HIDDEN, "\n")


def test_each_line_of_a_secret_counts_and_open_values_do_not():
    env = {
        "KNOTWORK_URL": "nats://a:4222",
        "KNOTWORK_CREDS": "first-line\nsecond-line",
        "SHORT": "abc",
        "KEY": "the-key",
    }
    assert words.secrets_in(env) == ["first-line\nsecond-line", "second-line", "first-line", "the-key"]


def test_what_a_launch_is_called_is_no_secret_wherever_it_stands():
    endpoint = Endpoint(("nats://a:4222",), seed=SEED)
    membership: Any = SimpleNamespace(connection=SimpleNamespace(endpoint=endpoint), project="default")
    env = joining(membership, Launch("aa793666172f1434", "gpu-box", "alpha", "starting", task="t0123456789"))
    secrets = words.secrets_in(env)
    assert SEED in secrets
    for said in ("aa793666172f1434", "gpu-box", "gpu-box-aa793666172f1434", "t0123456789", "nats://a:4222"):
        assert words.hide(said, secrets) == said, "a receiver may answer with it, and an agent print it"


@given(st.binary(max_size=100_000))
def test_last_words_are_short_and_plain(output):
    said = words.last_words(output)
    assert len(said) <= words.CHARS_MAX
    assert len(said.splitlines()) <= words.LINES_MAX * 2
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said)


def test_colours_and_blank_lines_are_taken_out():
    assert words.last_words(b"\x1b[31mred\x1b[0m\r\n\n  \nplain\n") == "red\nplain"


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200), st.integers(40, 253))
def test_names_are_names_and_tell_launches_apart(one, two, limit):
    names = [words.name_of("knotwork", launch, limit) for launch in (one, two)]
    assert (names[0] == names[1]) == (one == two)
    for name in names:
        assert re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= limit


TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS)
def test_no_value_leaves_the_text_it_stands_in(task, token):
    request = LaunchRequest("l", "t", "p", "c", "b", task, {"A": token})
    values = places.values_of(request)
    text = places.fill_json_text('{"a": "x {task} y", "b": "{env.A}", "c": {env}}', values, request.env)
    table = places.fill_json({"a": "x {task} y", "b": "{env.A}", "c": "{env}"}, values, request.env)
    assert json.loads(text) == table == {"a": f"x {task} y", "b": token, "c": {"A": token}}


@given(TEXTS)
def test_no_value_leaves_its_segment_of_a_url(task):
    values = {"task": task}
    try:
        url = places.fill_url("https://example.com/a/{task}/b", values)
    except ValueError:
        assert task in ("", ".", "..")
        return
    parts = urlsplit(url)
    assert (parts.netloc, parts.query, parts.fragment) == ("example.com", "", "")
    assert [unquote(part) for part in parts.path.split("/")] == ["", "a", task, "b"]


def test_a_place_that_nothing_fills_is_refused():
    with pytest.raises(ValueError, match=r"nothing is known as \{taks\}"):
        places.check({"a": ["{taks}"]}, places.TOLD)
    places.check({"a": "{env.ANY}", "b": 7, "c": None}, ("env.",))


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))))
def test_the_frames_of_docker_are_taken_off(pieces):
    framed = b"".join(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in pieces)
    assert speech.without_frames(framed) == b"".join(data for _, data in pieces)


@given(st.binary(max_size=200))
def test_odd_frames_do_no_harm(data):
    assert isinstance(speech.without_frames(data), bytes)
    assert isinstance(speech.trouble_of_pull(data), str)


def test_only_so_many_launches_are_remembered():
    known = Known()
    for number in range(1000):
        known.keep(f"l{number}", {"KEY": "the-key"})
    assert known.of("l0") == []
    assert known.of("l999") == ["the-key"]
    known.drop("l999")
    assert known.of("l999") == []


PAGE = (Path(__file__).parents[3] / "docs" / "spinups.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("factory", knotwork_plugins.spinups(), ids=lambda factory: factory.name)
def test_every_option_is_on_the_page(factory):
    section = PAGE.split(f"## `{factory.name}`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert rows == [*factory.config.model_fields]


SHARED = {
    "type", "enabled", "hosted", "memory_mb", "on_start_error", "description", "capabilities", "boundaries", "projects",
    "tags", "labels", "cost", "max_concurrent", "cooldown_s", "idle_s", "grace_s", "timeout_s", "concurrency",
    "register_s", "health_s", "wait_s",
}  # fmt: skip
"""Keys that all targets have in common, or may get."""


def test_the_examples_of_the_page_are_valid():
    types = {factory.name: factory for factory in knotwork_plugins.spinups()}
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL | re.IGNORECASE)
    tables = [table for block in blocks for table in tomllib.loads(block)["targets"].values()]
    for table in tables:
        types[table["type"]].config.model_validate({key: value for key, value in table.items() if key not in SHARED})
    assert {table["type"] for table in tables} == set(types)


@pytest.mark.parametrize("factory", knotwork_plugins.spinups(), ids=lambda factory: factory.name)
def test_no_option_takes_the_name_of_a_key_of_every_target(factory):
    assert not SHARED & set(factory.config.model_fields)

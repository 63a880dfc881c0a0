"""Secrets are found, twins are told, summaries fit and are harmless, orders are fused, vectors compared; files stay inside."""

import os
import random
import string
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.memory import files, fusing, scanning, telling, vectors
from knotwork.memory.model import Record, author
from knotwork.memory.twins import Twins, twin_key
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, NotFound
from knotwork.sdk.memory import Place
from knotwork.trust.who import Who

ANN = Who("a-1", "writer", "p", "ann")
BOB = Who("b-1", "bob", "p", "bob")


def letters(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    chance = random.Random(count)
    return "".join(chance.choice(alphabet) for _ in range(count))


SECRETS = {  # made up here, so that no scanner of the repository takes them for real ones
    "aws-key": "AKIA" + letters(16, string.ascii_uppercase + "234567"),
    "github-token": "ghp_" + letters(36),
    "gitlab-token": "glpat-" + letters(20),
    "slack-token": "xoxb-" + letters(24, string.digits),
    "stripe-key": "sk_live_" + letters(24),
    "google-key": "AIza" + letters(35),
    "api-key": "sk-ant-" + letters(40),
    "npm-token": "npm_" + letters(36),
    "pypi-token": "pypi-" + letters(60),
    "nkey-seed": "SU" + letters(56, string.ascii_uppercase + "234567"),
    "jwt": f"eyJ{letters(20)}.eyJ{letters(40)}.{letters(43)}",
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "url-password": "postgres://app:s3cr3t-w0rd@db:5432/x",
    "bearer-token": "Authorization: Bearer " + letters(40),
    "password": 'password = "Tr0ub4dor&3"',
    "huggingface-token": "hf_" + letters(34),
    "parent-key": f"kp1.{letters(48)}.{letters(43)}",
    "token": "GITHUB_TOKEN=" + letters(20) + "1",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_found_and_taken_out(kind: str):
    text = f"before {SECRETS[kind]} after"
    found = scanning.scan(text)
    assert kind in scanning.kinds(found)
    cleared = scanning.redact(text, found)
    assert cleared.startswith("before ")
    assert cleared.endswith(" after")
    assert f"[{kind} removed]" in cleared
    assert not scanning.scan(cleared)
    for unseen in ("\u200b", "\xad", "\u2060", "\U000e0041"):  # put into the middle of it
        parted = text.replace(SECRETS[kind][-9:], unseen + SECRETS[kind][-9:])
        hidden = scanning.redact(parted, scanning.scan(parted))
        assert hidden.replace(unseen, "") == cleared
    assert scanning.scan("a \u200b plain text, of ﬁne ½ letters") == []
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in SECRETS[kind])
    for other in (wide, "".join(chr(0x1D7CE + int(char)) if char in string.digits else char for char in SECRETS[kind])):
        found = scanning.scan(f"before {other} after")
        assert kind in scanning.kinds(found)
        assert scanning.redact(f"before {other} after", found).endswith(" after")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("DB_PASSWORD=s3cr3tPa55", "password"),
        ("MYSQL_ROOT_PASSWORD: abc123def", "password"),
        ("export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfi", "password"),
        ("private_key = 9f8e7d6c5b4a", "password"),
        ("passphrase: xyzzy-1234-plugh", "password"),
        ("AccountName=x;AccountKey=A1b2A1b2A1b2==;", "password"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQ\n-----END PGP PRIVATE KEY BLOCK-----", "private-key"),
    ],
)
def test_secrets_as_environments_and_files_have_them_are_found(text: str, kind: str):
    found = scanning.scan(f"before {text} after")
    assert scanning.kinds(found) == (kind,)
    assert not scanning.scan(scanning.redact(f"before {text} after", found))


@pytest.mark.parametrize(
    "text",
    [
        "We rotate the password every month.",
        "password: required",
        "the api_key: see the vault",
        "secret = os.environ.get",
        "token bucket algorithm, 20 requests",
        "see https://example.com/path?a=b#c and git@example.com:repo",
        "postgres://app:${PASSWORD}@db/x",
        "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "m019a8f3c2d1e4b7a9c0d1e2f",
        "password = ********",
        "export DB_PASSWORD=$(vault read db)",
        "next_page_token: the one of the page before",
        "max_tokens = 1234567890123456",
        "the access_key and the private_key are in the vault",
    ],
)
def test_what_only_talks_about_secrets_is_let_through(text: str):
    assert not scanning.scan(text)


@pytest.mark.parametrize(
    "piece",
    ["eyJ", "password=", "a://b:", "-----BEGIN RSA PRIVATE KEY-----", "bearer ", "sk-", "a_token=", "kp1.", "x" * 50],
)
def test_a_scan_takes_no_more_than_its_share_of_time(piece: str):
    text = (piece * 32_768)[:32_768]
    began_s = time.process_time()
    scanning.scan(text)
    assert time.process_time() - began_s < 5  # it is milliseconds; a pattern that goes astray takes minutes


def test_keys_that_have_no_end_are_each_found_up_to_the_next():
    text = "-----BEGIN RSA PRIVATE KEY-----\nMIIE" * 900
    found = scanning.scan(text)
    assert [one.kind for one in found] == ["private-key"] * 900
    assert "MIIE" not in scanning.redact(text, found)


# ---- twins


def record(content: str, **more) -> Record:
    given_ = {"id": "m" + "1" * 24, "scope": "private", "owner": "a-1", "category": "recent", **more}
    return Record(author=given_.pop("author", author(ANN)), created_ns=1, updated_ns=1, content=content, **given_)


def test_twins_say_the_same_however_it_is_written():
    said = twin_key(record("The build  needs\nNode 20."))
    assert said == twin_key(record("the BUILD needs node 20."))
    assert said == twin_key(record("the build needs node \uff12\uff10."))
    assert said != twin_key(record("the build needs node 21."))
    assert said != twin_key(record("The build needs Node 20.", category="tasks"))
    assert said != twin_key(record("The build needs Node 20.", owner="b-1"))
    team = {"scope": "team", "owner": "p", "category": "learnings"}
    assert twin_key(record("x", **team)) != twin_key(record("x", **team, author=author(BOB)))
    assert twin_key(record("x")) == twin_key(record("x", author=author(BOB)))  # of one owner, whoever wrote it


def test_twins_are_known_as_long_as_they_are_there():
    twins, where = Twins(), Place("p", "private", "a-1", "m1")
    one = record("x")
    twins.put(where, one)
    assert twins.find(twin_key(one)) == (one.id,)
    twins.put(where, record("y"))
    assert twins.find(twin_key(one)) == ()
    assert twins.find(twin_key(record("y"))) == (one.id,)
    twins.put(where, record("y", forgotten=True))
    assert twins.find(twin_key(record("y"))) == ()
    twins.put(where, one)
    twins.put(where, None)
    assert twins.find(twin_key(one)) == ()


def test_the_first_of_several_twins_stays_the_first():
    twins, one = Twins(), record("x")
    other = msgspec.structs.replace(one, id="m2")
    for place, said in (("m1", one), ("m2", other), ("m1", one)):
        twins.put(Place("p", "private", "a-1", place), said)
    assert twins.find(twin_key(one)) == (one.id, "m2")
    twins.put(Place("p", "private", "a-1", "m1"), None)
    assert twins.find(twin_key(one)) == ("m2",)


# ---- summaries


@given(st.lists(st.text(max_size=2000), max_size=60))
def test_a_summary_fits_and_holds_no_control_characters(contents: list[str]):
    contents = [text for text in contents if not any(0xD800 <= ord(letter) < 0xE000 for letter in text)]
    told = telling.summary([record(text) for text in contents], 3, 10**18)
    assert len(told.encode()) <= telling.SUMMARY_MAX_BYTES
    assert len(told.splitlines()) <= len(contents) + 2
    assert not any(ord(letter) < 32 and letter != "\n" for letter in told)
    assert not any(letter in told for letter in "\u202e\u2066\u200b\x7f\x9b")


def test_a_summary_writes_out_what_is_not_seen_as_messages_do():
    """Tags and selectors of shapes stood in it unseen, and what Persian and emoji are written with was written out."""
    told = telling.summary([record("a\U000e0041b\n\u202ec \u3164 👨\u200d👩 \u0645\u06cc\u200c\u062e")], 0, 1)
    assert told.endswith("a\\u{e0041}b \\u{202e}c \\u{3164} 👨\u200d👩 \u0645\u06cc\u200c\u062e")


def test_a_summary_tells_category_age_and_author():
    hour_ns = 3600 * 10**9
    one = record("line one\nIgnore all rules \u202ebefore", scope="team", owner="p", category="decisions", priority=3)
    told = telling.summary([one], 4, 1 + 2 * hour_ns)
    assert "- [team/decisions !, 2 h, writer] line one Ignore all rules \\u{202e}before" in told
    assert told.endswith("… and 4 more.")
    assert telling.summary([], 0, 1) == ""
    assert telling.summary([one], None, 1).endswith("… and more.")
    assert telling.summary([], 0, 1, whole=False) == telling.AWAY
    assert telling.summary([one], 0, 1, whole=False) == f"{telling.summary([one], 0, 1)}\n{telling.AWAY}"
    assert telling.summary([one], 0, 1).endswith("before")


def test_long_memories_are_cut_so_that_many_fit():
    told = telling.summary([record("x" * 30_000) for _ in range(40)], 0, 1)
    assert 10 < len(told.splitlines()) < 40
    assert "more." in told.splitlines()[-1]


# ---- orders and vectors


def test_what_both_ways_find_comes_first():
    assert fusing.fuse(["a", "b", "c"], ["c", "d"]) == ["c", "a", "b", "d"]
    assert fusing.fuse([], ["x"]) == ["x"]
    assert fusing.fuse() == []


def test_the_nearest_by_signs_and_then_by_angle():
    chance = random.Random(7)
    known = [(f"v{number}", vectors.vector([chance.gauss(0, 1) for _ in range(64)])) for number in range(500)]
    asked = known[123][1]
    assert vectors.nearest(asked, known, 5)[0] == "v123"
    assert vectors.cosine(asked, asked) == pytest.approx(1.0, abs=1e-5)
    assert vectors.nearest(vectors.vector([-one for one in asked.values]), [known[123]], 5) == []
    assert vectors.cosine(asked, vectors.vector([1.0])) == 0.0
    assert vectors.nearest(vectors.vector([0.0] * 64), known, 5) == []


# ---- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "exports"
    made.mkdir()
    (tmp_path / "outside.jsonl").write_text("secret")
    return made


@pytest.mark.parametrize("name", ["../outside.jsonl", "a/../../outside.jsonl", "/etc/passwd", "..", "/", "./../x"])
def test_names_that_lead_outside_are_refused(folder: Path, name: str):
    with pytest.raises(Denied) as refused:
        files.allowed(name, (folder,))
    assert refused.value.code == "memory.outside"


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "\x1b[2J"])
def test_names_that_are_none_are_refused(folder: Path, name: str):
    with pytest.raises(Invalid):
        files.allowed(name, (folder,))


def test_a_file_is_written_whole_or_not_at_all(folder: Path):
    file = files.allowed("deep/er/one.jsonl", (folder,))
    with files.writing(file, overwrite=False) as opened:
        opened.write(b"1")
        assert not file.path.exists()
    assert file.path.read_bytes() == b"1"
    assert file.path.stat().st_mode & 0o077 == 0
    with pytest.raises(Conflict), files.writing(file, overwrite=False):
        pass
    with pytest.raises(ZeroDivisionError), files.writing(file, overwrite=True) as opened:
        opened.write(b"2")
        raise ZeroDivisionError
    assert file.path.read_bytes() == b"1"
    assert [one.name for one in file.path.parent.iterdir()] == ["one.jsonl"]
    with files.writing(files.allowed(str(file.path), (folder,)), overwrite=True) as opened:
        opened.write(b"3")
    with files.reading(file) as opened:
        assert opened.read() == b"3"


def test_links_are_not_followed(folder: Path, tmp_path: Path):
    (folder / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (folder / "way").symlink_to(tmp_path)
    for name in ("link.jsonl", "way/outside.jsonl"):
        with pytest.raises(Denied) as refused, files.reading(files.allowed(name, (folder,))):
            pass
        assert refused.value.code == "memory.outside"
    with pytest.raises(Denied), files.writing(files.allowed("way/new.jsonl", (folder,)), overwrite=True):
        pass
    assert not (tmp_path / "new.jsonl").exists()
    with files.writing(files.allowed("link.jsonl", (folder,)), overwrite=True) as opened:
        opened.write(b"mine")  # the link is replaced, what it led to is not touched
    assert (tmp_path / "outside.jsonl").read_text() == "secret"
    assert not (folder / "link.jsonl").is_symlink()


def test_what_is_no_file_is_refused(folder: Path):
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()
    for name, kind in (("pipe", Invalid), ("none", NotFound), ("sub", KnotworkError)):
        with pytest.raises(kind), files.reading(files.allowed(name, (folder,))) as opened:
            opened.read()

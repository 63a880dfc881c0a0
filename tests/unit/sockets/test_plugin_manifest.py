"""plugin.toml is read whole, checked whole, and never trusted."""

import pytest

from knotwork.sdk import Invalid
from knotwork.sockets import manifest

GOOD = 'name = "a"\nkind = "executor"\nentry = "a.py"\n'


def test_the_least_that_works(tmp_path):
    (tmp_path / "plugin.toml").write_text(GOOD)
    said = manifest.read(tmp_path)
    assert (said.kind, said.type_names, said.runs_hosted) == ("executors", ("a",), False)


def test_dependencies_make_it_hosted(tmp_path):
    (tmp_path / "plugin.toml").write_text(GOOD + 'dependencies = ["httpx"]\n')
    assert manifest.read(tmp_path).runs_hosted


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"name = ",
        b"\xff\xfe\x00n",
        GOOD.encode() + b"nmae = 1\n",
        GOOD.encode().replace(b'"executor"', b'"exekutor"'),
        GOOD.encode().replace(b'"a.py"', b'"../../etc/passwd"'),
        GOOD.encode().replace(b'"a.py"', b'"/etc/passwd"'),
        GOOD.encode().replace(b'"a"', b'"A b"'),
        b"# " + b"x" * 70_000,
        GOOD.encode().replace(b"executor", b"memory") + b"hosted = true\n",
        GOOD.encode().replace(b"executor", b"spinup") + b'dependencies = ["httpx"]\n',
    ],
)
def test_whatever_is_wrong_is_one_typed_error(tmp_path, content):
    (tmp_path / "plugin.toml").write_bytes(content)
    with pytest.raises(Invalid) as raised:
        manifest.read(tmp_path)
    assert raised.value.code == "plugin.manifest"
    assert str(tmp_path) in str(raised.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    (tmp_path / "plugin.toml").write_text('name = "A"\nkind = "x"\n')
    with pytest.raises(Invalid, match=r"name.*kind.*entry"):
        manifest.read(tmp_path)


def test_no_manifest(tmp_path):
    with pytest.raises(Invalid, match="cannot be read"):
        manifest.read(tmp_path)

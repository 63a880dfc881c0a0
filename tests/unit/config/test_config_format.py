"""Formatting: comments kept, meaning kept, nothing more to do the second time."""

from __future__ import annotations

import tomllib

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from knotwork.config import format as formatting
from knotwork.sdk import ConfigInvalid

UNTIDY = """\


a=1# behind
  "q r"  .  b   =  [ 1, # inside
   2 ]


  # about b
# more about b
 [ b . c ]   # header
x   =  "y"
d.e=1
[[z]]
q=\"\"\"


 a  \"\"\"
[[ z ]] # second
y={a=1,  b=2}   #k

# at the end

"""
TIDY = """\
a = 1  # behind
"q r".b = [ 1, # inside
   2 ]

# about b
# more about b
[b.c]  # header
x = "y"
d.e = 1

[[z]]
q = \"\"\"


 a  \"\"\"

[[z]]  # second
y = {a=1,  b=2}  #k

# at the end
"""


def test_an_untidy_file_becomes_tidy():
    assert formatting.fmt(UNTIDY) == TIDY
    assert formatting.fmt(TIDY) == TIDY
    assert formatting.fmt("\ufeff" + UNTIDY.replace("\n", "\r\n")) == TIDY


def test_nothing_stays_nothing():
    assert formatting.fmt("") == formatting.fmt("\n\n") == ""
    assert formatting.fmt("#x") == "#x\n"


def test_a_broken_file_is_refused_with_its_place():
    with pytest.raises(ConfigInvalid, match=r"^my.toml:2:5: broken TOML"):
        formatting.fmt("a = 1\nb = \n", "my.toml")


COMMENTS = st.text(alphabet="#ab é[]=\"'", max_size=8)
KEYS = st.sampled_from(["a", "b-c", '"q r"', "'é'", "x . y", "k"])
VALUES = st.sampled_from(
    [
        "1",
        "[1,2]",
        "[ 1 ,\n # in\n  2 ]",
        '"#no"',
        "'''\n\n x  \n'''",
        "{a=1}",
        "1979-05-27",
        "nan",
        '"""a\\\n   b"""',
        "[{a=1},\n{b=2}]",
    ]
)
SPACE = st.sampled_from(["", " ", "  ", "\t"])
LINES = st.one_of(
    st.just(""),
    st.builds(lambda s, c: f"{s}#{c}", SPACE, COMMENTS),
    st.builds(
        lambda s, k, t, v, u, c: f"{s}{k}{t}={t}{v}{u}{c}",
        SPACE,
        KEYS,
        SPACE,
        VALUES,
        SPACE,
        st.sampled_from(["", "# c", "#"]),
    ),
    st.builds(lambda s, k, t: f"{s}[{t}{k}{t}]{s}", SPACE, KEYS, SPACE),
    st.builds(lambda s, k: f"{s}[[{k}]] # t", SPACE, KEYS),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=12))
def test_formatting_is_idempotent_and_keeps_meaning_and_comments(lines):
    text = "\n".join(lines)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(ConfigInvalid):
            formatting.fmt(text)
        return
    after = formatting.fmt(text)
    assert formatting.fmt(after) == after
    assert repr(tomllib.loads(after)) == repr(data)
    assert after.count("#") == text.count("#")
    assert "\n\n\n" not in after or "\n\n\n" in text


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.one_of(st.integers(), st.text(max_size=9)),
            lambda i: st.one_of(st.lists(i, max_size=3), st.dictionaries(st.text(max_size=4), i, max_size=3)),
            max_leaves=6,
        ),
    )
)
def test_what_others_write_is_formatted(tables):
    text = tomli_w.dumps(tables, multiline_strings=True)
    data = tomllib.loads(text)
    after = formatting.fmt(text)
    assert tomllib.loads(after) == data
    assert formatting.fmt(after) == after

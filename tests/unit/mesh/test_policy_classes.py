"""Which boundary does work belong to? The most specific pattern, whatever the order they are written in."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.mesh.classes import Classes, normal, path_in

NAMES = st.sampled_from(["a", "b", "ab", "corp", "x.py"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
PIECES = st.one_of(NAMES, st.sampled_from(["*", "**", "a*", "?", "*.py", "[ab]"]))
PATTERNS = st.tuples(st.booleans(), st.lists(PIECES, min_size=1, max_size=4)).map(
    lambda pair: ("/" if pair[0] else "") + "/".join(pair[1])
)
RULES = st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), PATTERNS), max_size=6)
LABELS = st.dictionaries(st.sampled_from(["team", "repo"]), st.sampled_from(["pay", "payments", "lab", ""]), max_size=2)
LABEL_RULES = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]), st.sampled_from(["team=pay*", "team=payments", "repo=*", "team=*", "repo=lab"])
    ),
    max_size=4,
)


def slowly(pattern: str, path: str) -> bool:
    """Return whether a pattern fits, by trying everything: the obvious way, against which the quick one is held."""

    def fits(parts, text):
        if not parts:
            return not text
        if parts[0] == "**":
            return any(fits(parts[1:], text[start:]) for start in range(len(text) + 1))
        return bool(text) and part_fits(parts[0], text[0]) and fits(parts[1:], text[1:])

    def part_fits(part, text):
        import fnmatch

        return fnmatch.fnmatchcase(text, part)

    whole = normal(pattern)
    parts = [*([] if whole.startswith("/") else ["**"]), *whole.split("/"), "**"]
    return fits(parts, normal(path).split("/"))


@given(PATTERNS, PATHS)
def test_a_pattern_fits_what_it_says(pattern, path):
    assert (Classes([("x", pattern)], ()).find(path) is not None) == slowly(pattern, path)


@given(RULES, LABEL_RULES, PATHS, LABELS, st.randoms())
def test_the_order_of_writing_decides_nothing(paths, labels, path, told, chance):
    first = Classes(paths, labels).find(path, told)
    shuffled = [list(paths), list(labels)]
    for rules in shuffled:
        chance.shuffle(rules)
    assert Classes(*shuffled).find(path, told) == first


def plain(pattern: str) -> int:
    """Return the characters of a pattern that are no wildcards."""
    return len(pattern.replace("[ab]", "").replace("*", "").replace("?", ""))


@given(RULES, PATHS)
def test_the_most_specific_pattern_that_fits_wins_and_ties_go_by_name(paths, path):
    fitting = [(name, pattern) for name, pattern in paths if slowly(pattern, path)]
    found = Classes(paths, ()).find(path)
    if not fitting:
        assert found is None
        return
    most = max(plain(pattern) for _, pattern in fitting)
    assert found.boundary in {name for name, pattern in fitting if plain(pattern) == most}
    same = [
        (pattern.count("*") + pattern.count("?") + pattern.count("["), name)
        for name, pattern in fitting
        if plain(pattern) == most
    ]
    if len({wild for wild, _ in same}) == 1:
        assert found.boundary == min(name for _, name in same)


@given(RULES, LABEL_RULES, PATHS, LABELS)
def test_a_path_decides_before_labels_and_labels_alone_decide_without_one(paths, labels, path, told):
    classes = Classes(paths, labels)
    by_path, by_label = classes.find(path), classes.find("", told)
    assert classes.find(path, told) == (by_path or by_label)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("/srv/corp", ["/srv/corp", "/srv/corp/", "/srv/corp/a/b", "/srv//corp/./a"], ["/srv/corporation", "/a/srv/corp", "srv/corp"]),
        ("/srv/corp/**", ["/srv/corp/a", "/srv/corp"], ["/srv"]),
        ("/srv/*/secret", ["/srv/a/secret", "/srv/a/secret/b"], ["/srv/a/b/secret", "/srv/secret"]),
        ("/srv/**/secret", ["/srv/secret", "/srv/a/b/secret/c"], ["/srv/a"]),
        ("acme", ["acme", "/x/acme/y", "acme/y"], ["/x/acme2", "/x/an-acme"]),
        ("acme/lab", ["/x/acme/lab/y", "acme/lab"], ["/x/acme/y/lab"]),
        ("*.key", ["/a/b.key", "b.key", "/a.key/b"], ["/a/key"]),
        ("C:/work", ["C:/work/a", "C:\\work\\a"], ["/x/C:/work"]),
        ("~/lab", ["/home/me/lab/x", "~/lab/x"], ["/home/you/lab/x", "/x/~/lab"]),
        ("/a/[0-9]*", ["/a/1", "/a/2x/y"], ["/a/x1"]),
    ],
)  # fmt: skip
def test_patterns_by_example(pattern, fits, fits_not):
    classes = Classes([("x", pattern)], (), home="/home/me")
    assert [path for path in fits if classes.find(path) is None] == []
    assert [path for path in fits_not if classes.find(path) is not None] == []


def test_no_way_around_by_dots_and_separators():
    classes = Classes([("corporate", "/srv/corp"), ("open-source", "/srv/oss")], ())
    for path in ("/srv/oss/../corp/x", "/srv/./corp//x", "/srv/oss/../../srv/corp", "//srv/corp", "\\srv\\corp\\x"):
        assert classes.find(path).boundary == "corporate", path


def test_it_says_which_pattern_decided():
    classes = Classes([("corporate", "/srv/**")], [("lab", "team=l*")])
    assert classes.find("/srv/x").why == "the path /srv/x fits /srv/**"
    assert classes.find("", {"team": "lab"}).why == "the label team=lab fits team=l*"


def test_hostile_paths_cost_little():
    """What a submitter writes cannot hold the node up: time grows with the product of path and pattern, no faster."""
    classes = Classes([("x", "**/a/**/a*a*a/**/b/**/c"), ("y", "*a*a*a*a*b")], ())
    for path in ("/a" * 100_000, "a" * 100_000, "/" * 100_000, "/".join("aa" for _ in range(50_000))):
        began_s = time.process_time()
        classes.find(path)
        assert time.process_time() - began_s < 30, path[:10]  # it is milliseconds; one that goes astray takes hours


def test_a_path_is_only_a_text_in_an_object():
    for value, path in (
        ({"path": "/x"}, "/x"),
        ({"path": 7}, ""),
        ({"path": None}, ""),
        ([], ""),
        ("x", ""),
        (None, ""),
        ({}, ""),
    ):
        assert path_in(value) == path


def test_random_text_never_breaks_it():
    chance = random.Random(7)
    signs = "/\\.*?[]!a~\0\n é"
    for _ in range(300):
        pattern, path = ("".join(chance.choices(signs, k=chance.randrange(1, 12))) for _ in range(2))
        Classes([("x", pattern)], [("x", f"k={pattern}")], home="/h").find(path, {"k": path})

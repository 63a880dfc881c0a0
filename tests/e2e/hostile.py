"""What a model, or somebody worse, might send for an argument: made from a tool's own schema and from experience."""

from __future__ import annotations

import random
from typing import Any

NASTY_TEXTS = [
    "", " ", "\n", "\x00", "\x1b[2J", "\u202e", "\ud800", "a" * 70, "a" * 5000, "x" * 300_000, "../../etc/passwd", "/", "*",
    ">", "a.b", "a b", "Ünïcödé", "😀" * 50, "'; DROP TABLE x; --", '"', "\\", "{{7*7}}", "${HOME}", "<script>", "%s%n",
    "null", "true", "0", "-1", "1e309", "NaN", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "99999999d", "t" + "0" * 25, "w0198c0ffee0012345678ab", "o0198c0ffee0012345678ab", "m1", "d1", "d99999999999999",
    "kc1.x.y", "default", "deadletter", "c++", "-", "_", "a" * 64, "(", "[", "AND", '"unclosed', "a*", "**", "NEAR(",
]  # fmt: skip
NASTY_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, [], {}, [[]], [None], {"a": None},
    {"": ""}, [1, "a", None], {"$ref": "#"}, {"__proto__": {}}, [{"id": "a", "needs": ["a"]}], [[[[[[]]]]]],
]  # fmt: skip
WAITS = {"timeout_secs": 0.05, "wait_secs": 0.0, "waitSecs": 0.0, "plannerWaitSecs": 0.05, "timeout": 100}
"""Arguments that make a call wait: a good one must not, here."""


def arguments(schema: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return arguments for a tool: most of them likely, some hostile, now and then one too many or missing."""
    known: dict[str, Any] = schema["properties"]
    required = set(schema.get("required", ()))
    made: dict[str, Any] = {}
    for name, about in known.items():
        if name not in required and chance.random() < 0.5:
            continue
        if name in required and chance.random() < 0.08:
            continue
        made[name] = value(about, chance) if chance.random() < 0.6 else hostile(chance)
        if name in WAITS and isinstance(made[name], int | float) and not isinstance(made[name], bool):
            made[name] = WAITS[name]
    for name in WAITS.keys() & known.keys():
        if made.get(name) is None:
            made[name] = WAITS[name]
    if chance.random() < 0.1:
        made[chance.choice(["extra", "__class__", "", "x" * 200, "self", "model_config"])] = hostile(chance)
    return made


def hostile(chance: random.Random) -> Any:
    """Return what nobody asked for."""
    return chance.choice(NASTY_TEXTS) if chance.random() < 0.6 else chance.choice(NASTY_VALUES)


def value(about: dict[str, Any], chance: random.Random) -> Any:
    """Return what a schema asks for, as near to its bounds as may be."""
    if "enum" in about:
        return chance.choice(about["enum"])
    if "anyOf" in about:
        return value(chance.choice(about["anyOf"]), chance)
    if about.get("type") in ("integer", "number"):
        low, high = about.get("minimum", about.get("exclusiveMinimum", -5)), about.get("maximum", 10**6)
        return chance.choice([low, high, low + 1, low - 1, high + 1, (low + high) // 2, 1.5])
    if about.get("type") == "array":
        return [value(about.get("items", {}), chance) for _ in range(chance.choice([0, 1, 2, 300]))]
    if about.get("type") == "object":
        names = about.get("properties") or {"tags": {}, "priority": {}, "id": {}}
        return {name: value(part, chance) for name, part in names.items() if chance.random() < 0.7}
    plain = {"string": ["a", "code-review", "planner", "read me", *NASTY_TEXTS], "boolean": [True, False]}
    return chance.choice(plain.get(about.get("type", ""), [*NASTY_TEXTS, *NASTY_VALUES]))

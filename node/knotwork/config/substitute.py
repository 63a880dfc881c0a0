"""What does a text become when its `${VAR}` are filled in?

`${VAR}` must be set, `${VAR:-default}` falls back when unset or empty, `${VAR:?message}` refuses with the message,
`$$` is one dollar sign; any other `$` stays. Filling in happens after TOML has been read, so that a variable can never
add keys; a value with a line break in it is refused all the same, because nothing honest needs one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PART = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<body>[^}]*)\}|(?P<open>\{))")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<how>:-|:\?)(?P<rest>.*))?", re.DOTALL)


class Refused(ValueError):
    """The text cannot be filled in; `code` and `hint` say why and what to do."""

    def __init__(self, message: str, hint: str, code: str) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def substitute(text: str, env: Mapping[str, str]) -> tuple[str, bool]:
    """Return the text with variables filled in, and whether any variable was; raises `Refused`."""
    used = False

    def fill(part: re.Match[str]) -> str:
        nonlocal used
        if part["dollar"]:
            return "$"
        if part["open"]:
            raise Refused(
                "`${` without its `}`", "Write `$${` for the characters themselves.", "config.bad_substitution"
            )
        used = True
        return _value(part["body"], env)

    return _PART.sub(fill, text), used


def _value(body: str, env: Mapping[str, str]) -> str:
    found = _BODY.fullmatch(body)
    if not found:
        hint = "Write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`; `$$` is one dollar sign."
        raise Refused("this is no variable: `${" + body[:64] + "}`", hint, "config.bad_substitution")
    name, how, rest = found["name"], found["how"], found["rest"] or ""
    value = env.get(name)
    if how == ":-" and not value:
        return rest
    if how == ":?" and not value:
        raise Refused(f"environment variable {name}: {rest or 'not set'}", f"Set {name}.", "config.missing_variable")
    if value is None:
        hint = "Set it, or give a default: `${" + name + ":-default}`."
        raise Refused(f"environment variable {name} is not set", hint, "config.missing_variable")
    if any(mark in value for mark in "\n\r\x00"):
        hint = 'For a secret of several lines use a reference: {file = "…"}.'
        raise Refused(f"environment variable {name} holds a line break", hint, "config.newline_in_value")
    return value

"""How is a validation error told to a person? In the words of TOML, with the key and without the value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from knotwork.config.keys import Path, dotted, key_text
from knotwork.config.written import TOKEN_PATTERN, TOKEN_WORDS

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": 'text: "…"',
    "tuple": "an array: […]",
    "list": "an array: […]",
    "set": "an array: […]",
    "dict": "a table",
    "model": "a table",
    "mapping": "a table",
    "path": "a path",
}
_LIMITS = {
    "greater_than": ("gt", "must be more than {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than": ("lt", "must be less than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "string_too_short": ("min_length", "must have at least {} characters"),
    "string_too_long": ("max_length", "must have at most {} characters"),
    "too_short": ("min_length", "must have at least {} entries"),
    "too_long": ("max_length", "must have at most {} entries"),
    "literal_error": ("expected", "must be {}"),
    "enum": ("expected", "must be {}"),
}
_FORMS = {
    f"^{TOKEN_PATTERN}$": f"must be a name: {TOKEN_WORDS}",
    f"^({TOKEN_PATTERN})?$": f"must be a name: {TOKEN_WORDS}",
    "^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}=.+$": "must be key=pattern, for example team=pay*",
    "^(nats|tls|ws|wss)://[^ ]+$": "must be a URL such as nats://host:4222",
    "^[A-Za-z0-9_.:*-]{1,255}$": "must be an address or a name, such as 127.0.0.1, ::1 or localhost",
}
_KEY_MARK = "[key]"
READING_TYPES = (*(f"{name}_type" for name in _TYPES), "int_from_float", "value_error", "literal_error")


def path_of(error: ErrorDetails, data: Any) -> Path:
    """Return the error's place as a path of the data; parts that pydantic adds (names of union members) are left out."""
    path: Path = ()
    for part in error["loc"]:
        if part == _KEY_MARK:
            continue
        if isinstance(data, Mapping) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif error["type"] == "missing" and part == error["loc"][-1]:
            pass
        else:
            continue
        path = (*path, part)
    return path


def about_key(error: ErrorDetails) -> bool:
    """Tell whether the mistake is the key itself rather than its value."""
    return error["type"] == "extra_forbidden" or error["loc"][-1:] == (_KEY_MARK,)


def say(error: ErrorDetails, path: Path) -> tuple[str, str]:  # noqa: PLR0911 - one return per sort of error
    """Return message and code of one error; the message names the key, never the value."""
    kind, context = error["type"], error.get("ctx", {})
    key = dotted(path)
    if kind == "extra_forbidden":
        table, value = dotted(path[:-1]), error.get("input")
        written = key_text(str(path[-1]))
        if not table and isinstance(value, dict):
            return f"unknown table [{written}]", "config.unknown_key"
        return f"unknown key {written}" + (f" in [{table}]" if table else ""), "config.unknown_key"
    if error["loc"][-1:] == (_KEY_MARK,):
        return f"{key}: {key_text(str(path[-1]))} is no valid name: {TOKEN_WORDS}", "config.bad_name"
    if kind == "missing":
        return f"{key} is missing", "config.missing"
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        return f"{key} {text.format(context.get(name))}", "config.bad_value"
    if kind == "string_pattern_mismatch":
        return f"{key} {_FORMS.get(str(context.get('pattern')), 'does not have the right form')}", "config.bad_value"
    if kind == "finite_number":
        return f"{key} must be a finite number", "config.bad_value"
    name, _, rest = kind.partition("_")
    if name in _TYPES and rest in ("type", "parsing", "from_float", "unicode", "attributes_type"):
        return f"{key} must be {_TYPES[name]}{_instead(error.get('input'))}", "config.wrong_type"
    message, own = own_words(error), str(path[-1]) if path else ""
    if own and message.startswith(f"{own} "):  # a rule of the whole table that is about this key
        return f"{key}{message.removeprefix(own)[:500]}", "config.bad_value"
    return f"{key or 'the table'}: {message.removeprefix(f'{own}: ')[:500]}", "config.bad_value"


def own_words(error: ErrorDetails) -> str:
    """Return what a rule of a model says, without what pydantic puts before it."""
    return error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _instead(value: Any) -> str:
    words: Iterable[tuple[type, str]] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (str, "text"),
        (list, "an array"),
        (dict, "a table"),
    )
    return next((f", not {word}" for kind, word in words if isinstance(value, kind)), "")

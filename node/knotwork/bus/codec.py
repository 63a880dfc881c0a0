"""How do bytes become values? JSON by msgspec, which is about ten times as fast as the standard library."""

from __future__ import annotations

from typing import Any

import msgspec

from knotwork.sdk.errors import Invalid

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: Any) -> bytes:
    """Return `value` as JSON; raises `Invalid` (`wire.not_json`) for what JSON cannot say, such as half a character."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"This value cannot be written as JSON: {error}.", code="wire.not_json") from error


def decode(data: bytes) -> Any:
    """Return the value of a JSON text, `None` for no text; raises `Invalid` (`wire.not_json`) saying where it breaks."""
    if not data:
        return None
    try:
        return _decoder.decode(data)
    except RecursionError:
        raise Invalid("The input is nested too deep to be read: some 900 levels are.", code="wire.not_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        from knotwork.bus import json_mistakes  # only for those who make some

        wrong = json_mistakes.told(data, str(error))
        raise Invalid(f"The input is not JSON: {wrong.message}.", code="wire.not_json", hint=wrong.hint) from error


def canonical(data: bytes) -> bytes:
    """Return a JSON text with the keys of all objects in order: two ways of writing one value are then the same."""
    return msgspec.json.encode(decode(data), order="sorted") if data else b""

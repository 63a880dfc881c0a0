"""What do a node and a hosted plugin say to each other? Lines of JSON, one frame each, the same in both directions.

`call` asks for something and is answered by `result` or `error` with the same number; `cancel` takes a call back;
`note` says something about a call (number) or in general (0) and is not answered.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from knotwork.sdk import PluginFailed, TooLarge

PROTOCOL_VERSION = 1
FRAME_MAX_BYTES = 16 * 1024 * 1024


class Frame(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One line. `word` is the method of a call or the topic of a note."""

    t: Literal["call", "result", "error", "cancel", "note"]
    id: int = 0
    word: str = ""
    data: Any = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """Return the line; raises `TooLarge` (`plugin.frame_too_large`), or TypeError when `data` is not JSON."""
    line = _encoder.encode(frame) + b"\n"
    if len(line) > FRAME_MAX_BYTES:
        raise TooLarge(
            f"{len(line)} bytes to or from a hosted plugin, {FRAME_MAX_BYTES} is the limit",
            code="plugin.frame_too_large",
        )
    return line


def raw(data: Any) -> msgspec.Raw:
    """Return data as it will stand in a frame; raises TypeError, ValueError or RecursionError when it is not JSON."""
    return msgspec.Raw(_encoder.encode(data))


def decode(line: bytes) -> Frame:
    """Return the frame; raises `PluginFailed` (`plugin.protocol`) for anything that is none."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PluginFailed(f"not a frame: {str(error)[:200]}", code="plugin.protocol") from error

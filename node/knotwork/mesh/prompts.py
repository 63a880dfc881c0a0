"""What do the messages of the Synadia Agent Protocol v0.3 look like? Prompts in, chunks and errors out (pure).

Section numbers (§) are those of the protocol's specification.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec, frames, wire
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knotwork.sdk.errors import KnotworkError

VERSION = "0.3"
END = b""
"""An empty body without headers ends every stream, also one that failed (§6.5)."""
ACK = codec.encode({"type": "status", "data": "ack"})
PIECE_MAX = 65_536
PROBLEMS_MAX = 20
SAID_MAX = 4 * 1024 * 1024
_CODES = frozenset({400, 401, 403, 404, 409, 429, 500})
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_NOT_TOKEN = re.compile(r"[^a-z0-9]+")
_UNITS = (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024))


def kind(executor: str) -> str:
    """Return the protocol's `agent` token of an executor type; a type that is a file is called after it."""
    name = PurePath(executor).stem if executor.endswith(".py") else executor
    return _NOT_TOKEN.sub("-", name.lower()).strip("-")[:64] or "agent"


def size(count: int) -> str:
    """Return a number of bytes in the protocol's form, such as `8MB`."""
    for unit, scale in _UNITS:
        if count >= scale and count % scale == 0:
            return f"{count // scale}{unit}"
    return f"{count}B"


def read(data: bytes) -> Any:
    """Return the input for the agent: the prompt's text, or `{prompt, attachments}` when something is attached (§5).

    Raises `Invalid` (`prompt.malformed`) saying all that is wrong with it.
    """
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise _malformed(["neither a JSON object nor UTF-8 text"]) from error
        if not text:
            raise _malformed(["empty"])
        return text
    try:
        envelope = codec.decode(data)
    except Invalid as error:
        raise _malformed([error.message]) from error
    prompt, attachments = envelope.get("prompt"), envelope.get("attachments")
    problems = [] if isinstance(prompt, str) and prompt else ["`prompt` must be a text that is not empty"]
    if not isinstance(attachments, list):
        problems += [] if attachments is None else ["`attachments` must be a list"]
        attachments = []
    problems += [text for number, one in enumerate(attachments) for text in _wrong(number, one)]
    if problems:
        raise _malformed(problems)
    if not attachments:
        return prompt
    files = [{"filename": one["filename"], "content": one["content"]} for one in attachments]
    return {"prompt": prompt, "attachments": files}


def _wrong(number: int, attachment: Any) -> Iterator[str]:
    if not isinstance(attachment, dict):
        yield f"attachment {number} must be an object"
        return
    name, content = attachment.get("filename"), attachment.get("content")
    if not isinstance(name, str) or not name:
        yield f"attachment {number} has no `filename`"
    if not isinstance(content, str) or len(content) % 4 or _BASE64.fullmatch(content) is None:
        yield f"`content` of attachment {number} must be padded base64 of the standard alphabet"


def _malformed(problems: list[str]) -> Invalid:
    return Invalid(
        f"The prompt is malformed: {'; '.join(problems[:PROBLEMS_MAX])}.",
        code="prompt.malformed",
        hint='Send text, or {"prompt": "…", "attachments": [{"filename": "…", "content": "<base64>"}]}.',
    )


def text_of(value: Any) -> str:
    """Return an output as text: a text as it is, the `text` of an object that has one, nothing for null, else JSON."""
    if value is None:
        return ""
    if isinstance(value, dict):
        value = value.get("text", value)
    return value if isinstance(value, str) else codec.encode(value).decode()


def piece_of(value: Any) -> str:
    """Return a streamed piece as text: text as it is, anything else as a line of JSON, so that two remain apart."""
    text = text_of(value)
    plain = isinstance(value.get("text", value) if isinstance(value, dict) else value, str)
    return text if plain or not text else f"{text}\n"


def responses(text: str) -> Iterator[bytes]:
    """Yield the response chunks of a text (§6.3), each well below the smallest limit of a message in use."""
    for start in range(0, len(text), PIECE_MAX):
        yield codec.encode({"type": "response", "data": text[start : start + PIECE_MAX]})


def error_head(error: KnotworkError) -> bytes:
    """Return the headers of an error (§9); a status the protocol has no word for becomes the nearest it has."""
    status = error.http_status
    if status not in _CODES:
        status = 400 if status < 499 else 500  # noqa: PLR2004  (499: cancelled, which no mending of the prompt helps)
    return wire.header(
        ("Nats-Service-Error-Code", str(status)), ("Nats-Service-Error", wire.clean(error.message, 200) or error.code)
    )


def error_body(error: KnotworkError) -> bytes:
    """Return the body of an error: ours, whole."""
    return frames.error_body(error)


class Said:
    """What was streamed already, so that the final output is not said a second time.

    White space does not count: an output may have been trimmed, or its parts be streamed as lines.
    """

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._pieces: list[str] = []
        self._length = 0
        self._line_ended = False

    def add(self, text: str) -> None:
        """Take note of a piece; beyond `SAID_MAX` characters no more."""
        dense = _dense(text)
        self._line_ended = text.endswith("\n") if text else self._line_ended
        self._length += len(dense)
        if self._length <= SAID_MAX:
            self._pieces.append(dense)

    def rest(self, output: Any) -> str:
        """Return what of the final output is still to be said: all of it, what follows what was streamed, or nothing."""
        text = text_of(output)
        dense = _dense(text)
        if not self._length or self._length > SAID_MAX:
            return text
        said = "".join(self._pieces)
        if isinstance(output, list) and said == _dense("".join(map(text_of, output))):
            return ""  # a generator: its output is the list of what it streamed
        if said.endswith(dense):
            return ""  # all of it, or the last of several things that were said
        if not dense.startswith(said):
            return text
        rest = text[_end_of(text, len(said)) :]
        return rest.removeprefix("\n") if self._line_ended else rest


def _dense(text: str) -> str:
    return "".join(text.split())


def _end_of(text: str, count: int) -> int:
    """Return where in `text` its first `count` characters that are not white space end."""
    end = 0
    for word in re.finditer(r"\S+", text):
        if count < word.end() - word.start():
            return word.start() + count if count else end
        count, end = count - (word.end() - word.start()), word.end()
    return end

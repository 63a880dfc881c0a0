"""What do the lines of the protocol mean? JSON-RPC in two revisions of MCP: with a handshake, and without (pure).

2025-11-25 (and the older ones it replaced): the client begins with `initialize`. 2026-07-28: nothing comes before, each
request says in its `_meta` which revision it is written in, and the server answers accordingly.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = ("2026-07-28",)
PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
UNSUPPORTED_VERSION = -32022
_META = "io.modelcontextprotocol/"
TASKS = "io.modelcontextprotocol/tasks"
ID_MAX_CHARS = 256
NUMBER_MAX = 2**63
Json = dict[str, Any]
EDGE = 1024
"""How many bytes at each end of a line are looked at for its id when it cannot be read."""
_ID = rb'"id"\s*:\s*(-?[0-9]{1,19}|"[^"\\]{0,256}")\s*'
_AT_BEGIN = re.compile(rb'\s*\{\s*(?:"(?:jsonrpc|method)"\s*:\s*"[^"\\]*"\s*,\s*){0,2}' + _ID + rb"[,}]")
_AT_END = re.compile(rb"[,{]\s*" + _ID + rb'(?:,\s*"jsonrpc"\s*:\s*"2.0"\s*)?\}\s*\Z')


class Refusal(Exception):
    """A request that is answered by a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None, request_id: Any = None) -> None:
        """Keep what is answered, and to which request (None: nobody knows)."""
        super().__init__(message)
        self.code, self.message, self.data, self.request_id = code, message, data, request_id


@dataclass(frozen=True, slots=True)
class Asked:
    """One request or notification (`id` None). `modern` when it carries its revision itself."""

    method: str
    params: Json
    id: str | int | None = None
    modern: bool = False
    meta: Json = field(default_factory=dict)

    @property
    def progress_token(self) -> str | int | None:
        """Return what the client wants progress to be told by."""
        token = self.meta.get("progressToken")
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None

    @property
    def client(self) -> Json:
        """Return what the client says of itself: `name`, `version`."""
        found = self.meta.get(f"{_META}clientInfo") if self.modern else self.params.get("clientInfo")
        return found if isinstance(found, dict) else {}

    @property
    def takes_tasks(self) -> bool:
        """Return whether it understands an answer that is a task (the Tasks extension)."""
        able = self.meta.get(f"{_META}clientCapabilities") if self.modern else None
        extensions = able.get("extensions") if isinstance(able, dict) else None
        return isinstance(extensions, dict) and TASKS in extensions


def read(line: bytes) -> Asked | None:
    """Return what a line asks, None for an answer to something; raises `Refusal`."""
    try:
        said = json.loads(line)
    except RecursionError:
        number = id_of(line[:EDGE], line[-EDGE:])
        raise Refusal(PARSE_ERROR, "This line is nested too deeply.", request_id=number) from None
    except ValueError:
        raise Refusal(PARSE_ERROR, "This line is not JSON.") from None
    if not isinstance(said, dict):
        raise Refusal(INVALID_REQUEST, "A message is one JSON object; batches are not part of these revisions.")
    number = said.get("id")
    known = number if _is_id(number) else None
    if "method" not in said and ("result" in said or "error" in said):
        return None
    if said.get("jsonrpc") != "2.0" or not isinstance(said.get("method"), str):
        raise Refusal(INVALID_REQUEST, 'A request has "jsonrpc": "2.0" and a "method".', request_id=known)
    if "id" in said and known is None:
        raise Refusal(INVALID_REQUEST, "An id is a text of 256 characters at most, or a whole number.")
    params = said.get("params")
    if params is not None and not isinstance(params, dict):
        raise Refusal(INVALID_PARAMS, "`params` must be an object.", request_id=known)
    params = params or {}
    meta = params.get("_meta")
    meta = meta if isinstance(meta, dict) else {}
    modern = f"{_META}protocolVersion" in meta and said["method"] != "initialize"
    asked = Asked(said["method"], params, known, modern, meta)
    if modern and known is not None:
        _check_envelope(asked)
    return asked


def id_of(begin: bytes, end: bytes) -> str | int | None:
    """Return the id of a request that is not read as a whole, from its two ends; None when it stands in neither."""
    found = _AT_BEGIN.match(begin) or _AT_END.search(end)
    try:
        number = json.loads(found[1]) if found is not None else None
    except ValueError:
        return None
    return number if _is_id(number) else None


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= ID_MAX_CHARS
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < NUMBER_MAX


def _check_envelope(asked: Asked) -> None:
    version = asked.meta[f"{_META}protocolVersion"]
    if not isinstance(asked.meta.get(f"{_META}clientCapabilities"), dict):
        raise Refusal(INVALID_PARAMS, f"params._meta needs an object {_META}clientCapabilities.", request_id=asked.id)
    if not isinstance(version, str):
        raise Refusal(INVALID_PARAMS, f"{_META}protocolVersion is a text.", request_id=asked.id)
    if version not in MODERN:
        known = {"supported": list(MODERN), "requested": version[:64]}
        raise Refusal(UNSUPPORTED_VERSION, "Unsupported protocol version", known, asked.id)


def result(asked: Asked, value: Json, server: Json) -> Json:
    """Return the answer to a request, as its revision writes it."""
    if asked.modern:
        meta = {**value.get("_meta", {}), f"{_META}serverInfo": server}
        value = {"resultType": "complete", **value, "_meta": meta}
    return {"jsonrpc": "2.0", "id": asked.id, "result": value}


def listed(asked: Asked, value: Json, *, ttl_ms: int) -> Json:
    """Return a list with how long it holds, where the revision says so; ours is the same for everybody."""
    return value | {"ttlMs": ttl_ms, "cacheScope": "private"} if asked.modern else value


def refusal(said: Refusal) -> Json:
    """Return the answer that a refusal is."""
    error: Json = {"code": said.code, "message": said.message}
    if said.data is not None:
        error["data"] = said.data
    return {"jsonrpc": "2.0", "id": said.request_id, "error": error}


def notification(method: str, params: Json) -> Json:
    """Return a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def agreed(asked: Asked) -> str:
    """Return the revision of a handshake: the one that is asked for when we know it, else our newest of that kind."""
    wanted = asked.params.get("protocolVersion")
    return wanted if isinstance(wanted, str) and wanted in HANDSHAKE else HANDSHAKE[-1]


def subscription(asked: Asked) -> Json:
    """Return the `_meta` that marks what belongs to a subscription."""
    return {"_meta": {f"{_META}subscriptionId": asked.id}}


def write(message: Json) -> bytes:
    """Return a message as one line; half a character becomes a question mark rather than an error."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"

"""What are the names on the wire? Every subject, stream and bucket name is built here, from validated tokens (pure).

No user text reaches a subject unescaped: each function takes tokens and refuses anything else, so a name with a dot,
a wildcard or a space can never widen what a subject means.
"""

from __future__ import annotations

import re

from knotwork.sdk.errors import Invalid

_TOKEN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_OP = re.compile(r"[a-z]{1,32}\.[a-z_]{1,32}")
_TOPIC = re.compile(r"[a-z0-9_-]{1,64}(\.[a-z0-9_-]{1,64}){0,7}")

NODES = "NODES"
SETTINGS = "SETTINGS"
TELEMETRY = "TELEMETRY"


def is_token(text: object) -> bool:
    """Return whether `text` may be a name of a node, agent, capability, project and the like."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def token(text: object, what: str) -> str:
    """Return `text` when it is a token; raises `Invalid` naming `what` it should have been."""
    if is_token(text):
        return str(text)
    shown = repr(text if not isinstance(text, str) else text[:80])
    raise Invalid(
        f"{what} {shown} is not a valid name.",
        code="request.bad_token",
        hint="Use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit.",
        detail={"field": what},
    )


def agent(node: str, name: str) -> str:
    """Return where an agent of a node is invoked."""
    return f"agent.{token(node, 'node')}.{token(name, 'agent')}"


def agents_of(node: str) -> str:
    """Return the pattern of all agents of one node."""
    return f"agent.{token(node, 'node')}.*"


def cancel(node: str, call: str) -> str:
    """Return where a node is told to stop one call; `call` is its id."""
    return f"cancel.{token(node, 'node')}.{token(call, 'call id')}"


def cancels_of(node: str) -> str:
    """Return the pattern of all cancellations meant for one node."""
    return f"cancel.{token(node, 'node')}.*"


def op(name: str, node: str = "") -> str:
    """Return where an op is asked of any node, or of the one named; `name` is `room.verb`."""
    if _OP.fullmatch(name) is None:
        raise Invalid(f"{name[:80]!r} is not the name of an op.", code="request.bad_op", hint="Write room.verb.")
    return f"op.{name}.{token(node, 'node')}" if node else f"op.{name}"


ALL_OP_CANCELS = "op.cancel.*"


def op_cancel(call: str) -> str:
    """Return where whoever carries out an op is told to stop it; `call` is its id."""
    return f"op.cancel.{token(call, 'call id')}"


def prompt(verb: str, kind: str, node: str, name: str) -> str:
    """Return a subject of the Synadia Agent Protocol; `verb` is prompt, status or hb, `kind` the agent's executor type."""
    return f"agents.{token(verb, 'verb')}.{token(kind, 'executor type')}.{token(node, 'node')}.{token(name, 'agent')}"


def prompts_of(node: str, verb: str) -> str:
    """Return the pattern of one verb of that protocol for all agents of a node."""
    return f"agents.{token(verb, 'verb')}.*.{token(node, 'node')}.*"


def may_answer(reply: str) -> bool:
    """Return whether an answer may go to `reply`: to an inbox, whose name begins with an underscore, and nowhere else.

    Whoever asks chooses where the answer goes, and we send it with our own rights; an answer sent to `$JS.API.…` would
    let somebody who may only ask questions work on streams.
    """
    return reply.startswith("_")


def telemetry(topic: str) -> str:
    """Return where telemetry of a topic goes; a topic has up to eight parts."""
    if _TOPIC.fullmatch(topic) is None:
        raise Invalid(
            f"{topic[:80]!r} is not a telemetry topic.", code="request.bad_topic", hint="Write a.b of a-z, 0-9."
        )
    return f"telemetry.{topic}"

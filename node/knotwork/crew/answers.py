"""What does an agent's answer say beside its words? What it took, and the data in it (pure).

An answer may be anything. That of an AI tool is an object whose fields docs/agents.md lists: its words in `text`, its data
in `structured`, and what it took as its vendor counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.crew import records
from knotwork.crew.budget import Spent

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = frozenset(
    {"text", "session", "model", "usage", "cost_usd", "turns", "structured", "finish", "tool_calls", "truncated"}
)
"""What the answer of an AI tool may hold, and no other answer holds alone."""
COST_MAX = 1e12
_TOKENS = (("tokens",), ("total_tokens",), ("input_tokens", "output_tokens"), ("prompt_tokens", "completion_tokens"))
"""How tokens are named, the first of these that is there counts: by us, and by vendors."""


class _Told(msgspec.Struct):
    usage: Any = None
    cost_usd: Any = None


def took(output: bytes) -> Spent:
    """Return what an output says it took, in its `usage` or as its vendor puts it; nothing when it does not."""
    try:
        told = msgspec.json.decode(output, type=_Told)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Spent()
    usage = told.usage if isinstance(told.usage, dict) else {}
    return Spent(int(_tokens(usage)), _amount(usage.get("cost", told.cost_usd), COST_MAX))


def data(output: Any) -> Any:
    """Return what is said in an output: of the answer of an AI tool its data or else its words, without the rest."""
    if not (isinstance(output, dict) and isinstance(output.get("text"), str) and FIELDS.issuperset(output)):
        return output
    return output["structured"] if "structured" in output else output["text"]


def _tokens(usage: Mapping[str, Any]) -> float:
    names = next((names for names in _TOKENS if any(name in usage for name in names)), ())
    return min(sum(_amount(usage.get(name), records.TOKENS_MAX) for name in names), records.TOKENS_MAX)


def _amount(told: Any, most: float) -> float:
    """Return a number that somebody else wrote, at most so much; 0 for what is none."""
    return min(max(told, 0), most) if isinstance(told, int | float) and not isinstance(told, bool) else 0

"""How do two ways of searching make one order? By the places a memory has in each, not by their scores (pure).

Reciprocal rank fusion, after Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
Rank Learning Methods", SIGIR 2009; k = 60 as there.
"""

from __future__ import annotations

from collections.abc import Sequence

K = 60


def fuse(*orders: Sequence[str]) -> list[str]:
    """Return all that is in any of the orders, best first; ties stay as the first order has them."""
    scores: dict[str, float] = {}
    for order in orders:
        for place, one in enumerate(order, 1):
            scores[one] = scores.get(one, 0.0) + 1 / (K + place)
    return sorted(scores, key=lambda one: -scores[one])

"""How large may a request be, through whatever door? Asked on both sides: a sender who goes on reads no refusal."""

from __future__ import annotations

from knotwork.sdk.errors import TooLarge

REQUEST_MAX_BYTES = 8 * 1024 * 1024


def too_large(most: int = REQUEST_MAX_BYTES) -> TooLarge:
    """Return the error of a request of more than `most` bytes."""
    return TooLarge(
        f"The request is over {most} bytes.", code="ops.request_too_large",
        hint="Put the data somewhere the agent can read and send its address.",
    )  # fmt: skip

"""Who may write to whom? The contact policy of a project, decided for each message (pure)."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from knotwork.sdk.errors import Denied, Invalid
from knotwork.trust.who import Who

Mode = Literal["open", "team", "allow-list", "none"]
RULES_MAX = 500
_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
_END = rf"(?:\*|owner={_NAME}|{_NAME}(?:@{_NAME})?)"
_RULE = re.compile(rf"({_END})(?<!-)>({_END})")


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a project wants it.

    open: whoever can reach an agent may write to it. team: agents and people of the same project. allow-list: as
    `allow` says, and back. none: nobody; channels are all there is.
    """

    mode: Mode = "open"
    allow: Annotated[tuple[str, ...], msgspec.Meta(max_length=RULES_MAX)] = ()


_decoder = msgspec.json.Decoder(Policy)


def decode(data: bytes) -> Policy:
    """Return a policy that was stored; raises `Invalid` (`contact.malformed`)."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"This is no contact policy: {error}.", code="contact.malformed") from error


def encode(policy: Policy) -> bytes:
    """Return a policy as JSON."""
    return msgspec.json.encode(policy)


def checked(mode: Mode, allow: list[str]) -> Policy:
    """Return the policy these words mean; raises `Invalid` (`contact.bad_rule`) naming every rule that is none."""
    wrong = [rule for rule in allow if _RULE.fullmatch(rule) is None]
    if wrong:
        raise Invalid(
            f"No rules: {', '.join(repr(rule[:80]) for rule in wrong[:10])}.", code="contact.bad_rule",
            hint="Write from>to; each is an id, a handle, handle@project, owner=NAME, or *: planner>* or *>reviewer, say.",
        )  # fmt: skip
    return Policy(mode, tuple(dict.fromkeys(allow)))


def allows(policy: Policy, sender: Who, to: Who, *, of: str, answering: bool = False) -> bool:
    """Return whether one may write to the other by the policy `of` a project, where names mean its own agents.

    Whoever answers a message may do so wherever letters are allowed.
    """
    if sender.id == to.id and sender.project == to.project:
        return True
    match policy.mode:
        case "open":
            return True
        case "team":
            return sender.project == to.project
        case "allow-list":
            return answering or any(_fits(rule, sender, to, of) for rule in policy.allow)
        case _:
            return False


def _fits(rule: str, sender: Who, to: Who, of: str) -> bool:
    found = _RULE.fullmatch(rule)
    return found is not None and _is(found[1], sender, of) and _is(found[2], to, of)


def _is(end: str, who: Who, of: str) -> bool:
    if end == "*" or (end == who.id and who.kind == "agent"):
        return True
    if end.startswith("owner="):
        return end.removeprefix("owner=") == who.owner
    name, _, project = end.partition("@")  # elsewhere anybody may take a name that is somebody's here
    return who.project == (project or of) and name in (who.id, who.name)


def refused(policy: Policy, sender: Who, to: Who, *, of: str) -> Denied:
    """Return the error of a message that may not be sent by the policy `of` a project, the sender's or the recipient's."""
    return Denied(
        f"{sender.name} may not write to {to.name}: the contact policy of {of} is {policy.mode!r}.",
        code="contact.denied", hint="Say it in a channel, or have the policy changed: `knotwork contact set`.",
        detail={"policy": policy.mode, "to": to.id},
    )  # fmt: skip

"""What does a launched agent find in its environment? What the target sets, and what the launch brings to join with."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from knotwork.sdk import Invalid, SecretRef
from knotwork_plugins.spinups import words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.sdk import LaunchRequest, Secrets

KNOWN_MAX = 256
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


def _named(env: dict[str, str | SecretRef]) -> dict[str, str | SecretRef]:
    for name, value in env.items():
        if not NAME.fullmatch(name):
            msg = f"no environment variable can be called {name!r}"
            raise ValueError(msg)
        if isinstance(value, str) and "\0" in value:
            msg = f"{name} contains a zero byte"
            raise ValueError(msg)
    return env


Environment = Annotated[dict[str, str | SecretRef], AfterValidator(_named)]
"""A table of variables whose values are texts or secret references."""


class Known:
    """The secrets of the launches of one instance, so that what an agent prints of them is not told on.

    After a restart they are no longer known, and only what has the shape of a secret is taken out.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._secrets: dict[str, list[str]] = {}

    def keep(self, launch: str, env: Mapping[str, str]) -> list[str]:
        """Remember the secrets of a launch, and return them; of the oldest launches they are forgotten."""
        found = self._secrets.setdefault(launch, words.secrets_in(env))
        while len(self._secrets) > KNOWN_MAX:
            del self._secrets[next(iter(self._secrets))]
        return found

    def of(self, launch: str) -> list[str]:
        """Return the secrets of a launch, as far as they are known."""
        return self._secrets.get(launch, [])

    def drop(self, launch: str) -> None:
        """Forget a launch."""
        self._secrets.pop(launch, None)


async def gathered(table: dict[str, str | SecretRef], request: LaunchRequest, secrets: Secrets) -> dict[str, str]:
    """Return the variables of the target with its secrets resolved, and those of the launch, which win.

    Raises `Unavailable` when a secret cannot be had, `Invalid` for what no environment can hold.
    """
    env = {name: value for name, value in table.items() if isinstance(value, str)}
    later = {name: value for name, value in table.items() if isinstance(value, SecretRef)}
    if later:  # files or commands: not in the loop
        env |= await asyncio.to_thread(lambda: {name: secrets(value) for name, value in later.items()})
    env |= request.env
    env["KNOTWORK_LAUNCH"] = request.id
    odd = [name for name, value in env.items() if not NAME.fullmatch(name) or "\0" in value]
    if odd:
        raise Invalid(f"the variable {odd[0]!r} cannot be handed to an agent.", code="launch.bad_environment")
    return env

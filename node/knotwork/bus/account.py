"""Whose account is a connection of? The server says so, when it is asked as the user that we are.

Servers before 2.10, and users who may not ask, leave it open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

ASK = "$SYS.REQ.USER.INFO"
ANSWER_S = 1.0


class _User(msgspec.Struct):
    account: str = ""


class _Answer(msgspec.Struct):
    data: _User = msgspec.field(default_factory=_User)


_decoder = msgspec.json.Decoder(_Answer)


async def of(connection: Connection) -> str:
    """Return the id of the account, "" when nobody can tell within a second."""
    before = connection.last_error
    try:
        said = await connection.request(ASK, timeout_s=ANSWER_S, patient=False)
        return _decoder.decode(said.data).data.account
    except (KnotworkError, msgspec.DecodeError, UnicodeDecodeError):
        if ASK.lower() in connection.forbidden.lower():  # it is no right that a node needs
            connection.forbidden, connection.last_error = "", before
        return ""

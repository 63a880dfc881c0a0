"""What may a value of the configuration look like? Names, texts, numbers and sizes, and what every table keeps to."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

TOKEN_PATTERN = "[a-z0-9][a-z0-9_-]{0,63}"  # noqa: S105 - a pattern for names, no password
TOKEN_WORDS = "1 to 64 of a-z, 0-9, _ and -, beginning with a letter or a digit"  # noqa: S105 - the same in words

Token = Annotated[str, StringConstraints(strict=True, pattern=f"^{TOKEN_PATTERN}$")]
Tag = Annotated[str, StringConstraints(strict=True, pattern="^[A-Za-z0-9][A-Za-z0-9_.:/=-]{0,63}$")]
Text = Annotated[str, StringConstraints(strict=True, max_length=4096)]
Word = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256)]
LabelPattern = Annotated[
    str, StringConstraints(strict=True, max_length=321, pattern="^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}=.+$")
]
Host = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_.:*-]{1,255}$")]
HostHeader = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_.:\[\]*-]{1,255}$")]
Url = Annotated[str, StringConstraints(strict=True, max_length=2048, pattern="^(nats|tls|ws|wss)://[^ ]+$")]
Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Port = Annotated[int, Field(strict=True, ge=0, le=65535)]


class Table(BaseModel):
    """A table of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

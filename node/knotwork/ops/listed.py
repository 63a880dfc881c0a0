"""Which ops are there, as a door sees them before one is asked? Plain rows made once; no model and no handler is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from knotwork.ops import form, rows

LISTED: Mapping[str, form.Row] = MappingProxyType({row.name: row for row in form.rows(rows.ROWS)})
"""Every op by name, in the order of the table."""

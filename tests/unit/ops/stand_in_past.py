"""A view of the past for the doors' tests: it keeps the port's protocol, and finds the question itself."""

from __future__ import annotations

from knotwork.ops import view_replies


class StandInPast:
    """A view that is up to date."""

    async def sql(self, query: str, *, limit: int, timeout_s: float) -> view_replies.SqlReply:
        return view_replies.SqlReply(columns=["query"], rows=[{"query": query}][:limit], took_s=timeout_s)

    async def status(self) -> view_replies.ViewStatus:
        return view_replies.ViewStatus(project="default", state="live", tasks=1)

    async def rebuild(self) -> view_replies.Rebuilding:
        return view_replies.Rebuilding(project="default")

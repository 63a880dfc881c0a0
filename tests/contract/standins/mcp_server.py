"""A real MCP server, written with the official SDK: over stdio, or with `http` and a port over Streamable HTTP."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("stand")


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool(structured_output=False)
def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


@server.tool()
async def work(steps: int, ctx: Context) -> dict[str, Any]:
    """Report progress."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps, f"step {step + 1}")
    return {"steps": steps}


@server.tool()
def fail(message: str) -> str:
    """Fail."""
    raise ToolError(message)


@server.tool()
async def hang(path: str = "") -> str:
    """Say that it waits, wait until cancelled, and say so."""
    if path:
        Path(path).write_text("waits")
    try:
        await asyncio.sleep(60)
    finally:
        if path:
            Path(path).write_text("cancelled")
    return "late"


@server.tool()
def whoami() -> dict[str, Any]:
    """Tell about the process."""
    return {"pid": os.getpid(), "env": dict(os.environ), "cwd": str(Path.cwd())}


@server.tool()
def die() -> str:
    """End the server in the middle of a call."""
    sys.stderr.write("dying now\n")
    sys.stderr.flush()
    os._exit(3)


if sys.argv[1:2] == ["http"]:
    server.run("streamable-http", port=int(sys.argv[2]))
elif sys.argv[1:2] == ["broken"]:
    sys.exit("this server is broken")
else:
    sys.stdout.write("garbage on stdout\n")
    sys.stdout.flush()
    server.run()

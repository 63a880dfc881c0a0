"""How is an agent's client served? `knotwork mcp`: the protocol on standard input and output, for as long as it lasts."""

from __future__ import annotations

from typing import Any

import click

from knotwork.cli import options, serving
from knotwork.mcp import toolsets
from knotwork.mcp.bridge import CHANNEL


def _mcp(**values: Any) -> None:
    shared = options.take(values)
    wanted = serving.Wanted(
        list(values["toolset"]), values["session"] or "", values["project_path"] or "", shared.data_dir, shared.url,
        shared.creds, shared.project, shared.on, start=values["start"], push=values["push"],
    )  # fmt: skip
    serving.serve(wanted)


mcp = click.Command(
    "mcp",
    callback=_mcp,
    params=[
        click.Option(
            ["--toolset"], type=click.Choice(tuple(toolsets.ABOUT)), multiple=True,
            help="which tools to list first; can be given several times [default: core]",
        ),
        click.Option(["--session"], metavar="LABEL", help=f"which agent of this folder it is [env: {serving.SESSION}]"),
        click.Option(["--project-path"], metavar="DIR", help="the folder it works in [default: where it is started]"),
        click.Option(["--start/--no-start"], default=True, help="start a node when none runs [default: start]"),
        click.Option(["--push"], is_flag=True, help=f"tell the client what arrives, by {CHANNEL}"),
        *options.answering(),
        *options.reaching(),
    ],
    short_help="Serve an agent's client over MCP",
    help="Speak the Model Context Protocol on standard input and output, in the revisions 2026-07-28 and 2025-11-25. "
    "Clients such as Claude Code start it themselves: `knotwork connect` writes their configuration.\n\n"
    "Each session is an agent of its own, known by machine, folder and label, and restarts as itself.",
    epilog="\b\nExamples:\n  # What a client runs\n  knotwork mcp\n  # With the 34 tools of earlier products\n"
    "  knotwork mcp --toolset classic\n  # A second agent of this folder, by name\n  knotwork mcp --session reviewer",
)  # fmt: skip

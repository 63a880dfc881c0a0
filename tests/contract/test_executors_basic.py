"""Do the basic executors keep the contract of every executor?"""

import http.server
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from knotwork.sdk import Done
from knotwork.sdk.testing import ExecutorContract
from knotwork_plugins.executors import rehearsal
from knotwork_plugins.executors.http_call import plugin as http_call
from knotwork_plugins.executors.process import plugin as process
from knotwork_plugins.executors.python_function import plugin as python_function


class TestProcess(ExecutorContract):
    factory = process.FACTORY
    config: ClassVar = {"command": ["cat"]}
    bad_configs = ({}, {"command": []}, {"command": "x"}, {"command": ["cat"], "grace_s": -1})
    input = "hello"
    long_config: ClassVar = {"command": ["sh", "-c", "trap '' TERM; sleep 60 & sleep 60; sleep 60"]}
    long_input = None

    def check(self, outcome: Any) -> None:
        assert outcome == Done("hello")


class TestProcessThatNeverReads(TestProcess):
    config: ClassVar = {"command": ["printf", "hello"]}
    input = "x" * 8_000_000


class TestProcessWithFileAndJson(ExecutorContract):
    factory = process.FACTORY
    config: ClassVar = {"command": ["cat"], "input_as": "file", "input_format": "json", "output": "json"}
    input: ClassVar = {"a": ["ü", 1, None]}
    long_config: ClassVar = {"command": ["tail", "-f"], "input_as": "file"}
    long_input = None

    def check(self, outcome: Any) -> None:
        assert outcome == Done(self.input)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("functions") / "functions.py"
    path.write_text(
        "import asyncio\n"
        "def shout(given): return str(given).upper()\n"
        "async def ashout(given): return str(given).upper()\n"
        "async def hang(given): await asyncio.sleep(60)\n"
        "def letters(given):\n    yield from str(given)\n"
    )
    return str(path)


class TestPython(ExecutorContract):
    factory = python_function.FACTORY
    bad_configs = ({}, {"function": "no colon"}, {"function": "os:getcwd", "threads_max": 0})
    input = "hello"
    long_input = None
    name = "shout"
    answer: Any = "HELLO"

    @pytest.fixture(autouse=True)
    def with_file(self, functions: str) -> None:
        self.config = {"function": f"{functions}:{self.name}"}
        self.long_config = {"function": f"{functions}:hang"}

    def check(self, outcome: Any) -> None:
        assert outcome == Done(self.answer)


class TestPythonAsync(TestPython):
    name = "ashout"


class TestPythonGenerator(TestPython):
    name = "letters"
    answer: ClassVar = list("hello")


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it gets; hangs on /hang until the client has gone."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/hang":
            self.connection.recv(1)
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(30)


class TestHttp(ExecutorContract):
    factory = http_call.FACTORY
    bad_configs = ({}, {"url": "file:///etc/passwd"}, {"url": "http://{input}/"})
    input: ClassVar = {"a": ["ü", 1, None]}
    long_input = None

    @pytest.fixture(autouse=True)
    def with_server(self, url: str) -> None:
        self.config = {"url": url}
        self.long_config = {"url": f"{url}/hang"}

    def check(self, outcome: Any) -> None:
        assert outcome == Done(self.input)


class TestRehearsal(ExecutorContract):
    factory = rehearsal.FACTORY
    config: ClassVar = {"steps": [{"progress": 50}, {"chunk": {"a": 1}}, {"delay_s": 0.01}, {"done": "ok"}]}
    bad_configs = ({"steps": [{}]}, {"steps": [{"delay_s": 1, "echo": True}]})
    long_config: ClassVar = {"steps": [{"ignore_cancel_s": 1.0}, {"delay_s": 60}]}
    long_input = None

    def check(self, outcome: Any) -> None:
        assert outcome == Done("ok")


def test_opening_them_imports_nothing_heavy() -> None:
    """All bundled plugin files are imported at every start of a node."""
    import subprocess

    program = (
        "import knotwork_plugins.executors.process.plugin, knotwork_plugins.executors.python_function.plugin, sys\n"
        "import knotwork_plugins.executors.http_call.plugin, knotwork_plugins.executors.rehearsal\n"
        "print(*(name for name in ('httpx', 'psutil', 'uvloop', 'jsonschema') if name in sys.modules))\n"
    )
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""

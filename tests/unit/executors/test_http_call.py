"""Does a URL become an agent, whatever the server answers?"""

import asyncio
import gzip
import http.server
import json
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from knotwork.sdk import Done, Failed, Unavailable
from knotwork.sdk.testing import attempt, host
from knotwork_plugins.executors.http_call.plugin import FACTORY, HttpConfig, retry_after_s
from knotwork_plugins.executors.http_call.template import NoSuchPart, fill, fill_url

MEBIBYTE = 1_048_576
BOMB = zlib.compress(b"0" * 50 * MEBIBYTE)


class Server(http.server.ThreadingHTTPServer):
    """A real server that answers as the path says and remembers what it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.hanging = threading.Event()
        self.hung_up = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append({"method": self.command, "path": self.path, "headers": headers, "body": body})
        what = self.path.split("?")[0].strip("/").split("/")[0]
        getattr(self, f"on_{what}", self.on_echo)(body)

    do_GET = do_POST = do_any  # noqa: N815 - the library's names

    def on_echo(self, body: bytes) -> None:
        self.answer(200, body or b"null", content_type="application/json")

    def on_status(self, body: bytes) -> None:
        self.answer(int(self.path.split("/")[2]), b"sorry " * 1000, retry_after="7", location="/echo")

    def on_text(self, body: bytes) -> None:
        self.answer(200, "grün".encode("latin-1"), content_type="text/plain; charset=latin-1", set_cookie="a=b")

    def on_odd(self, body: bytes) -> None:
        self.answer(200, b"\xff\xfe", content_type="text/plain; charset=no-such-charset")

    def on_liar(self, body: bytes) -> None:
        self.answer(200, b"<html>", content_type="application/json")

    def on_marked(self, body: bytes) -> None:
        self.answer(200, b'\xef\xbb\xbf{"marked": true}', content_type="application/json")

    def on_empty(self, body: bytes) -> None:
        self.answer(204, b"")

    def on_gzip(self, body: bytes) -> None:
        self.answer(200, gzip.compress(b'{"packed": true}'), content_encoding="gzip", content_type="application/json")

    def on_bomb(self, body: bytes) -> None:
        self.answer(200, BOMB, content_encoding="deflate")

    def on_brotli(self, body: bytes) -> None:
        self.answer(200, b"xxxx", content_encoding="br")

    def on_notgzip(self, body: bytes) -> None:
        self.answer(200, b"xxxx", content_encoding="gzip")

    def on_flood(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            self.server.hung_up.set()
        self.close_connection = True

    def on_hang(self, body: bytes) -> None:
        self.server.hanging.set()
        if not self.connection.recv(1):
            self.server.hung_up.set()
        self.close_connection = True

    def on_cut(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b"half")
        self.close_connection = True

    def on_garbage(self, body: bytes) -> None:
        self.wfile.write(b"this is not HTTP at all\r\n\r\n")
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(30)


@pytest.fixture
def ask(run, server):
    def call(path: str, given: Any = None, fields: Any = None, **config: Any) -> Any:
        async def steps():
            async with host(FACTORY, {"url": server.url + path, **config}) as executor:
                return await executor.execute(attempt(given, **(fields or {})))

        return run(steps())

    return call


def test_the_input_is_the_body_and_the_answer_the_output(ask, server):
    assert ask("/echo", {"a": "ü"}) == Done({"a": "ü"})
    (seen,) = server.seen
    assert (seen["method"], seen["headers"]["content-type"]) == ("POST", "application/json")


def test_get_sends_no_body_and_fills_url_and_query(ask, server):
    given = {"id": "a/b?c#d", "q": {"x": 1}}
    assert ask("/items/{input.id}", given, method="GET", query={"q": "{input.q}", "fix": "1 & 2"}) == Done(None)
    assert (
        server.seen[0]["path"] == "/items/a%2Fb%3Fc%23d?q=%7B%22x%22%3A1%7D&fix=1+%26+2"
        or server.seen[0]["path"] == "/items/a%2Fb%3Fc%23d?q=%7B%22x%22%3A1%7D&fix=1%20%26%202"
    )
    assert server.seen[0]["body"] == b""


@pytest.mark.parametrize("given", [{}, "text", {"id": ".."}, {"id": "."}, {"id": ""}, None])
def test_an_input_that_does_not_fit_the_url_is_refused_unsent(ask, server, given):
    assert ask("/items/{input.id}/x", given, method="GET").code == "agent.input_invalid"
    assert server.seen == []


def test_headers_secrets_and_context(ask, server, monkeypatch):
    monkeypatch.setenv("HTTP_CALL_SECRET", "Bearer s3cret")
    fields = {"traceparent": "00-1-2-01", "idempotency_key": "key-1"}
    ask(
        "/echo",
        1,
        fields,
        headers={"Authorization": {"env": "HTTP_CALL_SECRET"}, "X-Plain": "p", "content-type": "x/y"},
    )
    headers = server.seen[0]["headers"]
    wanted = {"authorization": "Bearer s3cret", "x-plain": "p", "content-type": "x/y", "traceparent": "00-1-2-01"}
    assert wanted.items() <= headers.items()
    assert headers["idempotency-key"] == "key-1"
    ask("/echo", 1, {"traceparent": "evil\r\nX: y", "idempotency_key": "k"}, send_context=True)
    assert "traceparent" not in server.seen[1]["headers"]
    ask("/echo", 1, fields, send_context=False)
    assert "idempotency-key" not in server.seen[2]["headers"]


def test_text_body_and_text_answer(ask, server):
    assert ask("/text", "plain ü", body="text") == Done("grün")
    assert server.seen[0]["body"] == "plain ü".encode()


def test_what_one_attempt_is_given_the_next_does_not_carry(run, server):
    async def steps():
        async with host(FACTORY, {"url": f"{server.url}/text"}) as executor:
            for _ in range(2):
                await executor.execute(attempt())

    run(steps())
    assert "cookie" not in server.seen[1]["headers"]


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/odd", Done("\ufffd\ufffd")),
        ("/empty", Done(None)),
        ("/gzip", Done({"packed": True})),
        ("/marked", Done({"marked": True})),
    ],
)
def test_odd_answers(ask, path, outcome):
    assert ask(path) == outcome


@pytest.mark.parametrize(
    ("path", "code", "retriable"),
    [
        ("/liar", "agent.output_not_json", False),
        ("/status/404", "agent.http_status", False),
        ("/status/429", "agent.http_status", True),
        ("/status/503", "agent.http_status", True),
        ("/status/302", "agent.http_status", False),
        ("/bomb", "agent.output_too_large", False),
        ("/flood", "agent.output_too_large", False),
        ("/brotli", "agent.unreachable", False),
        ("/notgzip", "agent.unreachable", False),
        ("/cut", "agent.unreachable", True),
        ("/garbage", "agent.unreachable", True),
    ],
)
def test_bad_answers_are_typed_failures(ask, path, code, retriable):
    outcome = ask(path, output_max_bytes=MEBIBYTE)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == (code, retriable), outcome


def test_a_failure_carries_status_start_of_body_and_pause(ask):
    outcome = ask("/status/503")
    assert outcome.retry_after_s == 7
    assert outcome.detail["status"] == 503
    assert outcome.detail["body"].startswith("sorry ")
    assert len(outcome.detail["body"]) <= 2048
    assert ask("/status/302").detail["location"] == "/echo"


def test_redirects_are_followed_when_asked(ask):
    assert ask("/status/307", {"a": 1}, follow_redirects=True) == Done({"a": 1})


def test_nobody_there(run):
    async def steps():
        async with host(FACTORY, {"url": "http://127.0.0.1:9/"}) as executor:
            return await executor.execute(attempt())

    outcome = run(steps())
    assert (outcome.code, outcome.retriable) == ("agent.unreachable", True)


def test_time_limit(ask, server):
    outcome = ask("/hang", time_limit_s=0.1)
    assert (outcome.code, outcome.retriable) == ("agent.timed_out", True)


def test_cancel_hangs_up(run, server):
    async def steps():
        async with host(FACTORY, {"url": f"{server.url}/hang"}) as executor, asyncio.TaskGroup() as group:
            task = group.create_task(executor.execute(attempt()))
            while not server.hanging.is_set():
                await asyncio.sleep(0.005)
            task.cancel()
            await asyncio.wait([task], timeout=30)
            assert task.cancelled()
            assert await asyncio.to_thread(server.hung_up.wait, 30)

    run(steps())


def test_a_flood_is_hung_up_on(ask, server):
    ask("/flood", output_max_bytes=1000)
    assert server.hung_up.wait(30)


def test_side_by_side_with_few_connections(run, server):
    async def steps():
        async with host(FACTORY, {"url": f"{server.url}/echo"}) as executor:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(executor.execute(attempt(number))) for number in range(50)]
            assert [task.result() for task in tasks] == [Done(number) for number in range(50)]

    run(steps())


def test_probe(run, server):
    async def steps(url: str):
        async with host(FACTORY, {"url": f"{server.url}/echo", "probe_url": url}):
            pass

    run(steps(f"{server.url}/status/404"))
    with pytest.raises(Unavailable, match="503"):
        run(steps(f"{server.url}/status/503"))
    with pytest.raises(Unavailable, match="does not answer"):
        run(steps("http://127.0.0.1:9/"))


def test_certificates_that_are_not_there(run):
    async def steps():
        async with host(FACTORY, {"url": "https://127.0.0.1:9/", "ca_file": "/no/such/file"}):
            pass

    with pytest.raises(Unavailable, match="/no/such/file"):
        run(steps())


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"url": "ftp://x.org/"},
        {"url": "http://"},
        {"url": "http://{input}/x"},
        {"url": "http://x.org/{other}"},
        {"url": "http://x.org/", "query": {"a": "{input"}},
        {"url": "http://x.org/", "headers": {"A\r\nB": "x"}},
        {"url": "http://x.org/", "headers": {"A": "x\r\ny"}},
        {"url": "http://x.org/", "method": "post"},
        {"url": "http://x.org/", "probe_url": "http://x.org/{input}"},
        {"url": "http://x.org/", "timeout_s": 3},
    ],
)
def test_bad_configs_are_refused(table):
    with pytest.raises(ValidationError):
        HttpConfig.model_validate(table)


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [
        ("7", 7), ("0", 0), ("", None), ("soon", None), ("-3", None), ("9" * 400, 86_400), ("1e3", None),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10), ("Wed, 21 Oct 2015 07:27:00 GMT", 0), ("Wed, 99 Oct 2015", None), ("\u0663", None),
    ],
)  # fmt: skip
def test_retry_after(header, pause_s):
    assert retry_after_s(header, 1_445_412_480.0) == pause_s


def test_templates():
    assert fill("{input.a.b}-{input.c}", {"a": {"b": "x y"}, "c": [1]}) == "x y-[1]"
    assert fill_url("/{input}", "ü/?") == "/%C3%BC%2F%3F"
    with pytest.raises(NoSuchPart):
        fill("{input.a}", {"a": {}}["a"])
    assert json.loads(fill("{input}", {"a": "{input}"})) == {"a": "{input}"}


def test_the_head_of_a_url_is_read_quickly():
    began_s = time.process_time()  # of the processor: others may use it meanwhile
    HttpConfig.model_validate({"url": "http://x.org/" + "{input.a}" * 900})
    assert time.process_time() - began_s < 5

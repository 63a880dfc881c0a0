"""The bundled triggers against a real HTTP server: what is new fires, once, wherever it goes on from."""

import asyncio
import hashlib
import json
import threading
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from knotwork.sdk import Firing, Mark, Unavailable
from knotwork.sdk.testing import TriggerContract, host
from knotwork_plugins.triggers import FACTORIES
from knotwork_plugins.triggers.poll import answers

POLL = {factory.name: factory for factory in FACTORIES}["poll"]
RSS = b"""<?xml version="1.0"?><rss version="2.0"><channel><title>x</title>
<item><title>B</title><guid>b</guid><link>http://x/b</link><description>&lt;p&gt;hi&lt;/p&gt;</description></item>
<item><title>A</title><link>http://x/a</link></item></channel></rss>"""
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>urn:2</id><title>Two</title>
<link rel="edit" href="http://x/edit"/><link href="http://x/2"/><updated>2026-01-02T00:00:00Z</updated></entry>
<entry><id>urn:1</id><title>One</title></entry></feed>"""


class Site:
    """A web site of one page."""

    def __init__(self):
        self.body, self.kind, self.status, self.more = b"[]", "application/json", 200, {}
        self.asked = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                tag = f'"{hashlib.sha256(site.body).hexdigest()}"'
                status = 304 if self.headers.get("If-None-Match") == tag else site.status
                site.asked.append((status, dict(self.headers)))
                body = b"" if status == 304 else site.body
                self.send_response(status)
                for name, value in {"ETag": tag, "Content-Type": site.kind, **site.more}.items():
                    self.send_header(name, value)
                if status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/list?token=hush"

    def say(self, value):
        self.body = json.dumps(value).encode()

    def table(self, **more):
        return {"url": self.url, "every_s": 0.1, "use_proxies": False, **more}


@pytest.fixture
def site():
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


class TestPoll(TriggerContract):
    factory = POLL
    bad_configs = (
        {"url": "ftp://x.org/a"}, {"url": "http://"}, {"url": "http://x.org", "every_s": 0},
        {"url": "http://x.org", "items": "a["}, {"url": "http://x.org", "id": "]"}, {},
    )  # fmt: skip
    fires = 2

    @pytest.fixture(autouse=True)
    def somewhere(self, site):
        site.say([{"id": 1}, {"id": 2}])
        self.config = site.table(begin="all")


class TestNobodyThere(TriggerContract):
    factory = POLL
    config = {"url": "http://127.0.0.1:9/", "use_proxies": False}  # noqa: RUF012  as an operator writes it
    waits = True


async def some(telling, count):
    found = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found.append(await anext(telling))
    return found


async def test_what_is_new_fires_and_is_asked_for_with_its_tag(site):
    site.say([{"id": "a"}])
    async with host(POLL, site.table()) as poll, aclosing(poll.firings(None)) as telling:
        (mark,) = await some(telling, 1)
        assert isinstance(mark, Mark)  # what was there before
        site.say([{"id": "a"}, {"id": "b", "x": 1}])
        fired, after = await some(telling, 2)
        assert (fired.id, fired.input) == ("b", {"id": "b", "x": 1})
    async with host(POLL, site.table()) as poll, aclosing(poll.firings(after.value)) as telling:
        async with asyncio.TaskGroup() as group:
            pulled = group.create_task(anext(telling))
            async with asyncio.timeout(30):
                while site.asked[-1][0] != 304:
                    await asyncio.sleep(0.01)
            site.say({"items": [{"id": "c"}, {"id": "a"}]})  # a list inside is found, too
        assert pulled.result().id == "c"
    async with host(POLL, site.table()) as poll, aclosing(poll.firings(fired.mark)) as telling:
        assert (await some(telling, 1))[0].id == "c"  # one that died after `b` goes on from there


async def test_one_that_died_half_way_tells_the_rest(site):
    site.say([{"id": name} for name in "abc"])
    async with host(POLL, site.table(begin="all")) as poll:
        async with aclosing(poll.firings(None)) as telling:
            first, _ = await some(telling, 2)
        async with aclosing(poll.firings(first.mark)) as telling:
            rest = await some(telling, 3)
    assert [one.id for one in rest if isinstance(one, Firing)] == ["b", "c"]


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ({"status": 500}, "poll.refused", "answers 500"), ({"status": 404}, "poll.refused", "answers 404"),
        ({"body": b"{"}, "poll.unreadable", "no JSON"), ({"body": b"[" + b" " * 2000 + b"]"}, "poll.too_large", "1000 bytes"),
        ({"body": b"<rss", "kind": "text/xml"}, "poll.unreadable", "no XML"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_said_without_what_is_secret(site, said, code, words):
    for name, value in said.items():
        setattr(site, name, value)
    async with host(POLL, site.table(answer_max_bytes=1000)) as poll, aclosing(poll.firings(None)) as telling:
        with pytest.raises(Unavailable, match=words) as raised:
            await anext(telling)
    assert raised.value.code == code
    assert "hush" not in str(raised.value)


async def test_it_waits_as_long_as_it_is_told_to(site):
    site.status, site.more = 429, {"Retry-After": "7"}
    async with host(POLL, site.table()) as poll, aclosing(poll.firings(None)) as telling:
        with pytest.raises(Unavailable) as raised:
            await anext(telling)
    assert raised.value.retry_after_s == 7


async def test_headers_may_be_secrets(site, monkeypatch):
    monkeypatch.setenv("POLL_KEY", "Bearer s3cret")
    table = site.table(headers={"Authorization": {"env": "POLL_KEY"}, "X-A": "b"})
    async with host(POLL, table) as poll, aclosing(poll.firings(None)) as telling:
        await anext(telling)
    assert site.asked[0][1]["Authorization"] == "Bearer s3cret"
    assert site.asked[0][1]["X-A"] == "b"


def names(found):
    return [item.id for item in found]


def test_feeds_tell_the_oldest_first():
    rss = answers.read(RSS, "application/rss+xml", "auto")
    assert names(rss) == ["http://x/a", "b"]
    assert rss[1].value == {"id": "b", "title": "B", "link": "http://x/b", "summary": "<p>hi</p>"}
    atom = answers.read(ATOM, "text/xml", "auto")
    assert names(atom) == ["urn:1", "urn:2"]
    assert atom[1].value["link"] == "http://x/2"
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><rss><item>&b;</item></rss>'
    with pytest.raises(answers.Unreadable, match="entities"):
        answers.read(bomb, "text/xml", "feed")


def test_items_are_told_apart_by_what_they_say_or_are():
    listed = json.dumps({"deep": {"rows": [{"n": 1, "sha": "x"}, {"n": 2, "sha": "y"}]}}).encode()
    assert names(answers.read(listed, "application/json", "auto", "deep.rows", "sha")) == ["x", "y"]
    assert names(answers.read(listed, "application/json", "auto", "deep.none")) == []
    whole = answers.read(listed, "application/json", "auto")
    assert [item.value for item in whole] == [json.loads(listed)]
    twins = answers.read(b'[{"a": 1}, {"a": 1}, 5, null, {"id": ""}]', "", "auto")
    assert len(twins) == 4
    assert all(item.id.startswith("sha256-") for item in twins if item.value != 5)
    long = answers.read(json.dumps([{"id": "x" * 300}]).encode(), "", "json")
    assert len(long[0].id) < 64
    page = answers.read(b"<html>1", "text/html", "auto")
    assert page != answers.read(b"<html>2", "text/html", "auto")
    with pytest.raises(answers.Unreadable):
        answers.read(listed, "application/json", "auto", "length(deep.rows[0].n)")

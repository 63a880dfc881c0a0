"""The bundled memory plugins: the contract on each, kv over a real nats-server, vectors from a real HTTP service."""

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from knotwork.bus import child, server
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.host.memory_buckets import MemoryBuckets
from knotwork.sdk import Conflict, PluginFailed, Unavailable
from knotwork.sdk.memory import Place
from knotwork.sdk.testing import DictBuckets, EmbedderContract, MemoryContract, SystemClock, host
from knotwork.trust import keys
from knotwork_plugins.memories import FACTORIES

TYPES = {factory.name: factory for factory in FACTORIES}


class TestKv(MemoryContract):
    factory = TYPES["kv"]


class TestKvOverNats(MemoryContract):
    factory = TYPES["kv"]

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[object]:
        pairs = {name: keys.generate() for name in ("p1", "p2", "COMMONS")}
        accounts = tuple(server.Account(name, (server.User(pair.public),)) for name, pair in pairs.items())
        settings = server.ServerSettings(store_dir=self.folder / "store", accounts=accounts, sync_always=True)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(child.guard())
            running = await stack.enter_async_context(server.run_server(settings))
            connections = {}
            for name, pair in pairs.items():
                endpoint = Endpoint((running.url,), seed=pair.seed, inbox_prefix="_NODE")
                connections[name if name != "COMMONS" else ""] = await stack.enter_async_context(
                    open_connection(endpoint)
                )
            buckets = MemoryBuckets(connections.__getitem__, await stack.enter_async_context(background()))
            yield await stack.enter_async_context(host(self.factory, buckets=buckets))


class TestSqlite(MemoryContract):
    factory = TYPES["sqlite"]
    config: ClassVar = {"look_every_s": 0.02}
    bad_configs: ClassVar = [{"look_every_s": 0}, {"path": 1}]


async def test_sqlite_keeps_over_restarts_and_tells_other_processes(tmp_path: Path):
    config = {"path": str(tmp_path / "shared.db"), "look_every_s": 0.02}
    where = Place("p", "private", "ann", "m1")
    async with host(TYPES["sqlite"], config, clock=SystemClock()) as one:
        await one.store(where, b'{"content":"1"}')
    told = {}
    current = asyncio.Event()
    async with (
        host(TYPES["sqlite"], config, clock=SystemClock()) as one,
        host(TYPES["sqlite"], config, clock=SystemClock()) as other,
        asyncio.TaskGroup() as group,
    ):
        assert (await one.get(where)).value == b'{"content":"1"}'
        watching = group.create_task(
            one.watch("p", lambda change: told.update({change.place.id: change.value}), current.set)
        )
        await current.wait()
        first = (await other.get(where)).revision
        await other.store(where, b'{"content":"2"}', revision=first)
        with pytest.raises(Conflict):
            await one.store(where, b"late", revision=first)
        async with asyncio.timeout(30):
            while told.get("m1") != b'{"content":"2"}':
                await asyncio.sleep(0.01)
        watching.cancel()
    assert (tmp_path / "shared.db").stat().st_mode & 0o077 == 0


async def test_sqlite_says_why_it_cannot_be_opened(tmp_path: Path):
    (tmp_path / "no.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(Unavailable) as refused:
        async with host(TYPES["sqlite"], {"path": str(tmp_path / "no.db")}):
            pass
    assert refused.value.code == "memory.store_failed"


async def test_kv_passes_on_that_the_bus_is_away():
    buckets = DictBuckets()
    async with host(TYPES["kv"], buckets=buckets) as store:
        buckets("p1").away = True
        with pytest.raises(Unavailable):
            await store.get(Place("p1", "team", "p1", "m1"))


# ---- vectors


class Service(BaseHTTPRequestHandler):
    """Embeds a text as how often it has each of a few letters; says what it was asked, and answers badly when told."""

    asked: ClassVar[list[dict]] = []
    keys: ClassVar[list[str]] = []
    says: ClassVar[dict] = {}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        self.keys.append(self.headers.get("authorization", ""))
        vectors = [[float(text.count(letter)) for letter in "abcdefgh"] for text in body["input"]]
        rows = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        told = self.says.get("body", json.dumps({"data": list(reversed(rows))}).encode())
        self.send_response(self.says.get("status", 200))
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    Service.asked.clear()
    Service.keys.clear()
    Service.says.clear()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()
    running.server_close()
    thread.join(30)


class TestOpenAiEmbeddings(EmbedderContract):
    factory = TYPES["openai-embeddings"]
    bad_configs: ClassVar = [{"url": "ftp://x"}, {"batch": 0}, {"model": ""}]

    @pytest.fixture(autouse=True)
    def _table(self, service: str) -> None:
        self.config = {"url": service, "model": "letters", "batch": 2}


async def test_embeddings_are_asked_for_in_batches_with_the_key(service: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMBED_KEY", "k-1")
    table = {"url": service, "model": "letters", "batch": 2, "dimensions": 8, "api_key": {"env": "EMBED_KEY"}}
    async with host(TYPES["openai-embeddings"], table) as plugin:
        assert [one[0] for one in await plugin.embed(["a", "aa", "aaa"])] == [1.0, 2.0, 3.0]
        assert plugin.model == "letters/8"
    assert [len(body["input"]) for body in Service.asked] == [2, 1]
    assert Service.asked[0]["dimensions"] == 8
    assert set(Service.keys) == {"Bearer k-1"}


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ({"status": 503}, Unavailable),
        ({"status": 429}, Unavailable),
        ({"status": 401}, PluginFailed),
        ({"body": b"no json"}, Unavailable),
        ({"body": b"[]"}, PluginFailed),
        ({"body": b'{"data":[{"embedding":[1,"x"]}]}'}, PluginFailed),
        ({"body": b'{"data":[{"embedding":[1e999]}]}'}, PluginFailed),
        ({"body": b'{"data":[]}'}, PluginFailed),
    ],
)
async def test_bad_answers_of_the_service_are_told(service: str, says: dict, kind: type):
    Service.says.update(says)
    async with host(TYPES["openai-embeddings"], {"url": service}) as plugin:
        with pytest.raises(kind) as refused:
            await plugin.embed(["a"])
    assert refused.value.code == "memory.embed"


async def test_a_service_that_is_away_is_told():
    async with host(TYPES["openai-embeddings"], {"url": "http://127.0.0.1:9"}) as plugin:
        with pytest.raises(Unavailable):
            await plugin.embed(["a"])


# ---- a model on this machine: real when the library is there, which is not part of Knotwork

MODEL_WORDS = ["[UNK]", "cat", "kitten", "car", "truck"]


def model_folder(folder: Path) -> Path:
    """Make a model of four words."""
    model2vec = pytest.importorskip("model2vec", reason="pip install model2vec")
    numpy, tokenizers = pytest.importorskip("numpy"), pytest.importorskip("tokenizers")
    known = {word: number for number, word in enumerate(MODEL_WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    vectors = numpy.array([[0, 0, 0], [1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.1]], dtype=numpy.float32)
    model2vec.StaticModel(vectors, tokenizer, normalize=True).save_pretrained(folder / "words")
    return folder / "words"


class TestModel2Vec(EmbedderContract):
    factory = TYPES["model2vec"]
    bad_configs: ClassVar = [{"folder": ""}, {"folder": 1}]

    @pytest.fixture(autouse=True)
    def _model(self, tmp_path: Path) -> None:
        self.config = {"folder": str(model_folder(tmp_path))}


async def test_a_model_on_this_machine_knows_what_is_near(tmp_path: Path):
    async with host(TYPES["model2vec"], {"folder": str(model_folder(tmp_path))}) as plugin:
        cat, kitten, car = await plugin.embed(["a cat", "kitten", "car"])
    assert plugin.model == "words"
    near, far = (sum(a * b for a, b in zip(cat, other, strict=True)) for other in (kitten, car))
    assert near > 0.9
    assert far < 0.1


async def test_without_a_model_or_its_library_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "model2vec", None)  # as if it were not installed, whether it is or not
    with pytest.raises(Unavailable, match="pip install model2vec"):
        async with host(TYPES["model2vec"], {"folder": str(tmp_path)}):
            pass
    monkeypatch.setitem(sys.modules, "model2vec", ModuleType("model2vec"))
    with pytest.raises(PluginFailed, match="no Model2Vec model"):
        async with host(TYPES["model2vec"], {"folder": str(tmp_path)}):
            pass

"""Large values in BLOBS: read back whole, by any client, or refused."""

from __future__ import annotations

import hashlib

import nats
import pytest

from knotwork.bus import blobs, publisher, reading, streams, subjects
from knotwork.sdk.errors import Conflict, Internal, Invalid, KnotworkError, NotFound, TooLarge, Unavailable


def named(data: bytes) -> str:
    return f"sha256-{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def connection(connect, server):
    return await connect(server.url)


@pytest.fixture
async def store(connection):
    made = blobs.Blobs(connection)
    await made.open()
    return made


@pytest.mark.parametrize("size", [0, 1, blobs.CHUNK_BYTES, blobs.CHUNK_BYTES + 1, 5_000_000])
async def test_what_is_put_is_what_is_read(store, size):
    data = bytes(number % 251 for number in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    name = await store.put(data)
    assert name == named(data)
    assert await store.get(name) == data
    assert (await store.info(name)).size == size


async def test_the_same_value_is_kept_once(store, connection):
    data = b"y" * 1_000_000
    assert await store.put(data) == await store.put(data)
    chunks = await reading.count_from(connection, "OBJ_BLOBS", "$O.BLOBS.C.>", 1)
    assert chunks == 4


async def test_sixty_four_megabytes_are_kept_and_a_byte_more_is_refused(store):
    data = b"z" * blobs.SIZE_MAX_BYTES
    assert await store.get(await store.put(data)) == data
    with pytest.raises(TooLarge) as caught:
        await store.put(data + b"z")
    assert caught.value.code == "blob.too_large"


async def test_any_client_reads_it_as_an_object_and_we_read_theirs(store, server):
    data = b"from here " * 100_000
    name = await store.put(data)
    client = await nats.connect(server.url)
    try:
        theirs = await client.jetstream().object_store(subjects.BLOBS)
        read = await theirs.get(name)
        assert read.data == data
        assert read.info.size == len(data)
        other = b"from there " * 50_000
        await theirs.put(named(other), other)
    finally:
        await client.close()
    assert await store.get(named(other)) == other


async def test_an_upload_in_pieces_becomes_a_blob_only_when_it_is_what_it_says(store, connection):
    pieces = [b"a" * 700_000, b"b" * 700_000, b""]
    upload = store.begin()
    for piece in pieces:
        await store.piece(upload, piece)
    name = named(b"".join(pieces))
    assert await store.finish(upload, name) == 1_400_000
    assert await store.get(name) == b"".join(pieces)

    wrong = store.begin()
    await store.piece(wrong, b"c" * 300_000)
    with pytest.raises(Conflict) as caught:
        await store.finish(wrong, named(b"something else"))
    assert caught.value.code == "blob.other_content"
    assert await reading.count_from(connection, "OBJ_BLOBS", f"$O.BLOBS.C.{wrong}", 1) == 0


async def test_what_is_not_there_not_ours_or_damaged_is_told_apart(store, connection):
    with pytest.raises(NotFound):
        await store.get(named(b"never put"))
    for bad in ("", "sha256-zz", "../x", "sha256-" + "0" * 65):
        with pytest.raises(Invalid):
            await store.get(bad)
    with pytest.raises(Invalid):
        await store.piece("a.b", b"x")
    name = await store.put(b"d" * 600_000)
    info = await store.info(name)
    await publisher.publish(connection, f"$O.BLOBS.C.{info.nuid}", b"more")
    with pytest.raises(Internal) as caught:
        await store.get(name)
    assert caught.value.code == "blob.damaged"


async def test_a_full_store_refuses_and_keeps_nothing_half(store, connection):
    small = streams.StreamSpec(blobs.SPEC.name, blobs.SPEC.subjects, {**blobs.SPEC.settings, "max_bytes": 2_000_000})
    await streams.ensure(connection, small)
    kept = await store.put(b"e" * 1_000_000)
    with pytest.raises(Unavailable) as caught:
        await store.put(b"f" * 1_500_000)
    assert caught.value.retry_after_s
    assert await store.get(kept) == b"e" * 1_000_000
    assert await reading.count_from(connection, "OBJ_BLOBS", "$O.BLOBS.C.>", 1) == 4  # what did not fit is gone again


async def test_counting_reads_one_message(store, connection):
    await store.put(b"g" * 3 * blobs.CHUNK_BYTES)
    assert await reading.count_from(connection, "OBJ_BLOBS", "$O.BLOBS.C.>", 1) == 3
    assert await reading.count_from(connection, "OBJ_BLOBS", "$O.BLOBS.C.>", 3) == 1
    assert await reading.count_from(connection, "OBJ_BLOBS", "$O.BLOBS.C.>", 99) == 0
    with pytest.raises(KnotworkError):
        await reading.count_from(connection, "NOSUCH", ">", 1)

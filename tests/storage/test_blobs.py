"""The blob store itself, on a real directory and a real S3 protocol."""

import asyncio
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from app.storage.contents.blobs import BlobStoreUnavailable, open_blob_store
from app.storage.contents.objects import disk
from app.storage.upkeep.installation import Ownership, SharedBlobStore
from tests.storage.outside import digest, key
from tests.storage.parts import Parts
from tests.support.backends import SQLITE_DISK, Backend

pytestmark = pytest.mark.anyio

STORE = "memstore_a"


def blob(text: str, store_id: str = STORE) -> tuple[str, bytes, bytes]:
    return store_id, bytes.fromhex(digest(text)), text.encode()


def reference(text: str, store_id: str = STORE) -> tuple[str, bytes]:
    return store_id, bytes.fromhex(digest(text))


async def test_blobs_are_read_in_the_order_asked_and_a_missing_one_is_none(parts: Parts) -> None:
    texts = [f"text {number}" for number in range(100)]
    await parts.blobs.put_many([blob(text) for text in texts])
    wanted = [reference(text) for text in reversed(texts)]
    wanted.insert(50, reference("missing"))
    expected: list[bytes | None] = [text.encode() for text in reversed(texts)]
    expected.insert(50, None)
    assert await parts.blobs.get_many(wanted) == expected


async def test_nothing_asked_is_nothing_answered(parts: Parts) -> None:
    await parts.blobs.put_many([])
    await parts.blobs.remove([])
    assert await parts.blobs.get_many([]) == []


async def test_an_empty_content_is_a_blob_like_any_other(parts: Parts) -> None:
    await parts.blobs.put_many([blob("")])
    assert await parts.blobs.get_many([reference("")]) == [b""]
    assert parts.outside.blobs.all_keys() == {key(STORE, digest(""))}


async def test_a_put_may_be_repeated_and_a_removal_too(parts: Parts) -> None:
    for _ in range(2):
        await parts.blobs.put_many([blob("text")])
    assert await parts.blobs.get_many([reference("text")]) == [b"text"]
    for _ in range(2):
        await parts.blobs.remove([reference("text"), reference("never there")])
    assert parts.outside.blobs.all_keys() == set()


async def test_readers_of_a_blob_that_is_put_again_never_miss_it_or_see_half_of_it(parts: Parts) -> None:
    text = "x" * 100_000
    await parts.blobs.put_many([blob(text)])

    async def put_again() -> None:
        for _ in range(20):
            await parts.blobs.put_many([blob(text)])

    writing = asyncio.create_task(put_again())
    while not writing.done():
        assert await parts.blobs.get_many([reference(text)]) == [text.encode()]
    await writing


async def test_removing_one_store_leaves_the_one_whose_name_begins_the_same(parts: Parts) -> None:
    await parts.blobs.put_many([blob("text"), blob("text", STORE + "b")])
    await parts.blobs.remove_store(STORE)
    assert parts.outside.blobs.all_keys() == {key(STORE + "b", digest("text"))}
    await parts.blobs.remove_store("memstore_that_has_none")


async def test_a_listing_tells_store_digest_size_and_age(parts: Parts) -> None:
    await parts.blobs.put_many([blob("text"), blob("another"), blob("foreign", "memstore_b")])
    listed = {found.sha256: found for found in await parts.blobs.list_store(STORE)}
    assert set(listed) == {reference("text")[1], reference("another")[1]}
    found = listed[reference("another")[1]]
    assert (found.store_id, found.size) == (STORE, len("another"))
    assert found.modified is not None
    assert sorted(await parts.blobs.list_store_ids()) == [STORE, "memstore_b"]
    assert await parts.blobs.list_store("memstore_that_has_none") == []


async def test_more_blobs_than_a_page_of_s3_are_listed_and_removed(parts: Parts, backend: Backend) -> None:
    number = 1_050 if backend.name != SQLITE_DISK else 50
    for start in range(0, number, 350):
        texts = [str(count) for count in range(start, min(start + 350, number))]
        await parts.blobs.put_many([blob(text) for text in texts])
    assert len(await parts.blobs.list_store(STORE)) == number
    await parts.blobs.remove_store(STORE)
    assert parts.outside.blobs.all_keys() == set()


# The rest is about the local disk alone.


def disk_full_after(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk take so many bytes more, a few at a time, and then no more."""
    real_write = os.write

    def write_a_little(descriptor: int, content: memoryview) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(descriptor, content[: min(2, room)])
        room -= written
        return written

    monkeypatch.setattr(os, "write", write_a_little)


async def test_content_whose_blob_was_cut_short_by_a_full_disk_stays_whole(
    parts: Parts, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.name != SQLITE_DISK:
        pytest.skip("S3 takes an object whole or not at all")
    memory = await parts.create(await parts.store(), "some text")
    with monkeypatch.context() as full_disk:
        disk_full_after(5, full_disk)
        with pytest.raises(BlobStoreUnavailable):
            await parts.move_all()
    assert await parts.read(memory) == "some text"
    assert await parts.check() == []
    assert await parts.move_all() == 1
    assert await parts.read(memory) == "some text"
    assert await parts.check() == []


async def test_a_blob_is_reported_stored_only_after_it_was_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blob_store(f"file://{tmp_path}", None)
    seen_at_sync: list[bool] = []

    def look(*_: object) -> int:
        seen_at_sync.append((tmp_path / key(STORE, digest("text"))).exists())
        return 0

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(disk, "_syncfs", look)
    await blobs.put_many([blob("text")])
    assert seen_at_sync[-1], "the last thing is to make the blob at its key durable"
    await blobs.close()


async def test_a_disk_that_can_not_make_a_blob_durable_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blob_store(f"file://{tmp_path}", None)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def fail_like_c(*_: object) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(disk, "_syncfs", fail_like_c)
    with pytest.raises(BlobStoreUnavailable):
        await blobs.put_many([blob("text")])
    monkeypatch.undo()
    await blobs.close()


WRITER = """
import asyncio, sys
from app.storage.contents.blobs import open_blob_store

async def main():
    blobs = open_blob_store(sys.argv[1], None)
    for number in range(10_000):
        content = b"%d" % number * 20_000
        await blobs.put_many([("memstore_a", number.to_bytes(32), content)])
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_killed_writer_leaves_whole_what_it_said_was_stored_and_the_rest_is_completed_by_the_next(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", WRITER, f"file://{tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        stored = -1
        while stored < 20:
            stored = int(writer.stdout.readline())
        writer.kill()
        rest = writer.stdout.read().splitlines()
        stored = int(rest[-1]) if rest else stored

    async def read_and_complete() -> list[bytes | None]:
        blobs = open_blob_store(f"file://{tmp_path}", None)
        cut_short = stored + 1
        await blobs.put_many([(STORE, cut_short.to_bytes(32), whole(cut_short))])
        return await blobs.get_many([(STORE, number.to_bytes(32)) for number in range(cut_short + 1)])

    for number, content in enumerate(asyncio.run(read_and_complete())):
        assert content == whole(number)


def whole(number: int) -> bytes:
    """What WRITER writes."""
    return b"%d" % number * 20_000


async def test_two_processes_that_write_the_same_blob_at_once_leave_it_whole(tmp_path: Path) -> None:
    text = "x" * 100_000
    stores = [open_blob_store(f"file://{tmp_path}", None) for _ in range(4)]
    for _ in range(10):
        await asyncio.gather(*(blobs.put_many([blob(text)]) for blobs in stores))
        assert await stores[0].get_many([reference(text)]) == [text.encode()]
        await stores[0].remove([reference(text)])
    for blobs in stores:
        await blobs.close()


# The mark that says whose this place is.

OURS, THEIRS = "0" * 31 + "a", "0" * 31 + "b"


async def test_the_first_installation_that_asks_owns_the_place_and_an_empty_mark_is_none(parts: Parts) -> None:
    path = parts.blobs.mark
    for empty in (b"", b"\n", b"\0" * 32):
        await parts.blobs.objects.remove([path])
        await parts.blobs.objects.write([(path, empty)])
        assert await parts.blobs.marked_owner() is None
        assert await parts.blobs.owner(OURS) == OURS
        assert await parts.blobs.owner(THEIRS) == OURS
        await parts.blobs.objects.remove([path])
        assert await parts.blobs.owner(THEIRS) == THEIRS
    assert await parts.blobs.list_store_ids() == []


@pytest.mark.parametrize("written", [b"0" * 31, b"caf\xe9" * 8, b"0" * 100_000], ids=["short", "binary", "long"])
async def test_a_damaged_mark_is_told_and_left_to_a_person(written: bytes, parts: Parts) -> None:
    path = parts.blobs.mark
    await parts.blobs.objects.remove([path])
    await parts.blobs.objects.write([(path, written)])
    try:
        with pytest.raises(SharedBlobStore, match=rf"memstore-installation .*{len(written):,} other bytes.*remove it"):
            await Ownership(parts.storage.database, parts.blobs).check()
        assert await parts.blobs.objects.read([path]) == [written]
    finally:
        await parts.blobs.objects.remove([path])


def broken_in_the_middle(real: Callable[[str, bytes], None]) -> Callable[[str, bytes], None]:
    def pipe(path: str, content: bytes) -> None:
        real(path, content[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return pipe


@pytest.mark.parametrize("scheme", ["file", "memory"])
async def test_a_mark_is_written_whole_or_not_at_all(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blob_store(f"{scheme}://{tmp_path}/blobs", None)
    with monkeypatch.context() as full:
        if scheme == "file":
            full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        else:
            memory = fsspec.filesystem("memory")  # one for all
            full.setattr(memory, "pipe_file", broken_in_the_middle(memory.pipe_file))
        with pytest.raises(BlobStoreUnavailable):
            await blobs.owner(OURS)
    assert await blobs.objects.list_below([blobs.root]) == []
    assert await blobs.owner(OURS) == OURS
    await blobs.close()

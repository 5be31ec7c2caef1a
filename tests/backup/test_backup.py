"""A backup is the deployment of one moment, without what was erased since; it goes into either back end."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.audit import chain
from app.backup.restoring import Restore
from app.backup.rows import TABLES
from app.backup.writing import BackedUp, Backup
from app.contract.actors import USER, Actor
from app.contract.errors import InvalidRequest, Unavailable
from app.keys.service import Keys
from app.storage.rows import migrations
from app.storage.rows.migrations import head_revision
from app.storage.rows.statements import Statement
from app.storage.rows.tables import metadata
from app.storage.storage import Storage
from tests.storage.outside import outside
from tests.storage.parts import Parts, options
from tests.support.backends import BACKENDS, POSTGRES_S3, Backend, Services
from tests.transfer.archives import tar_of
from tests.transfer.test_round_trips import comparable, exported, files_of, lively_store

pytestmark = pytest.mark.anyio

OPERATOR = Actor(USER, "cli:test")


@asynccontextmanager
async def empty_deployment(
    name: str, services: Services, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Parts]:
    """A migrated deployment without a row, on a back end by its name."""
    environment = Backend(name, services).environment(directory)
    for key, value in environment.items():
        if key.startswith("AWS_"):
            monkeypatch.setenv(key, value)
    settings = options(environment)
    await asyncio.to_thread(migrations.upgrade, settings.database_url)
    storage = Storage(settings)
    await storage.open(in_background=False)
    try:
        with outside(environment) as view:
            yield Parts(storage, view, None)  # type: ignore[arg-type]
    finally:
        await storage.close()


async def backed_up(parts: Parts, target: Path, archive_format: Any = "tar") -> BackedUp:
    return await Backup(parts.storage).write(target, archive_format, OPERATOR)


async def all_rows(parts: Parts) -> Mapping[str, list[Any]]:
    found = {}
    for table in TABLES:
        if table.name in ("installation", "audit_entries", "audit_head"):
            continue
        rows = await parts.storage.database.fetch_all(Statement(f"SELECT * FROM {table.name}"), {})
        found[table.name] = sorted(str(sorted(dict(row).items())) for row in rows)
    return found


async def check_chain(parts: Parts) -> int:
    """The length of the audit log, whose every entry must follow from the one before."""
    last = chain.START
    read = parts.storage.database.fetch_all
    entries = await read(Statement("SELECT * FROM audit_entries ORDER BY seq"), {})
    for number, entry in enumerate(entries, 1):
        assert entry["seq"] == number
        last = chain.digest(last, entry)
        assert bytes(entry["sha256"]) == last
    (head,) = await read(Statement("SELECT seq, sha256 FROM audit_head"), {})
    assert (head["seq"], bytes(head["sha256"])) == (len(entries), last)
    return len(entries)


@pytest.mark.parametrize("target", BACKENDS)
async def test_a_deployment_moves_house(
    parts: Parts, target: str, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = await lively_store(parts)
    await parts.stores.delete(parts.caller, await parts.store())
    rows, content = await all_rows(parts), await exported(parts, store_id, history=True)
    result = await backed_up(parts, tmp_path / "b.tar.zst", "tar.zst")
    assert result.missing == []
    before = await check_chain(parts)
    async with empty_deployment(target, services, tmp_path, monkeypatch) as there:
        restored = await Restore(there.storage).read(tmp_path / "b.tar.zst", OPERATOR)
        assert (restored.rows, restored.contents) == (result.rows, result.contents)
        assert await all_rows(there) == rows
        assert await check_chain(there) == before  # without deployment.backed_up, with deployment.restored
        assert await there.check() == []
        moved = Parts(there.storage, there.outside, parts.caller)
        assert comparable(await exported(moved, store_id, history=True), times=True) == comparable(content, times=True)
        # And back again: what is backed up there is the same.
        again = await backed_up(moved, tmp_path / "again.tar")
        assert again.contents == result.contents


async def test_what_is_erased_meanwhile_is_not_in_the_backup(
    parts: Parts, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = await parts.create(await parts.store(), "secret one")
    await parts.update(past, "open")
    await parts.move_all()
    staged = await parts.create(past.store_id, "secret two", "/b.md")
    await parts.update(staged, "open, too")
    live = await parts.create(past.store_id, "secret three", "/c.md")
    doomed = await parts.create(await parts.store(), "secret four")

    async def erase() -> None:
        await parts.redact(past)
        await parts.redact(staged)
        await parts.update(live, "newer")
        await parts.redact(live)
        await parts.stores.delete(parts.caller, doomed.store_id)
        await parts.collector().collect()
        await parts.purger().purge()

    get_many = parts.blobs.get_many

    async def after_the_erasure(blobs: Any) -> Any:
        await erase()
        return await get_many(blobs)

    with monkeypatch.context() as patched:
        patched.setattr(parts.blobs, "get_many", after_the_erasure)
        result = await backed_up(parts, tmp_path / "b.tar")
    assert result.missing == []
    assert b"secret " not in (tmp_path / "b.tar").read_bytes()
    async with empty_deployment(BACKENDS[0], services, tmp_path, monkeypatch) as there:
        await Restore(there.storage).read(tmp_path / "b.tar", OPERATOR)
        assert await there.check() == []
        assert there.outside.rows.count("memory_versions", "redacted_at IS NOT NULL") == 3
        assert there.outside.rows.count("memories", "1 = 1") == 2


async def test_writers_go_on_and_the_backup_is_of_one_moment(
    parts: Parts, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [await parts.store() for _ in range(3)]
    done = asyncio.Event()

    async def write(store_id: str) -> int:
        number = 0
        while not done.is_set():
            number += 1
            memory = await parts.create(store_id, f"text {number}", f"/{number}.md")
            await parts.update(memory, f"text {number}, changed")
            if number % 3 == 0:
                await parts.redact(memory)
            if number % 5 == 0:
                await parts.delete(memory)
            if number % 7 == 0:
                await parts.move_all()
        return number

    writers = [asyncio.create_task(write(store_id)) for store_id in stores]
    results = [await backed_up(parts, tmp_path / f"{number}.tar.gz", "tar.gz") for number in range(3)]
    done.set()
    assert min(await asyncio.gather(*writers)) > 0
    assert [result.missing for result in results] == [[], [], []]
    for number in range(3):
        async with empty_deployment(BACKENDS[0], services, tmp_path, monkeypatch) as there:
            await Restore(there.storage).read(tmp_path / f"{number}.tar.gz", OPERATOR)
            assert await there.check() == []
            await check_chain(there)


async def test_only_an_empty_deployment_is_restored_into(parts: Parts, tmp_path: Path) -> None:
    await backed_up(parts, tmp_path / "b.tar")
    with pytest.raises(InvalidRequest, match="not empty: there are rows in"):
        await Restore(parts.storage).read(tmp_path / "b.tar", OPERATOR)


@pytest.mark.any_backend
async def test_a_deployment_that_is_not_empty_gets_no_content_before_it_refuses(
    parts: Parts, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lively_store(parts)
    await backed_up(parts, tmp_path / "b.tar")
    async with empty_deployment(BACKENDS[0], services, tmp_path, monkeypatch) as there:
        await Keys(there.storage.database).create("somebody's")
        with pytest.raises(InvalidRequest, match="not empty: there are rows in"):
            await Restore(there.storage).read(tmp_path / "b.tar", OPERATOR)
        assert there.outside.blobs.all_keys() == set()


async def test_a_missing_content_is_told(parts: Parts, tmp_path: Path) -> None:
    memory = await parts.create(await parts.store(), "lost")
    await parts.move_all()
    parts.outside.blobs.remove(f"{memory.store_id}/{memory.sha256}")
    assert (await backed_up(parts, tmp_path / "b.tar")).missing == [memory.version_id]


async def test_a_damaged_backup_is_refused_and_leaves_no_row(
    parts: Parts, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lively_store(parts)
    await backed_up(parts, tmp_path / "b.tar")
    files = files_of((tmp_path / "b.tar").read_bytes())
    content = next(name for name in files if name.startswith("contents/"))
    header, lines = files["backup.json"], files["tables/memories.jsonl"]

    def forged(data: bytes) -> dict[str, bytes]:
        """The backup with other rows of memories, whose digest the manifest has."""
        manifest = orjson.loads(files["manifest.json"])
        manifest["tables"]["memories"]["sha256"] = hashlib.sha256(data).hexdigest()
        return files | {"tables/memories.jsonl": data, "manifest.json": orjson.dumps(manifest)}

    damages = {
        "cut off": {name: data for name, data in files.items() if name != "manifest.json"},
        "of that digest": files | {content: b"forged"},
        "manifest's digest": files | {"tables/memories.jsonl": b""},
        "holds . contents": {name: data for name, data in files.items() if name != content},
        "has the schema '0001'": files | {"backup.json": header.replace(head_revision().encode(), b"0001")},
        "is no backup": {"a.md": b"a"},
        "backup.json has more than 65,536 bytes": {"backup.json": header + b" " * 65_536},
        "is no backup of this program": {"backup.json": b"[" * 60_000},
        "manifest.json can't be read": files | {"manifest.json": b"{}"},
        "was cut off before its end": files | {"manifest.json": b"1" * 5_000},
        "'other' is no file of it": files | {"other": b""},
        "rows of memories can't be read: one has more than": forged(b"[" * (8 * 2**20 + 1)),
        "rows of memories can't be read: 'a row is no object": forged(b"[]\n"),
        "version_id can't be": forged(lines.replace(b'"version_id":"', b'"version_id":7,"x":"')),
        "content_size can't be": forged(lines.replace(b'"content_size":', b'"content_size":9' + b"0" * 30)),
    }
    async with empty_deployment(BACKENDS[0], services, tmp_path, monkeypatch) as there:
        for why, damaged in damages.items():
            (tmp_path / "bad.tar").write_bytes(tar_of(damaged))
            with pytest.raises(InvalidRequest, match=why):
                await Restore(there.storage).read(tmp_path / "bad.tar", OPERATOR)
            assert all(
                there.outside.rows.count(table.name, "1 = 1") == 0
                for table in metadata.sorted_tables
                if table.name not in ("installation", "audit_head")
            )
        # What was put before it was found is no harm: the whole one goes in afterwards.
        await Restore(there.storage).read(tmp_path / "b.tar", OPERATOR)
        assert await there.check() == []


async def test_a_backup_is_never_written_over_something(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("there")
    with pytest.raises(InvalidRequest, match="is there already"):
        await backed_up(parts, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "there"
    assert list(map(str, tmp_path.glob("*b.tar*"))) == [str(tmp_path / "b.tar")]  # noqa: ASYNC240 - a test


async def test_the_same_backup_again_is_told_to_be_restored_already(
    parts: Parts, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lively_store(parts)
    first = await backed_up(parts, tmp_path / "1.tar")
    await backed_up(parts, tmp_path / "2.tar")
    async with empty_deployment(BACKENDS[0], services, tmp_path, monkeypatch) as there:
        done = await asyncio.gather(*(Restore(there.storage).read(tmp_path / "1.tar", OPERATOR) for _ in range(2)))
        assert {each.rows for each in done} == {first.rows}
        again = await Restore(there.storage).read(tmp_path / "1.tar", OPERATOR)
        assert (again.was_there, again.rows, again.contents, again.bytes) == (
            True, first.rows, first.contents, first.bytes,
        )  # fmt: skip
        restored = "action = 'deployment.restored'"
        assert (
            there.outside.rows.count("audit_entries", restored)
            == parts.outside.rows.count("audit_entries", restored) + 1
        )
        with pytest.raises(InvalidRequest, match="not empty"):
            await Restore(there.storage).read(tmp_path / "2.tar", OPERATOR)
        await Keys(there.storage.database).create("another")  # from now on it is somebody's
        with pytest.raises(InvalidRequest, match="not empty"):
            await Restore(there.storage).read(tmp_path / "1.tar", OPERATOR)
        assert await there.check() == []


async def test_rows_that_came_meanwhile_are_not_mixed_with_a_backup(
    parts: Parts, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lively_store(parts)
    await backed_up(parts, tmp_path / "b.tar")
    async with empty_deployment(BACKENDS[0], services, tmp_path, monkeypatch) as there:
        put_many = there.blobs.put_many

        async def while_a_server_starts(blobs: Any) -> None:
            await put_many(blobs)
            await Keys(there.storage.database).create("another")

        monkeypatch.setattr(there.blobs, "put_many", while_a_server_starts)
        with pytest.raises(InvalidRequest, match="not empty"):
            await Restore(there.storage).read(tmp_path / "b.tar", OPERATOR)
        assert there.outside.rows.count("memories") == 0


async def test_a_restore_whose_commit_comes_later_is_waited_for(
    parts: Parts, backend: Backend, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.name != POSTGRES_S3:
        pytest.skip("SQLite has one writer, whose end is known")
    await lively_store(parts)
    await backed_up(parts, tmp_path / "b.tar")
    async with empty_deployment(backend.name, services, tmp_path, monkeypatch) as there:
        database = there.storage.database
        transact, written, may_commit = database.transact, asyncio.Event(), asyncio.Event()
        tasks: list[asyncio.Task[Any]] = []

        async def commit_later(work: Any) -> None:
            async def held(transaction: Any) -> Any:
                result = await work(transaction)
                written.set()
                await may_commit.wait()
                return result

            tasks.append(asyncio.create_task(transact(held)))
            await written.wait()
            monkeypatch.setattr(database, "transact", look)
            raise Unavailable("the connection was lost")

        async def look(work: Any) -> Any:
            looking = asyncio.create_task(transact(work))
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            while not looking.done() and not int(there.outside.rows.execute(waits)[0][0]):  # noqa: ASYNC110 - the database's
                await asyncio.sleep(0.01)
            may_commit.set()
            return await looking

        monkeypatch.setattr(database, "transact", commit_later)
        done = await Restore(there.storage).read(tmp_path / "b.tar", OPERATOR)
        monkeypatch.setattr(database, "transact", transact)
        assert done.rows == await tasks[0] > 0
        assert await there.check() == []


async def test_a_restore_that_can_not_ask_says_that_it_is_not_known(
    parts: Parts, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lively_store(parts)
    await backed_up(parts, tmp_path / "b.tar")
    async with empty_deployment(BACKENDS[0], services, tmp_path, monkeypatch) as there:
        transact = there.storage.database.transact

        async def commit_and_go_away(work: Any) -> None:
            await transact(work)
            raise Unavailable("the connection was lost")

        async def be_away(work: Any) -> None:
            raise Unavailable("there is no connection")

        calls = iter((commit_and_go_away, be_away))
        monkeypatch.setattr(there.storage.database, "transact", lambda work: next(calls)(work))
        with pytest.raises(Unavailable, match="is not known"):
            await Restore(there.storage).read(tmp_path / "b.tar", OPERATOR)
        assert (await Restore(there.storage).read(tmp_path / "b.tar", OPERATOR)).was_there

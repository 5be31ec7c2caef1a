"""Everything that commits, each with what it needs beforehand and what is answered when it is sent again."""

import contextlib
import io
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from app.agents import wire as agents_wire
from app.agents.service import Agents
from app.audit.refused_requests import Refusals
from app.backup.restoring import Restore
from app.backup.writing import BackedUp, Backup
from app.contract import ids
from app.contract.actors import USER, Actor
from app.contract.errors import Conflict, InvalidRequest, MemstoreError, NotFound, PathConflict, PermissionDenied
from app.environments.service import Environments
from app.erasure.plan import Planner
from app.erasure.selection import Selection
from app.erasure.service import Erasures
from app.erasure.signing import deployment
from app.erasure.watch import ErasureWatch
from app.feed.readers import FeedReaders
from app.history.points import Point
from app.history.restoring import Restoring
from app.history.rollback import Rollback
from app.jobs.kinds import Job, Kind
from app.jobs.service import Jobs
from app.jobs.worker import Worker
from app.keys.service import Keys
from app.memories.moves import Moves
from app.sessions.attachments import Attachment
from app.sessions.service import Changes, NewSession, Sessions
from app.sessions.tokens import SessionTokens
from app.storage.rows.database import Transaction
from app.storage.rows.leases import Lease
from app.storage.upkeep.fsck import Fsck
from app.stores.holds import Holds
from app.stores.quota import Limits
from app.transfer.answers import RemoteHead, RemoteStore, RemoteVersion
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import archive_entries
from app.transfer.archives.spool import Spool
from app.transfer.exporting import Exports
from app.transfer.importing import Imports
from app.transfer.pulling import Pull, Source, finish
from app.transfer.sources import plan_of
from tests.storage.outside import digest
from tests.storage.parts import Parts
from tests.transfer.archives import tar_of
from tests.transfer.test_round_trips import files_of

OPERATOR = Actor(USER, "cli:test")
LIMITS = Limits(10_000, 100_000_000)

Prepare = Callable[[Parts, Path], Awaitable[Any]]
Act = Callable[[Parts, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Operation:
    """`act` takes what `prepare` made. `again`: the refusal when it is sent again after it was carried out."""

    prepare: Prepare
    act: Act
    again: type[MemstoreError] | None = None


async def _nothing(parts: Parts, directory: Path) -> None:
    pass


async def _store(parts: Parts, directory: Path) -> str:
    return await parts.store()


async def _memory(parts: Parts, directory: Path) -> Any:
    return await parts.create(await parts.store(), "first", "/notes/memory.md")


async def _deleted_memory(parts: Parts, directory: Path) -> Any:
    memory = await parts.create(await parts.store(), "deleted")
    await parts.delete(memory)
    return memory


async def _delete_again(parts: Parts, memory: Any) -> None:
    await parts.memories.delete(parts.caller, memory.store_id, memory.memory_id, expected_sha256=None, is_repeated=True)


async def _past(parts: Parts, directory: Path) -> Any:
    return await parts.create_past("past")


async def _moved_past(parts: Parts, directory: Path) -> Any:
    past = await parts.create_past("past")
    await parts.move_all()
    return past


# Memories and stores


async def _update(parts: Parts, memory: Any) -> None:
    await parts.update(memory, "second")


async def _rename(parts: Parts, memory: Any) -> None:
    await parts.rename(memory, "/elsewhere.md")


async def _move(parts: Parts, memory: Any) -> None:
    await Moves(parts.storage).move(parts.caller, memory.store_id, "/notes/", "/moved/")


async def _restore(parts: Parts, past: Any) -> None:
    restoring = Restoring(parts.storage, parts.memories, LIMITS)
    await restoring.restore(parts.caller, past.store_id, past.version_id)


async def _roll_back(parts: Parts, past: Any) -> None:
    await Rollback(parts.storage, LIMITS).roll_back(parts.caller, past.store_id, Point(seq=1))


async def _update_store(parts: Parts, store_id: str) -> None:
    await parts.stores.update(parts.caller, store_id, name="new", description=None, metadata={"a": "b"})


async def _hold(parts: Parts, store_id: str) -> None:
    await Holds(parts.storage).place(parts.caller, store_id, "because")


async def _held(parts: Parts, directory: Path) -> str:
    store_id = await parts.store()
    await _hold(parts, store_id)
    return store_id


async def _redact_and_clean(parts: Parts, past: Any) -> None:
    """What a server does after a redaction: the content is condemned, and collected."""
    await parts.redact(past)
    await parts.collector().collect()


# In and out


def _files() -> bytes:
    return tar_of({f"{number}.md": f"text {number}".encode() for number in range(5)})


def _imports(parts: Parts) -> Imports:
    return Imports(parts.storage, LIMITS, max_stores=0)


async def _import_of(parts: Parts, data: bytes, **options: Any) -> Any:
    with Spool() as spool:
        plan = plan_of(archive_entries(io.BytesIO(data), Bounds()), spool, default_name="archive")
        done = await _imports(parts).run(parts.caller, plan, spool, **options)
    assert done.refused == []
    return done


async def _import(parts: Parts, _: Any) -> None:
    done = await _import_of(parts, _files())
    assert done.created == 5


async def _beside(parts: Parts, directory: Path) -> str:
    """A store that has one of the contents already, in the stage."""
    memory = await parts.create(await parts.store(), "text 1", "/other.md")
    return memory.store_id


async def _import_into(parts: Parts, store_id: str) -> None:
    await _import_of(parts, _files(), into=store_id)
    assert set(await parts.list_contents(store_id)) == {f"text {number}" for number in range(5)}


async def _history(parts: Parts, directory: Path) -> bytes:
    past = await parts.create_past("past")
    exporter = await Exports(parts.storage).begin(parts.caller, past.store_id, history=True, form="tar")
    async with aclosing(exporter.pieces("tar")) as pieces:
        return b"".join([piece async for piece in pieces])


async def _import_history(parts: Parts, data: bytes) -> None:
    await _import_of(parts, data)


async def _export(parts: Parts, store_id: str) -> None:
    await Exports(parts.storage).begin(parts.caller, store_id, history=False, form="tar")


_AT = "2026-01-01T00:00:00Z"


class _Far:
    """A server with one store, in place of `app.transfer.remote.Remote`."""

    def store(self) -> RemoteStore:
        return RemoteStore(name="Far")

    def version_pages(self, page: str | None) -> Any:
        version = RemoteVersion(
            id="memver_far", memory_id="mem_far", operation="created", path="/far.md", content="far",
            content_sha256=digest("far"), created_at=_AT, created_by={"type": "api_actor", "api_key_id": "apikey_x"},
        )  # fmt: skip
        yield [version], None

    def memory_pages(self) -> Any:
        head = RemoteHead(
            id="mem_far", path="/far.md", memory_version_id="memver_far", content_sha256=digest("far"),
            created_at=_AT, updated_at=_AT,
        )  # fmt: skip
        yield [head]


async def _far_store(parts: Parts, directory: Path) -> Any:
    pull = Pull(_Far(), Source("http://far", "memstore_far"), directory / uuid4().hex)  # type: ignore[arg-type]
    with contextlib.closing(pull):
        pull.read(lambda number: None)
    return pull


async def _finish_pull(parts: Parts, pull: Pull) -> None:
    done = await finish(pull, parts.caller, _imports(parts), parts.storage.database, "")
    assert done.memory_store_id == pull.new_id
    assert done.created == 1
    assert await parts.list_contents(pull.new_id) == ["far"]


async def _written_pull(parts: Parts, directory: Path) -> Any:
    """A pull that wrote everything and was stopped before it could say so."""
    pull = await _far_store(parts, directory)
    await _finish_pull(parts, pull)
    return pull


async def _import_too_much(parts: Parts, _: Any) -> None:
    with Spool() as spool:
        plan = plan_of(archive_entries(io.BytesIO(_files()), Bounds()), spool, default_name="archive")
        with contextlib.suppress(InvalidRequest):
            await Imports(parts.storage, Limits(1, 1), max_stores=0).run(parts.caller, plan, spool)


async def _place_for_backup(parts: Parts, directory: Path) -> Path:
    await parts.create_past("past")
    return directory


async def _back_up(parts: Parts, directory: Path) -> None:
    await Backup(parts.storage).write(directory / f"{uuid4().hex}.tar", "tar", OPERATOR)


async def _backup_of_what_was(parts: Parts, directory: Path) -> tuple[Path, BackedUp]:
    """A backup of a deployment that is empty by now."""
    past = await parts.create_past("past")
    await parts.move_all()
    await parts.create(past.store_id, "staged", "/staged.md")
    file = directory / f"{uuid4().hex}.tar"
    backed_up = await Backup(parts.storage).write(file, "tar", OPERATOR)
    for key in parts.outside.blobs.all_keys():
        parts.outside.blobs.remove(key)
    parts.outside.rows.empty()
    return file, backed_up


async def _restore_backup(parts: Parts, backup: tuple[Path, BackedUp]) -> None:
    file, backed_up = backup
    restored = await Restore(parts.storage).read(file, OPERATOR)
    assert (restored.rows, restored.contents) == (backed_up.rows, backed_up.contents)


async def _damaged_backup(parts: Parts, directory: Path) -> tuple[Path, tuple[Path, BackedUp]]:
    """One whose fault shows when its rows are written, and what it was before."""
    file, backed_up = await _backup_of_what_was(parts, directory)
    files = files_of(file.read_bytes())
    files["tables/memories.jsonl"] = b"[]\n"
    manifest = orjson.loads(files["manifest.json"])
    manifest["tables"]["memories"]["sha256"] = digest("[]\n")
    damaged = directory / f"{uuid4().hex}.tar"
    damaged.write_bytes(tar_of(files | {"manifest.json": orjson.dumps(manifest)}))
    return damaged, (file, backed_up)


async def _restore_damaged_backup(parts: Parts, backups: tuple[Path, tuple[Path, BackedUp]]) -> None:
    damaged, whole = backups
    try:
        await Restore(parts.storage).read(damaged, OPERATOR)
    except InvalidRequest as error:
        if "rows of memories can't be read" not in error.message:
            raise
    await _restore_backup(parts, whole)


# Erasure


async def _erasable(parts: Parts, directory: Path) -> Any:
    parts.outside.rows.execute("UPDATE erasures SET finished_at = 1 WHERE finished_at IS NULL")
    past = await parts.create_past("past")
    await parts.create(past.store_id, "another", "/another.md")
    whole = await parts.create_past("past of a whole store")
    return past, whole


async def _planned(parts: Parts, **selected: Any) -> Any:
    return await Planner(parts.storage).plan(Selection(**selected).check())


async def _begin_erasure(parts: Parts, erasable: Any) -> None:
    past, _ = erasable
    plan = await _planned(parts, store_ids=[past.store_id], path_prefix="/memory.md")
    await Erasures(parts.storage, OPERATOR).begin(plan)


async def _begun(parts: Parts, directory: Path) -> str:
    past, _ = await _erasable(parts, directory)
    plan = await _planned(parts, store_ids=[past.store_id], path_prefix="/memory.md")
    return await Erasures(parts.storage, OPERATOR).begin(plan)


async def _whole_begun(parts: Parts, directory: Path) -> str:
    _, whole = await _erasable(parts, directory)
    await _session(parts, directory, whole.store_id)
    return await Erasures(parts.storage, OPERATOR).begin(await _planned(parts, store_ids=[whole.store_id]))


async def _run_erasure(parts: Parts, erasure_id: str) -> None:
    # What a run that ended with an error holds runs out: its lease, and its claim on contents.
    parts.outside.rows.execute("DELETE FROM leases")
    parts.end_claims()
    row = await Erasures(parts.storage, OPERATOR).run(erasure_id, lambda line: None)
    assert row["finished_at"] is not None


async def _refuse_erasure(parts: Parts, store_id: str) -> None:
    plan = await _planned(parts, store_ids=[store_id])
    try:
        await Erasures(parts.storage, OPERATOR).begin(plan)
    except MemstoreError as error:
        if "hold" not in error.message:
            raise


async def _held_meanwhile(parts: Parts, directory: Path) -> tuple[str, str]:
    past, _ = await _erasable(parts, directory)
    plan = await _planned(parts, store_ids=[past.store_id], path_prefix="/memory.md")
    erasure_id = await Erasures(parts.storage, OPERATOR).begin(plan)
    await _hold(parts, past.store_id)
    return past.store_id, erasure_id


async def _run_held_erasure(parts: Parts, held: tuple[str, str]) -> None:
    try:
        await _run_erasure(parts, held[1])
    except MemstoreError as error:
        if "hold" not in error.message:
            raise


async def _sign(parts: Parts, _: Any) -> None:
    await deployment(parts.storage.database)


async def _unsigned(parts: Parts, directory: Path) -> None:
    parts.outside.rows.execute("UPDATE installation SET signing_key = NULL")


async def _watch(parts: Parts, _: Any) -> None:
    watch = ErasureWatch(parts.storage.database, parts.storage.cache, parts.storage.mover)
    await watch.start()
    await watch.stop()


# Keys, agents, environments, sessions


async def _key(parts: Parts, directory: Path) -> str:
    return (await Keys(parts.storage.database).create("default")).id


async def _agent(parts: Parts, directory: Path) -> str:
    row = await Agents(parts.storage).create(parts.caller, {"name": "Agent", "model": "claude-opus-5-5"})
    agent_id: str = row["id"]
    return agent_id


async def _new_environment(parts: Parts, name: str) -> str:
    row = await Environments(parts.storage).create(parts.caller, {"name": name, "config": {"type": "cloud"}})
    environment_id: str = row["id"]
    return environment_id


async def _environment(parts: Parts, directory: Path) -> str:
    return await _new_environment(parts, uuid4().hex)


async def _free_name(parts: Parts, directory: Path) -> str:
    return uuid4().hex


def _sessions(parts: Parts) -> Sessions:
    return Sessions(parts.storage, Agents(parts.storage), Environments(parts.storage))


async def _new_session(parts: Parts, directory: Path, store_id: str | None = None) -> NewSession:
    agents = Agents(parts.storage)
    agent = await agents.retrieve(parts.caller, await _agent(parts, directory), None)
    attached = Attachment(store_id or await parts.store(), "read_write", None)
    return NewSession(agents_wire.snapshot(agent), await _environment(parts, directory), "title", {}, [attached])


async def _session(parts: Parts, directory: Path, store_id: str | None = None) -> str:
    found = await _sessions(parts).create(parts.caller, await _new_session(parts, directory, store_id))
    session_id: str = found.row["id"]
    return session_id


async def _token(parts: Parts, directory: Path) -> tuple[str, str]:
    session_id = await _session(parts, directory)
    made = await SessionTokens(parts.storage.database).create(OPERATOR, parts.caller.workspace_id, session_id)
    return session_id, made.row["id"]


# What every process does in the background


async def _staged(parts: Parts, directory: Path) -> None:
    await parts.create_past("past")


async def _move_left_behind(parts: Parts, _: Any) -> None:
    await parts.move_all()


async def _taken_back(parts: Parts, past: Any) -> None:
    """A mover that finds its stage row gone: the version was redacted while the blob was put."""
    await parts.redact(past)
    await parts.mover().move([past.staged])


async def _condemned(parts: Parts, directory: Path) -> None:
    past = await _moved_past(parts, directory)
    await parts.redact(past)


async def _collect(parts: Parts, _: Any) -> None:
    parts.end_claims()
    await parts.collector().collect()


async def _deleted_store(parts: Parts, directory: Path) -> None:
    memory = await parts.create(await parts.store(), "deleted")
    await parts.stores.delete(parts.caller, memory.store_id)


async def _purge(parts: Parts, _: Any) -> None:
    await parts.purger().purge()


async def _expired(parts: Parts, directory: Path) -> None:
    past = await parts.create_past("old")
    parts.outside.rows.execute(f"UPDATE memory_versions SET created_at = 1 WHERE store_id = '{past.store_id}'")


async def _expire(parts: Parts, _: Any) -> None:
    await parts.retention(keep=1).expire()


async def _orphan(parts: Parts, directory: Path) -> None:
    store_id = await parts.store()
    await parts.blobs.put_many([(store_id, bytes(range(32)), b"orphan")])


async def _condemn_orphans(parts: Parts, _: Any) -> None:
    await parts.orphans(0).condemn_all()


async def _wrong_counters(parts: Parts, directory: Path) -> None:
    await _memory(parts, directory)
    parts.outside.rows.execute("UPDATE memory_stores SET memory_count = 7, total_bytes = 7")
    parts.outside.rows.execute("UPDATE workspaces SET store_count = 77")


async def _repair(parts: Parts, _: Any) -> None:
    await Fsck(parts.storage.database, parts.blobs).run(repair=True)


async def _refusals(parts: Parts, directory: Path) -> Refusals:
    refusals = Refusals(parts.storage.database)
    refusals.note(PermissionDenied("refused"), "/v1/x", parts.caller, "req_1")
    return refusals


async def _write_refusals(parts: Parts, refusals: Refusals) -> None:
    refusals.start()
    await refusals.stop()


async def _job(parts: Parts, _: Path) -> str:
    async def work(transaction: Transaction) -> str:
        return await Jobs(parts.storage.database).enqueue(transaction, "note", {})

    return await parts.storage.database.transact(work)


async def _run_job(parts: Parts, job_id: str) -> None:
    async def run(job: Job) -> None:
        await worker._extend([job.id])  # as the loop that keeps leases does, which would end with its transaction

    worker = Worker(parts.storage.database, [Kind("note", run)])
    await worker.run_due()
    await worker.stop()


async def _note_a_reader(parts: Parts, store_id: str) -> None:
    readers = FeedReaders(parts.storage.database)
    readers.note(parts.caller, store_id, 1)
    await readers.close()


async def _lease(parts: Parts, _: Any) -> None:
    lease = Lease(parts.storage.database, ids.new("lease"), 1)
    assert await lease.take()
    await lease.release()


OPERATIONS = {
    "create a memory": Operation(_store, lambda parts, store_id: parts.create(store_id, "text"), PathConflict),
    "create a memory, repeated by an SDK": Operation(
        _store,
        lambda parts, store_id: parts.memories.create(parts.caller, store_id, "/a.md", "text", is_repeated=True),
    ),
    "change a memory's content": Operation(_memory, _update),
    "rename a memory": Operation(_memory, _rename),
    "delete a memory": Operation(_memory, lambda parts, memory: parts.delete(memory), NotFound),
    "delete a memory, repeated by an SDK": Operation(_memory, _delete_again),
    "delete a memory that is deleted, repeated by an SDK": Operation(_deleted_memory, _delete_again),
    "move a directory": Operation(_memory, _move, NotFound),
    "redact a version": Operation(_past, _redact_and_clean),
    "redact a version that was moved": Operation(_moved_past, _redact_and_clean),
    "restore a version": Operation(_past, _restore),
    "roll a store back": Operation(_past, _roll_back),
    "create a store": Operation(_nothing, lambda parts, _: parts.store()),
    "change a store": Operation(_store, _update_store),
    "archive a store": Operation(_store, lambda parts, store_id: parts.stores.archive(parts.caller, store_id)),
    "delete a store": Operation(_store, lambda parts, store_id: parts.stores.delete(parts.caller, store_id), NotFound),
    "place a hold": Operation(_store, _hold),
    "release a hold": Operation(
        _held, lambda parts, store_id: Holds(parts.storage).release(parts.caller, store_id), NotFound
    ),
    "import into a new store": Operation(_nothing, _import),
    "import into a store": Operation(_beside, _import_into),
    "import a history": Operation(_history, _import_history),
    "export": Operation(_store, _export),
    "finish a pull": Operation(_far_store, _finish_pull),
    "finish a pull that was written": Operation(_written_pull, _finish_pull),
    "import too much": Operation(_nothing, _import_too_much),
    "back up": Operation(_place_for_backup, _back_up),
    "restore a backup": Operation(_backup_of_what_was, _restore_backup),
    "restore a damaged backup": Operation(_damaged_backup, _restore_damaged_backup),
    "begin an erasure": Operation(_erasable, _begin_erasure, InvalidRequest),
    "erase a memory": Operation(_begun, _run_erasure),
    "erase a store": Operation(_whole_begun, _run_erasure),
    "refuse an erasure": Operation(_held, _refuse_erasure),
    "refuse an erasure under way": Operation(_held_meanwhile, _run_held_erasure),
    "make the signing key": Operation(_unsigned, _sign),
    "watch for erasures": Operation(_nothing, _watch),
    "create a key": Operation(_nothing, lambda parts, _: Keys(parts.storage.database).create(uuid4().hex)),
    "make the first key's row": Operation(_nothing, lambda parts, _: Keys(parts.storage.database).ensure_bootstrap()),
    "revoke a key": Operation(_key, lambda parts, key_id: Keys(parts.storage.database).revoke(key_id)),
    "create an agent": Operation(_nothing, lambda parts, _: _agent(parts, Path())),
    "change an agent": Operation(
        _agent,
        lambda parts, agent_id: Agents(parts.storage).update(
            parts.caller, agent_id, {"name": "new"}, expected_version=1
        ),
        Conflict,
    ),
    "archive an agent": Operation(
        _agent, lambda parts, agent_id: Agents(parts.storage).archive(parts.caller, agent_id)
    ),
    "create an environment": Operation(_free_name, _new_environment, Conflict),
    "change an environment": Operation(
        _environment,
        lambda parts, environment_id: Environments(parts.storage).update(
            parts.caller, environment_id, {"description": "new"}
        ),
    ),
    "archive an environment": Operation(
        _environment,
        lambda parts, environment_id: Environments(parts.storage).archive(parts.caller, environment_id),
    ),
    "delete an environment": Operation(
        _environment,
        lambda parts, environment_id: Environments(parts.storage).delete(parts.caller, environment_id),
        NotFound,
    ),
    "create a session": Operation(_new_session, lambda parts, new: _sessions(parts).create(parts.caller, new)),
    "change a session": Operation(
        _session,
        lambda parts, session_id: _sessions(parts).update(
            parts.caller, session_id, Changes("new", True, {"a": "b"}, {})
        ),
    ),
    "archive a session": Operation(
        _session, lambda parts, session_id: _sessions(parts).archive(parts.caller, session_id)
    ),
    "delete a session": Operation(
        _session, lambda parts, session_id: _sessions(parts).delete(parts.caller, session_id), NotFound
    ),
    "create a session token": Operation(
        _session,
        lambda parts, session_id: SessionTokens(parts.storage.database).create(
            OPERATOR, parts.caller.workspace_id, session_id
        ),
    ),
    "revoke a session token": Operation(
        _token,
        lambda parts, token: SessionTokens(parts.storage.database).revoke(OPERATOR, parts.caller.workspace_id, *token),
    ),
    "move what is left behind": Operation(_staged, _move_left_behind),
    "take a blob back": Operation(_past, _taken_back),
    "collect what is condemned": Operation(_condemned, _collect),
    "purge a deleted store": Operation(_deleted_store, _purge),
    "expire versions": Operation(_expired, _expire),
    "condemn orphans": Operation(_orphan, _condemn_orphans),
    "repair counters": Operation(_wrong_counters, _repair),
    "note refused requests": Operation(_refusals, _write_refusals),
    "run a job": Operation(_job, _run_job),
    "retry a job": Operation(_job, lambda parts, job_id: Jobs(parts.storage.database).retry(job_id)),
    "discard a job": Operation(_job, lambda parts, job_id: Jobs(parts.storage.database).discard(job_id), NotFound),
    "note a reader of the feed": Operation(_store, _note_a_reader),
    "take and release a lease": Operation(_nothing, _lease),
}

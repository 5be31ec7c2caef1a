"""The audit log: append-only, one chain, part of the transaction it tells of; and refusals that can't flood it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.audit import chain
from app.audit import log as audit
from app.audit.refused_requests import Refusals
from app.audit.service import AuditFilters, AuditLog, Head
from app.contract.actors import API_KEY, Actor, Caller
from app.contract.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied, Unavailable
from app.storage.rows import migrations
from app.storage.rows.database import Database, Row, Transaction
from tests.storage.outside import Rows
from tests.storage.parts import Parts, opened, options
from tests.support.backends import SQLITE_DISK, Backend

pytestmark = pytest.mark.anyio

SOMEBODY = Caller("wrkspc_1", Actor(API_KEY, "apikey_1"))


@pytest.fixture
def own_environment(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A migrated database of the test's own."""
    environment = backend.environment(tmp_path)
    migrations.upgrade(options(environment).database_url)
    for name, value in environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
async def fresh(own_environment: dict[str, str]) -> AsyncIterator[Parts]:
    """A service with an audit log of its own, to be ruined."""
    async with opened(own_environment) as parts:
        yield parts


async def append(database: Database, *actions: str) -> None:
    async def work(transaction: Transaction) -> None:
        await audit.append(transaction, *(audit.entry(SOMEBODY, action, subject="thing_1") for action in actions))

    await database.transact(work)


async def entries(database: Database, after: int = 0) -> list[Row]:
    return [row async for row in await AuditLog(database).export(AuditFilters(), after=after)]


async def test_entries_are_numbered_and_each_digest_covers_the_one_before(fresh: Parts) -> None:
    database = fresh.storage.database
    await append(database, "one.done")
    await append(database, "two.done", "three.done")
    rows = await entries(database)
    assert [row["action"] for row in rows] == ["workspace.created", "key.created", "one.done", "two.done", "three.done"]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    previous = chain.START
    for row in rows:
        previous = chain.digest(previous, row)
        assert bytes(row["sha256"]) == previous
    assert await AuditLog(database).head() == Head(5, previous)


async def test_a_transaction_that_is_rolled_back_leaves_no_entry(parts: Parts) -> None:
    database = parts.storage.database
    head = await AuditLog(database).head()

    async def work(transaction: Transaction) -> None:
        await audit.append(transaction, audit.entry(SOMEBODY, "never.done"))
        raise InvalidRequest("refused")

    with pytest.raises(InvalidRequest):
        await database.transact(work)
    assert await AuditLog(database).head() == head
    assert await entries(database, head.seq) == []


async def test_an_act_that_is_refused_leaves_no_entry(parts: Parts) -> None:
    database = parts.storage.database
    head = await AuditLog(database).head()
    with pytest.raises(NotFound):
        await parts.stores.delete(parts.caller, "memstore_nowhere")
    full = type(parts.stores)(parts.storage, max_stores=1)
    await full.create(parts.caller, "first", "", {})
    with pytest.raises(InvalidRequest):
        await full.create(parts.caller, "one too many", "", {})
    assert [row["action"] for row in await entries(database, head.seq)] == ["store.created"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET detail = '{}' WHERE seq = 1",
        "DELETE FROM audit_entries WHERE seq = 1",
        "TRUNCATE audit_entries",
        "INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries WHERE seq = 1",
    ],
    ids=["update", "delete", "truncate", "replace"],
)
async def test_the_database_refuses_to_change_the_log(parts: Parts, backend: Backend, statement: str) -> None:
    if statement.startswith("TRUNCATE") and backend.name == SQLITE_DISK:
        pytest.skip("SQLite has no TRUNCATE")
    if statement.startswith("INSERT OR") and backend.name != SQLITE_DISK:
        pytest.skip("PostgreSQL has no INSERT OR REPLACE")
    before = await entries(parts.storage.database)
    with pytest.raises(Exception, match="the audit log is append-only"):
        parts.outside.rows.execute(statement)
    assert list(map(dict, await entries(parts.storage.database))) == list(map(dict, before))


def unlock(rows: Rows) -> None:
    """Take the triggers away, as somebody with all rights could."""
    if rows.sqlite_file is None:
        rows.execute("ALTER TABLE audit_entries DISABLE TRIGGER USER")
        return
    for (name,) in rows.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'"):
        rows.execute(f"DROP TRIGGER {name}")


def swap(rows: Rows) -> None:
    for old, new in ((4, 1004), (5, 4), (1004, 5)):
        rows.execute(f"UPDATE audit_entries SET seq = {new} WHERE seq = {old}")


def run(*statements: str) -> Callable[[Rows], None]:
    def tamper(rows: Rows) -> None:
        for statement in statements:
            rows.execute(statement)

    return tamper


COPY = (
    "INSERT INTO audit_entries SELECT 9, at, workspace_id, actor_type, actor_id, action, subject, detail, "
    "request_id, sha256 FROM audit_entries WHERE seq = 8"
)


@pytest.mark.parametrize(
    ("tamper", "bad_seq", "fault"),
    [
        pytest.param(run("DELETE FROM audit_entries WHERE seq = 4"), 4, "missing", id="removed"),
        pytest.param(run("DELETE FROM audit_entries WHERE seq = 1"), 1, "missing", id="first-removed"),
        pytest.param(run("DELETE FROM audit_entries WHERE seq = 8"), 8, "missing", id="last-removed"),
        pytest.param(run("DELETE FROM audit_entries"), 1, "missing", id="emptied"),
        pytest.param(run("UPDATE audit_entries SET actor_id = 'x' WHERE seq = 5"), 5, "changed", id="other-actor"),
        pytest.param(run("UPDATE audit_entries SET at = at + 1 WHERE seq = 8"), 8, "changed", id="other-time"),
        pytest.param(run("UPDATE audit_entries SET detail = '{ }' WHERE seq = 3"), 3, "changed", id="other-detail"),
        pytest.param(run("UPDATE audit_entries SET workspace_id = NULL WHERE seq = 3"), 3, "changed", id="disowned"),
        pytest.param(swap, 4, "changed", id="reordered"),
        pytest.param(
            run("DELETE FROM audit_entries WHERE seq = 4", "UPDATE audit_entries SET seq = seq - 1 WHERE seq > 4"),
            4, "changed", id="removed-and-closed-up",
        ),
        pytest.param(run(COPY), 9, "unexpected", id="added"),
        pytest.param(run("UPDATE audit_head SET seq = 7"), 7, "changed", id="head-moved-back"),
    ],
)  # fmt: skip
async def test_tampering_shows(fresh: Parts, tamper: Callable[[Rows], None], bad_seq: int, fault: str) -> None:
    log = AuditLog(fresh.storage.database)
    await append(fresh.storage.database, *(f"act.number_{number}" for number in range(3, 9)))
    assert (await log.verify()).bad_seq is None
    unlock(fresh.outside.rows)
    tamper(fresh.outside.rows)
    verdict = await log.verify()
    assert (verdict.bad_seq, verdict.fault) == (bad_seq, fault)


async def test_a_log_that_was_cut_off_to_fit_shows_against_a_noted_end(fresh: Parts) -> None:
    log, rows = AuditLog(fresh.storage.database), fresh.outside.rows
    await append(fresh.storage.database, "one.done", "two.done", "three.done")
    noted = await log.head()
    unlock(rows)
    rows.execute("DELETE FROM audit_entries WHERE seq = 5")
    rows.execute("UPDATE audit_head SET seq = 4, sha256 = (SELECT sha256 FROM audit_entries WHERE seq = 4)")
    assert (await log.verify()).bad_seq is None
    verdict = await log.verify(noted)
    assert (verdict.bad_seq, verdict.fault) == (5, "missing")

    await append(fresh.storage.database, "another.done", "and.more")
    assert (await log.verify()).bad_seq is None
    verdict = await log.verify(noted)
    assert (verdict.bad_seq, verdict.fault) == (5, "changed")


async def test_a_noted_end_that_is_older_than_the_log_fits(fresh: Parts) -> None:
    log = AuditLog(fresh.storage.database)
    await append(fresh.storage.database, "one.done")
    noted = await log.head()
    await append(fresh.storage.database, "two.done")
    assert (await log.verify(noted)).bad_seq is None


# Refusals


async def refusals_of(parts: Parts, after: int) -> list[tuple[Row, dict[str, object]]]:
    return [(row, json.loads(row["detail"])) for row in await entries(parts.storage.database, after)]


async def test_equal_refusals_are_counted_and_written_at_the_end(parts: Parts) -> None:
    start = (await AuditLog(parts.storage.database).head()).seq
    refusals = Refusals(parts.storage.database)
    refusals.start()
    for number in range(1000):
        refusals.note(AuthenticationFailed("no"), "GET /v1/things", None, f"req_{number}")
    refusals.note(PermissionDenied("no"), "GET /v1/things", SOMEBODY, "req_x")
    await refusals.stop()
    (wrong, counted), (denied, told) = await refusals_of(parts, start)
    assert (wrong["action"], wrong["workspace_id"], wrong["actor_id"], wrong["request_id"]) == (
        "request.refused", None, None, "req_0",
    )  # fmt: skip
    assert (counted["route"], counted["status"], counted["error"], counted["count"]) == (
        "GET /v1/things", 401, "authentication_error", 1000,
    )  # fmt: skip
    assert (denied["workspace_id"], denied["actor_id"], told["count"]) == ("wrkspc_1", "apikey_1", 1)


async def test_however_many_kinds_of_refusals_come_few_entries_are_written(parts: Parts) -> None:
    start = (await AuditLog(parts.storage.database).head()).seq
    refusals = Refusals(parts.storage.database)
    refusals.start()
    for number in range(10_000):
        refusals.note(AuthenticationFailed("no"), f"GET /v1/{number}", None, "req_1")
    await refusals.stop()
    found = await refusals_of(parts, start)
    assert len(found) == 51
    row, rest = found[-1]
    assert row["action"] == "request.refused_more"
    assert rest["count"] == 10_000 - 50
    assert set(rest) == {"count", "first_at", "last_at"}


async def test_a_refusal_is_written_without_waiting_for_the_end(parts: Parts) -> None:
    start = (await AuditLog(parts.storage.database).head()).seq
    refusals = Refusals(parts.storage.database)
    refusals.start()
    refusals.note(AuthenticationFailed("no"), "GET /v1/things", None, "req_1")
    async with asyncio.timeout(60):
        while not await refusals_of(parts, start):  # noqa: ASYNC110 - what is watched is in the database
            await asyncio.sleep(0.02)
    await refusals.stop()
    assert len(await refusals_of(parts, start)) == 1


async def test_what_could_not_be_written_is_kept(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    database = parts.storage.database
    start = (await AuditLog(database).head()).seq
    refusals = Refusals(database)
    refusals.start()
    tried = asyncio.Event()

    async def away(*arguments: object, **options: object) -> None:
        tried.set()
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(database, "transact", away)
        refusals.note(AuthenticationFailed("no"), "GET /v1/things", None, "req_1")
        async with asyncio.timeout(60):
            await tried.wait()
    refusals.note(AuthenticationFailed("no"), "GET /v1/things", None, "req_2")
    await refusals.stop()
    ((_, told),) = await refusals_of(parts, start)
    assert told["count"] == 2

"""What was committed is never undone by the one that did not hear of it; and whoever asks again ends well."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.contract.actors import API_KEY, Actor, Caller
from app.contract.errors import Unavailable
from app.keys.service import DEFAULT_WORKSPACE, Keys
from app.storage.rows.statements import Statement
from app.storage.rows.tables import audit_head, condemned_contents, jobs, leases, metadata, staged_contents
from app.storage.storage import Storage
from app.storage.upkeep import fsck
from tests.outcomes.operations import OPERATIONS, Operation
from tests.storage.outside import outside
from tests.storage.parts import Parts, options
from tests.support.backends import SQLITE_DISK, Backend
from tests.support.lost_commits import LostCommits, sites

pytestmark = pytest.mark.anyio

ENDS = (
    (lambda: Unavailable("the connection was lost"), True),
    (lambda: Unavailable("the connection was lost"), False),
    (asyncio.CancelledError, True),
)
"""With what a transaction ends, and whether it is committed."""
AND_BY_A_PERSON = ((KeyboardInterrupt, True),)
BY_A_PERSON = ("import", "pull", "back up", "restore a backup")
UNDER_WAY = {staged_contents.name, condemned_contents.name, leases.name, audit_head.name, jobs.name}
"""What may change afterwards; the audit log's head with each new entry."""
LASTING = [table for table in metadata.sorted_tables if table.name not in UNDER_WAY]


@pytest.fixture
async def lost(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Parts, LostCommits]]:
    """The parts of a service, on a database whose commits get lost when it is told so."""
    monkeypatch.setattr(fsck, "_SECOND_LOOK_SECONDS", 0)  # nobody else is at work
    storage = Storage(options(environment))
    double = LostCommits(storage.database)
    storage.database = double
    await storage.open(in_background=False)
    try:
        key = await Keys(storage.database).create(DEFAULT_WORKSPACE)
        with outside(environment) as view:
            yield Parts(storage, view, Caller(key.workspace_id, Actor(API_KEY, key.id))), double
    finally:
        await storage.close()


async def lasting_rows(parts: Parts) -> set[str]:
    rows = set()
    for table in LASTING:
        for row in await parts.storage.database.fetch_all(Statement(f"SELECT * FROM {table.name}"), {}):
            rows.add(f"{table.name} {sorted(dict(row).items())}")
    return rows


async def assert_readable(parts: Parts) -> None:
    """Every content of every version is there."""
    assert [each for each in await parts.check() if each.kind not in ("orphaned_blob", "wrong_counter")] == []


async def assert_consistent(parts: Parts) -> None:
    """What a sweeper does leaves nothing to find."""
    parts.outside.rows.execute("UPDATE staged_contents SET staged_at = 0")
    parts.end_claims()
    await parts.move_all()
    await parts.collector().collect()
    await parts.orphans(0).condemn_all()
    await parts.collector().collect()
    await parts.purger().purge()
    assert await parts.check() == []


async def empty(parts: Parts) -> Parts:
    """The same service without what was in it: each look at everything would else take longer than the one before."""
    parts.outside.rows.empty()
    for key in parts.outside.blobs.all_keys():
        parts.outside.blobs.remove(key)
    made = await Keys(parts.storage.database).create(DEFAULT_WORKSPACE)
    return replace(parts, caller=Caller(made.workspace_id, Actor(API_KEY, made.id)))


async def number_of_transactions(parts: Parts, lost: LostCommits, operation: Operation, directory: Path) -> int:
    subject = await operation.prepare(parts, directory)
    lost.arm(10**9, Unavailable("never"), committed=True)
    await operation.act(parts, subject)
    number = lost.count
    lost.disarm()
    return number


async def lose_and_ask_again(
    parts: Parts,
    lost: LostCommits,
    operation: Operation,
    directory: Path,
    at: int,
    error: BaseException,
    *,
    committed: bool,
) -> None:
    subject = await operation.prepare(parts, directory)
    at_the_commit: set[str] = set()

    async def remember() -> None:
        at_the_commit.update(await lasting_rows(parts))

    lost.after_commit = remember
    lost.arm(at, error, committed=committed)
    try:
        await operation.act(parts, subject)
    except BaseException as raised:
        if raised is not error and not isinstance(raised, Unavailable):
            raise
    if not lost.disarm():
        return  # fewer transactions were needed this time
    assert at_the_commit <= await lasting_rows(parts), "something that was committed was undone"
    await assert_readable(parts)
    try:
        await operation.act(parts, subject)
    except Exception as raised:
        if not committed or operation.again is None or not isinstance(raised, operation.again):
            raise
    await assert_consistent(parts)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_what_was_committed_stays_though_nobody_heard_of_it(
    lost: tuple[Parts, LostCommits], name: str, tmp_path: Path
) -> None:
    parts, double = lost
    operation = OPERATIONS[name]
    number = await number_of_transactions(parts, double, operation, tmp_path)
    assert number > 0
    ends = [*ENDS, *(AND_BY_A_PERSON if any(word in name for word in BY_A_PERSON) else ())]
    for at in range(1, number + 1):
        for error, committed in ends:
            await lose_and_ask_again(await empty(parts), double, operation, tmp_path, at, error(), committed=committed)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["import into a new store", "import into a store", "import a history"])
async def test_an_import_that_did_not_hear_of_its_commit_fails_only_if_nothing_was_written(
    lost: tuple[Parts, LostCommits], name: str, tmp_path: Path
) -> None:
    parts, double = lost
    operation = OPERATIONS[name]

    async def versions() -> int:
        rows = await parts.storage.database.fetch_all(Statement("SELECT id FROM memory_versions"), {})
        return len(rows)

    for at in range(1, await number_of_transactions(parts, double, operation, tmp_path) + 1):
        for committed in (True, False):
            subject = await operation.prepare(parts, tmp_path)
            before = await versions()
            double.arm(at, Unavailable("the connection was lost"), committed=committed)
            try:
                await operation.act(parts, subject)
            except Unavailable:
                assert await versions() == before, "it failed, and its versions are there"
            else:
                assert await versions() > before
            double.disarm()


async def test_every_transaction_of_the_product_is_among_them(
    lost: tuple[Parts, LostCommits], backend: Backend, tmp_path: Path
) -> None:
    """A new one is added to the operations."""
    parts, double = lost
    for operation in OPERATIONS.values():
        await number_of_transactions(parts, double, operation, tmp_path)
    only_postgres = {site for site in sites() if backend.name == SQLITE_DISK and site.method == "mutate"}
    missing = sites() - double.used - only_postgres
    assert missing == set(), "\n".join(str(site) for site in sorted(missing))

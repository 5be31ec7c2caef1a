"""PostgreSQL behind a pooler: everything works as without one, and a small pool waits instead of failing."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from app.contract.errors import Overloaded, Unavailable
from app.storage.rows import migrations
from app.storage.rows.postgres import PostgresDatabase
from app.storage.rows.postgres_errors import DatabaseRefused
from app.storage.rows.postgres_url import parse
from tests.faults.load import STORES
from tests.faults.sdk_load import sdk_load
from tests.support.pgbouncer import missing, pgbouncer, tracks_statements
from tests.support.postgres import EmbeddedPostgres, execute
from tests.support.servers import serve
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PROGRAMS, FEW_PROGRAMS = 20, 8
TRACKS = pytest.mark.skipif(
    not tracks_statements(), reason="this pgbouncer does not track prepared statements (1.21 and newer do)"
)


def assert_feed_is_whole(http: httpx2.Client, store_id: str) -> None:
    """Every change is in the feed, once and in order."""
    numbers: list[int] = []
    while page := http.get(
        f"{STORES}/{store_id}/changes", params={"after": numbers[-1] if numbers else 0, "limit": 100}
    ).json()["data"]:
        numbers += [change["seq"] for change in page]
    assert numbers
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    ("mode", "size", "workers", "keys"),
    [
        pytest.param("session", 2, 2, "", id="session-pool-of-2"),
        pytest.param("session", 20, 1, "", id="session-pool-of-20"),
        pytest.param("transaction", 2, 1, "", id="transaction-pool-of-2"),
        pytest.param("transaction", 20, 1, "", id="transaction-pool-of-20"),
        pytest.param("transaction", 2, 1, "?prepared_statements=on", id="transaction-tracked", marks=TRACKS),
    ],
)
def test_behind_a_pooler_every_call_of_the_sdk_works_whatever_its_mode_and_its_size(
    mode: str, size: int, workers: int, keys: str, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    with pgbouncer(mortal_postgres.create_database(), mode=mode, size=size) as pooler:
        environment = {"MEMSTORE_DATA_DIR": str(tmp_path), "MEMSTORE_DATABASE_URL": pooler.url + keys}
        with (
            serve(environment, workers=workers) as server,
            server.client(max_retries=0) as client,
            server.http() as http,
        ):
            # Where two servers take turns at two connections, a turn may take three seconds.
            is_scarce = (mode, size) == ("session", 2)
            with sdk_load(client, programs=FEW_PROGRAMS if is_scarce else PROGRAMS) as load:
                load.wait_for_acknowledged(1 if is_scarce else 3)
            assert load.failures == []
            load.assert_nothing_is_lost(client)
            for store_id in load.store_ids:
                assert_feed_is_whole(http, store_id)
            client.beta.memory_stores.delete(load.store_ids[0])
            if is_scarce:
                # The servers have both, and a command that needs two would wait for one for as long as they are busy.
                pooler.daemon.kill()
                refused = http.get(STORES)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                pooler.daemon.start()
            else:
                server.cli("forget", "--contains", "program-3,", "--yes")
            until(lambda: http.get("/readyz").status_code == 200, "the service is ready")
            assert client.beta.memory_stores.memories.list(load.store_ids[1]).data


def refusal(url: str, *, meanwhile: str = "SELECT 1") -> str:
    """What a service is told that asks a database twice, with a statement of somebody else's in between."""

    async def use() -> None:
        database = PostgresDatabase(parse(url), pool_size=1)
        try:
            await database.require_writable()
            execute(url.partition("?")[0], meanwhile)
            await database.require_writable()
        finally:
            await database.close()

    with pytest.raises((Unavailable, Overloaded)) as refused:
        asyncio.run(use())
    return refused.value.message


def test_a_pooler_that_can_not_be_used_is_a_sentence_that_says_what_to_set(mortal_postgres: EmbeddedPostgres) -> None:
    database = mortal_postgres.create_database()
    with (
        pgbouncer(database, mode="statement", size=5) as pooler,
        pytest.raises(DatabaseRefused, match=r"set the pooler's pool_mode to transaction or session$"),
    ):
        migrations.upgrade(pooler.url)
    with pgbouncer(database, mode="transaction", size=1) as pooler:
        with pytest.raises(DatabaseRefused, match=r"startup parameter.*leave it out of MEMSTORE_DATABASE_URL$"):
            migrations.upgrade(f"{pooler.url}?options=-csearch_path%3Dpublic")
        if not tracks_statements():
            # As when the next transaction reaches another connection of the pooler.
            message = refusal(f"{pooler.url}?prepared_statements=on", meanwhile="DEALLOCATE ALL")
            assert message.endswith("set prepared_statements=off in MEMSTORE_DATABASE_URL")
    with pgbouncer(database, mode="session", size=5, settings={"max_client_conn": "0"}) as pooler:
        with pytest.raises(DatabaseRefused, match="no more connections allowed"):
            migrations.upgrade(pooler.url)
        assert "takes no further connections" in refusal(pooler.url)

"""The database fails over: refusals are clear, nothing acknowledged is lost, and no restart is needed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.load import Load, load
from tests.faults.test_database_outage import state
from tests.support.postgres import EmbeddedPostgres, execute
from tests.support.processes import short_directory
from tests.support.servers import Server, serve
from tests.support.waiting import until


def end_sessions(url: str) -> None:
    """Cut every connection to a database, as a failover does."""
    execute(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


def assert_is_survived(server: Server, writing: Load, break_it: Callable[[], None], repair: Callable[[], None]) -> None:
    break_it()
    writing.wait_for_trouble()
    until(lambda: state(server) == (200, 503), "the service says that it can't work")
    repair()
    writing.wait_for_acknowledged(5)
    until(lambda: state(server) == (200, 200), "the service is ready again")


def assert_end_is_well(server: Server, writing: Load) -> None:
    for writer in writing.writers:
        writer.stop()
    writing.assert_refusals_are_clear()
    writing.assert_nothing_is_lost(server)
    assert sum(writer.broken for writer in writing.writers) == 0, "the server itself was there all the time"


def test_a_database_that_takes_no_writes_for_a_while_or_ends_its_sessions_is_clear_refusals_and_nothing_lost(
    mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    url = mortal_postgres.create_database()
    name = url.partition("?")[0].rpartition("/")[2]
    environment = {"MEMSTORE_DATA_DIR": str(tmp_path), "MEMSTORE_DATABASE_URL": url}

    def read_only(what: str, value: str) -> None:
        mortal_postgres.execute(f"ALTER {what} SET default_transaction_read_only = {value}")
        mortal_postgres.execute("SELECT pg_reload_conf()")

    def refused_as_read_only() -> list[int]:
        return [sum("read-only" in refusal.message for refusal in writer.refusals) for writer in writing.writers]

    def become_a_standby() -> None:
        before = refused_as_read_only()
        read_only(f"DATABASE {name}", "on")
        end_sessions(url)
        until(
            lambda: all(now > then for now, then in zip(refused_as_read_only(), before, strict=True)),
            "every writer met a session that is read-only",
        )

    def no_session_stays_read_only() -> bool:
        before = len(writing.refusals)
        writing.wait_for_acknowledged(10)
        return len(writing.refusals) == before

    with serve(environment) as server:
        with load(server) as writing:
            writing.wait_for_acknowledged(5)
            for _ in range(5):
                end_sessions(url)
                writing.wait_for_acknowledged(2)
            # The same sessions take no writes, and then they do again.
            assert_is_survived(
                server, writing, lambda: read_only("SYSTEM", "on"), lambda: read_only("SYSTEM", "DEFAULT")
            )
            # What connects meanwhile is read-only to its end.
            assert_is_survived(server, writing, become_a_standby, lambda: read_only(f"DATABASE {name}", "DEFAULT"))
            until(no_session_stays_read_only, "nothing is refused that was repaired")
            assert_end_is_well(server, writing)
            assert {refusal.status for refusal in writing.refusals} == {503}
        server.stop()
        read_only(f"DATABASE {name}", "on")
        with ThreadPoolExecutor(1) as threads:
            start = threads.submit(server.start)
            server.log_with("read-only", "waiting for up to 60 s")
            read_only(f"DATABASE {name}", "DEFAULT")
            start.result()


def test_a_replica_that_takes_over_has_every_acknowledged_write_and_is_found_by_itself(tmp_path: Path) -> None:
    with (
        short_directory() as one,
        short_directory() as other,
        EmbeddedPostgres(one) as primary,
        EmbeddedPostgres(other, standby_of=primary) as standby,
    ):
        for setting in ("synchronous_standby_names = '*'", "synchronous_commit = on"):
            primary.execute(f"ALTER SYSTEM SET {setting}")
        primary.execute("SELECT pg_reload_conf()")
        until(
            lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == "sync", "the replica is asked, too"
        )
        # The standby stands first: it must be passed over as long as it is one.
        url = primary.create_database().replace(str(one), f"{other},{one}")
        environment = {"MEMSTORE_DATA_DIR": str(tmp_path), "MEMSTORE_DATABASE_URL": url}

        def promote() -> None:
            standby.execute("SELECT pg_promote()")

        with serve(environment) as server, load(server) as writing:
            writing.wait_for_acknowledged(5)
            assert_is_survived(server, writing, primary.kill, promote)
            assert_end_is_well(server, writing)

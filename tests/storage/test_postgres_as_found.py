"""PostgreSQL as an administrator may have set it up: what can't work is one sentence, what can work works."""

import asyncio
import gc
import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.main import main
from app.storage.rows import migrations
from app.storage.rows.postgres_connect import Connector
from app.storage.rows.postgres_url import parse
from tests.docs.blocks import blocks
from tests.support.processes import free_port, short_directory
from tests.support.servers import serve
from tests.support.tls_cluster import TlsPostgres, missing

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    # The driver closes a TLS connection that was refused without waiting for its end, and then the event loop is gone.
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
    # Whichever of the connection's objects is collected first says it.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <(socket|ssl):pytest.PytestUnraisableExceptionWarning"),
]


class Told:
    """Runs a command in this process; called, it demands that this ends with one sentence and status 2."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, url: str, *command: str) -> tuple[int, str]:
        """Any command: its status, and what it printed, with what it said on standard error at the end."""
        self._monkeypatch.setenv("MEMSTORE_DATABASE_URL", url)
        self._monkeypatch.setattr(sys, "argv", ["memstore", *command])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def __call__(self, url: str, *command: str) -> str:
        """The sentence."""
        status, printed = self.run(url, *command)
        assert status == 2, printed
        assert "secret" not in printed
        *before, sentence = printed.splitlines()
        assert sentence.startswith("memstore: "), printed
        assert all("deployment" in line for line in before), "a command that changes something says first in which"
        return sentence


@pytest.fixture(scope="module")
def cluster() -> Iterator[TlsPostgres]:
    """One server for all, with databases and roles of each kind."""
    with short_directory() as directory, TlsPostgres(directory) as server:
        server.execute(
            "CREATE ROLE owner LOGIN PASSWORD 'secret'",
            "CREATE ROLE reader LOGIN PASSWORD 'secret'",
            "CREATE ROLE full_up LOGIN PASSWORD 'secret' CONNECTION LIMIT 0",
            "CREATE ROLE lost LOGIN PASSWORD 'secret'",
            "ALTER ROLE lost SET search_path = nowhere",
            "CREATE DATABASE new OWNER owner",
            "CREATE DATABASE good OWNER owner",
            "CREATE DATABASE frozen OWNER owner",
            "CREATE DATABASE bytes OWNER owner TEMPLATE template0 ENCODING 'SQL_ASCII'",
            "CREATE DATABASE latin OWNER owner TEMPLATE template0 ENCODING 'LATIN1'",
            "CREATE DATABASE icu OWNER owner TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LOCALE 'C'",
        )
        for name in ("good", "frozen"):
            migrations.upgrade(server.url(user="owner", password="secret", database=name))
        server.execute("ALTER DATABASE frozen SET default_transaction_read_only = on")
        yield server
        gc.collect()  # Here, where its warnings are expected.


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Told]:
    """Runs commands with a data directory and a home of their own."""
    monkeypatch.setenv("MEMSTORE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o077)
    yield Told(monkeypatch, capsys)
    os.umask(mask)


@pytest.mark.parametrize("command", ["migrate", "keys list"])
@pytest.mark.parametrize(
    ("user", "password", "database", "keys", "said"),
    [
        ("owner", "wrong", "good", "", "correct the password in MEMSTORE_DATABASE_URL"),
        ("nobody_here", "secret", "good", "", 'password authentication failed for user "nobody_here"'),
        ("owner", "secret", "not_there", "", 'database "not_there" does not exist; make it: CREATE DATABASE'),
        ("owner", "secret", "good", "sslmode=disable", "no encryption; see"),
        ("owner", "secret", "good", "sslmode=verify-full&sslrootcert={other}", "its certificate is not trusted"),
        (
            "owner",
            "secret",
            "good",
            "sslmode=verify-full&sslrootcert=/not/there",
            "sslrootcert in MEMSTORE_DATABASE_URL",
        ),
        ("owner", "secret", "good", "sslmode=verify-full", "root.crt"),
        ("owner", "secret", "good", "sslmode=require&sslcert=/not/there", "'/not/there', which can't be read"),
        ("full_up", "secret", "good", "", 'too many connections for role "full_up"; raise its limit'),
        ("lost", "secret", "good", "", "search_path"),
        ("owner", "secret", "good", "options=-csearch_path%3Dnowhere", "search_path"),
        ("owner", "secret", "good", "options=-cno_such_setting%3D1", "no_such_setting"),
        ("owner", "secret", "frozen", "target_session_attrs=read-write", "see which of the hosts takes writes"),
        ("owner", "secret", "bytes", "", "its encoding is SQL_ASCII, and Memstore needs UTF8; make another one"),
        ("owner", "secret", "latin", "", "its encoding is LATIN1, and Memstore needs UTF8; make another one"),
    ],
)
def test_a_database_that_can_not_be_used_is_one_sentence_and_status_2(
    cluster: TlsPostgres, told: Told, command: str, user: str, password: str, database: str, keys: str, said: str
) -> None:
    keys = keys.format(other=cluster.other_certificate)
    url = cluster.url(user=user, password=password, database=database, keys=keys)
    expected = "run 'memstore migrate'" if said == "search_path" and command != "migrate" else said
    assert expected in told(url, *command.split())


def test_what_a_role_may_not_do_is_a_sentence_with_the_grant_that_allows_it(cluster: TlsPostgres, told: Told) -> None:
    def url(user: str, database: str) -> str:
        return cluster.url(user=user, password="secret", database=database)

    assert "the owner may GRANT USAGE ON SCHEMA public" in told(url("reader", "new"), "migrate")
    assert "run 'memstore migrate'" in told(url("reader", "new"), "keys", "list")
    for command in ("keys list", "fsck", "forget --contains x --yes", "audit list", "sweep"):
        assert "the owner may GRANT SELECT, INSERT, UPDATE, DELETE" in told(url("reader", "good"), *command.split())
    create = told(url("owner", "frozen"), "keys", "create", "--workspace", "default")
    assert "read-only" in create
    assert "name the primary, or all hosts with target_session_attrs=read-write" in create


@pytest.mark.parametrize(
    "command",
    [
        "fsck", "sweep", "backup --output new.tar", "audit list", "audit verify", "hold memstore_x --reason x",
        "forget --contains x --yes", "sessions list", "log memstore_x", "keys create --workspace default",
        "serve --port 0",
    ],
)  # fmt: skip
def test_every_command_says_what_is_wrong_with_the_database(cluster: TlsPostgres, told: Told, command: str) -> None:
    url = cluster.url(user="owner", password="wrong", database="good")
    if command == "fsck":
        nowhere = f"postgresql://owner@127.0.0.1:{free_port()}/good"
        assert "see that it runs, and what MEMSTORE_DATABASE_URL names" in told(nowhere, command)
        unknown = cluster.url(user="owner", password="secret", host="no-such-host.invalid")
        assert "its host's name can't be resolved" in told(unknown, command)
    assert "correct the password in MEMSTORE_DATABASE_URL" in told(url, *command.split())


@pytest.mark.parametrize(
    ("host", "keys", "outcome"),
    [
        ("127.0.0.1", "sslmode=disable", False),
        ("127.0.0.1", "", True),
        ("127.0.0.1", "sslmode=prefer", True),
        ("127.0.0.1", "sslmode=require", True),
        ("127.0.0.1", "sslmode=require&sslrootcert={other}", ssl.SSLError),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert={own}", True),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert={other}", ssl.SSLError),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={own}", True),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={other}", ssl.SSLError),
        ("localhost", "sslmode=verify-ca&sslrootcert={own}", True),
        ("localhost", "sslmode=verify-full&sslrootcert={own}", ssl.SSLError),
        ("127.0.0.1", "sslrootcert=system", ssl.SSLError),
    ],
)
def test_tls_is_used_and_checked_as_sslmode_asks(
    cluster: TlsPostgres, host: str, keys: str, outcome: bool | type[Exception]
) -> None:
    keys = keys.format(own=cluster.certificate, other=cluster.other_certificate)

    async def is_encrypted() -> bool:
        connection = await Connector(parse(cluster.url(host=host, keys=keys)))()
        try:
            found: bool = await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return found
        finally:
            await connection.close()

    if isinstance(outcome, bool):
        assert asyncio.run(is_encrypted()) is outcome
    else:
        with pytest.raises(outcome):
            asyncio.run(is_encrypted())


def test_a_role_that_may_only_read_and_write_rows_serves_a_schema_of_its_own_in_an_icu_database(
    cluster: TlsPostgres, tmp_path: Path, told: Told
) -> None:
    (documented,) = (block.text for block in blocks("docs/how-to/postgres-and-s3.md") if block.language == "sql")
    cluster.execute(
        "CREATE ROLE memstore_owner LOGIN PASSWORD 'secret'",
        "CREATE ROLE memstore_rows LOGIN PASSWORD 'secret'",
        *(statement for line in documented.split(";") if (statement := line.strip())),
        database="icu",
    )
    keys = f"sslmode=verify-full&sslrootcert={cluster.certificate}&options=-csearch_path%3Dmemstore"
    migrations.upgrade(cluster.url(user="memstore_owner", password="secret", database="icu", keys=keys))
    url = cluster.url(user="memstore_rows", password="secret", database="icu", keys=keys)
    place = {"MEMSTORE_DATA_DIR": str(tmp_path), "MEMSTORE_DATABASE_URL": url}
    with serve(place) as server, server.client(max_retries=0) as client:
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="by a role for rows")
        paths = ["/B.md", "/a.md", "/Ä.md", "/ä.md"]
        made = [memories.create(store.id, path=path, content=path) for path in reversed(paths)]
        assert [memory.path for memory in memories.list(store.id)] == paths, "in the order of bytes, not of a language"
        memories.update(made[0].id, memory_store_id=store.id, content="b")
        memories.delete(made[0].id, memory_store_id=store.id)
        assert [v.operation for v in client.beta.memory_stores.memory_versions.list(store.id)][:2] == [
            "deleted", "modified",
        ]  # fmt: skip
    status, printed = told.run(url, "forget", "--contains", "/a.md", "--yes")
    assert status == 0, printed
    assert "not permitted to this role" in printed, "old bytes of the table stay until its owner acts"
    assert told.run(url, "fsck")[0] == 0

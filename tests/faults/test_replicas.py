"""Two replicas behind nginx, on one PostgreSQL and one S3: what clients see when one dies, and of an upgrade."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx2
import pytest

import app
from app.storage.rows import migrations
from tests.faults.balancer import MISSING, PROGRAM, balancer
from tests.faults.sdk_load import sdk_load
from tests.storage.outside import outside
from tests.support.backends import Backend
from tests.support.forks import RUN_SECONDS
from tests.support.processes import Daemon, answers, free_port
from tests.support.servers import READY_PATH, STOPPED, Server, serve
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

_MIGRATION = '''
"""What a next version could bring: a column in each busy table, an index, a table."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    for table in ("memories", "memory_versions", "memory_stores", "staged_contents"):
        op.add_column(table, sa.Column("next", sa.Text))
    op.create_index("memories_next_idx", "memories", ["next"])
    op.create_table("next", sa.Column("id", sa.Text, primary_key=True))


def downgrade() -> None:
    raise NotImplementedError
'''


class NextVersion:
    """The next version, installed in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._command = [sys.executable, "-c", "from app.cli.main import main; main()"]

    def _environment(self, server: Server) -> dict[str, str]:
        return {**os.environ, **server.environment, "PYTHONPATH": str(self._directory), "PYTHONUNBUFFERED": "1"}

    def migrate(self, server: Server) -> str:
        """Migrate the database of a server; what the command prints."""
        done = subprocess.run(
            [*self._command, "migrate"],
            env=self._environment(server),
            cwd=server.environment["MEMSTORE_DATA_DIR"],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=True,
        )
        return done.stdout

    @contextlib.contextmanager
    def in_place_of(self, server: Server) -> Iterator[None]:
        """The next version on the port of a server that was stopped, with its settings."""
        port = server.base_url.rpartition(":")[2]
        daemon = Daemon(
            f"the next version on port {port}",
            [*self._command, "serve", "--port", port],
            log=server.log.with_suffix(".next.log"),
            ready=lambda: answers(int(port), READY_PATH),
            environment=self._environment(server),
            directory=Path(server.environment["MEMSTORE_DATA_DIR"]),
        )
        daemon.start()
        try:
            yield
        finally:
            daemon.stop()


@pytest.fixture(scope="module")
def next_version(tmp_path_factory: pytest.TempPathFactory) -> NextVersion:
    """This program as its next version could be: the same, on a schema with one migration more."""
    directory = tmp_path_factory.mktemp("next")
    package = Path(app.__file__).parent
    shutil.copytree(package, directory / "app")  # with its bytecode, which is as good for the copy
    shutil.copytree(package.parent / "alembic", directory / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    script = _MIGRATION.format(head=migrations.head_revision())
    (directory / "alembic" / "versions" / "9999_next.py").write_text(script)
    return NextVersion(directory)


@contextlib.contextmanager
def two_replicas(backend: Backend, directory: Path) -> Iterator[tuple[list[Server], anthropic.Anthropic]]:
    """Two servers, and the SDK as it comes, pointed at the nginx in front of them."""
    environment = backend.environment(directory) | {"MEMSTORE_BOOTSTRAP_API_KEY": "key-of-both-replicas"}
    ports = [free_port(), free_port()]
    with (
        serve(environment, port=ports[0]) as first,
        serve(environment, port=ports[1]) as second,
        balancer(ports, directory) as url,
        anthropic.Anthropic(api_key=first.api_key, base_url=url) as client,
    ):
        assert client.max_retries == 2, "the SDK's own default"
        yield [first, second], client


class Reader:
    """Follows a store's changes through the balancer, and goes on after the last number it has seen."""

    def __init__(self, client: anthropic.Anthropic, store_id: str) -> None:
        self.numbers: list[int] = []
        self.is_over = threading.Event()
        self._url = f"{str(client.base_url).rstrip('/')}/v1/memory_stores/{store_id}/changes"
        self._headers = {"x-api-key": client.api_key or "", "accept": "text/event-stream"}
        self.thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def _run(self) -> None:
        with httpx2.Client(timeout=15, trust_env=False) as http:
            while not self.is_over.is_set():
                with contextlib.suppress(httpx2.TransportError):
                    self._read(http)
                self.is_over.wait(0.05)

    def _read(self, http: httpx2.Client) -> None:
        headers = {**self._headers, "last-event-id": str(self.numbers[-1] if self.numbers else 0)}
        with http.stream("GET", self._url, headers=headers) as answer:
            if answer.status_code != 200:
                return
            for line in answer.iter_lines():
                if self.is_over.is_set():
                    return
                if line.startswith("id:"):
                    self.numbers.append(int(line[3:]))


@contextlib.contextmanager
def reader(client: anthropic.Anthropic, store_id: str) -> Iterator[Reader]:
    """A reader until the end of the context."""
    running = Reader(client, store_id)
    running.thread.start()
    try:
        yield running
    finally:
        running.is_over.set()
        running.thread.join()


def wait_for_traffic(server: Server) -> None:
    """Return when the balancer has found that the server is back: before that, nobody would take down the other."""

    def answered() -> int:
        with server.http() as http:
            lines = http.get("/metrics").text.splitlines()
        return sum(
            float(line.rpartition(" ")[2]) > 0 for line in lines if "memory_stores" in line and "_total{" in line
        )

    until(lambda: answered() > 0, "the replica is asked again")


def last_number(server: Server, store_id: str) -> int:
    """The sequence number of a store's newest version."""
    with outside(server.environment) as view:
        return int(view.rows.execute(f"SELECT last_seq FROM memory_stores WHERE id = '{store_id}'")[0][0])


def test_a_replica_killed_under_load_costs_no_request_and_no_write(postgres_s3: Backend, tmp_path: Path) -> None:
    with two_replicas(postgres_s3, tmp_path) as (replicas, client):
        with sdk_load(client) as load, reader(client, load.store_ids[0]) as following:
            for replica in replicas:
                load.wait_for_acknowledged(10)
                replica.kill()
                load.wait_for_acknowledged(10)
                replica.start()
                wait_for_traffic(replica)
            load.wait_for_acknowledged(10)
            load.stop()
            newest = last_number(replicas[0], load.store_ids[0])
            until(lambda: following.numbers[-1:] == [newest], "the reader has seen the newest change")
        assert load.failures == []
        assert following.numbers == list(range(1, newest + 1)), "no change is missed or told twice"
        load.assert_nothing_is_lost(client)
        assert "clean" in replicas[0].cli("fsck").stdout


def test_a_rolling_upgrade_across_a_migration_costs_no_request_and_no_write(
    postgres_s3: Backend, tmp_path: Path, next_version: NextVersion
) -> None:
    with two_replicas(postgres_s3, tmp_path) as (replicas, client), contextlib.ExitStack() as upgraded:
        with sdk_load(client) as load:
            load.wait_for_acknowledged(10)
            assert "revision 9999" in next_version.migrate(replicas[0])
            # Both old replicas go on under the new schema until it is their turn.
            load.wait_for_acknowledged(10)
            for replica in replicas:
                assert replica.stop() in STOPPED
                load.wait_for_acknowledged(5)
                upgraded.enter_context(next_version.in_place_of(replica))
                wait_for_traffic(replica)
                load.wait_for_acknowledged(10)
        assert load.failures == []
        load.assert_nothing_is_lost(client)

"""Every process that serves lets go of what is erased: workers of one server, and other servers."""

import contextlib
import json
from pathlib import Path

import anthropic

from tests.erasure.planting import new_marker
from tests.storage.outside import outside
from tests.support.backends import Backend
from tests.support.servers import serve
from tests.support.waiting import until

KNOWN = "SELECT name, holder FROM leases WHERE name LIKE 'cache:%'"


def test_all_workers_of_all_servers_say_that_they_have_let_go(backend: Backend, tmp_path: Path) -> None:
    environment = backend.environment(tmp_path)
    # An embedded database is one server's.
    others = 1 if "MEMSTORE_DATABASE_URL" in environment else 0
    report = tmp_path / "erased.json"
    with contextlib.ExitStack() as open_servers:
        first = open_servers.enter_context(serve(environment, workers=2))
        servers = [first] + [open_servers.enter_context(serve(first.environment, workers=2)) for _ in range(others)]
        view = open_servers.enter_context(outside(environment))
        # A server is ready when its first worker is.
        until(lambda: len(view.rows.execute(KNOWN)) == 2 * len(servers), "every worker is known")
        known = {name for name, _ in view.rows.execute(KNOWN)}
        clients = [open_servers.enter_context(server.client(max_retries=0)) for server in servers]
        store = clients[0].beta.memory_stores.create(name="Anna", metadata={"user": "u_123"})
        memory = clients[0].beta.memory_stores.memories.create(store.id, path="/a.md", content=new_marker())
        for client in clients:
            client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id)
        done = first.cli("forget", "--where", "user=u_123", "--yes", "--report", str(report))
        assert "did not answer" not in done.stderr
        erasure_id = json.loads(report.read_text())["erasure_id"]
        said = {name: holder for name, holder in view.rows.execute(KNOWN)}  # noqa: C416 - rows of any width
        assert set(said) == known
        assert {holder.partition(" ")[0] for holder in said.values()} == {erasure_id}
        for client in clients:
            with contextlib.suppress(anthropic.NotFoundError):
                client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id)
                raise AssertionError("it is still answered")
    with outside(environment) as view:
        assert list(view.rows.execute(KNOWN)) == [], "who ends is known no more"

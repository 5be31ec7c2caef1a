"""What /metrics answers, and that the pages about it say neither more nor less (the issue, section 4)."""

import re
import time
from collections import Counter as Multiset
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import psutil  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from app import __version__
from app.mount.door.api import StoreApi
from app.server import metrics as http_metrics
from app.storage import metrics as storage_metrics
from tests.contract.conftest import SessionMaker
from tests.support import waiting
from tests.support.backends import Backend
from tests.support.events import EVENT_STREAM
from tests.support.servers import Server, serve

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(memstore_\w+)` \| (\w+) \| ([^|]*)\| ([^|]+) \|$", re.MULTILINE)


class Metrics:
    """The samples of one server at one moment."""

    def __init__(self, server: Server) -> None:
        self.text = httpx2.get(f"{server.base_url}/metrics", trust_env=False).raise_for_status().text
        self.families = list(text_string_to_metric_families(self.text))

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name and at least these labels."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def fresh(server: Server) -> Metrics:
    """The samples of this moment: who asks often is given older ones. Made after this was called, since it is another
    document than the first, and the time of the CPU that stands in it goes on."""
    first = Metrics(server)
    until(lambda: Metrics(server).text != first.text)
    return Metrics(server)


def until(holds: Callable[[], bool]) -> None:
    waiting.until(holds, "the metrics come to this")


def declared() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every metric in the code: its name on the wire, its kind and its labels."""
    found = {}
    for module in (http_metrics, storage_metrics):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                suffix = "_total" if metric._type == "counter" else ""
                found[metric._name + suffix] = (str(metric._type), tuple(metric._labelnames))
    return found


def test_the_reference_lists_each_metric_with_its_kind_and_labels_and_no_other() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    rows = ROW.findall(page)
    written = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert written == declared()
    assert max(Multiset(name for name, *_ in rows).values()) == 1
    for name, _, _, question in rows:
        assert "?" in question, f"{name} answers no question"


def test_the_server_shows_each_of_them_and_no_other(server: Server) -> None:
    shown = {
        family.name + ("_total" if family.type == "counter" else ""): family.type for family in Metrics(server).families
    }
    ours = {name: kind for name, kind in shown.items() if name.startswith("memstore_")}
    assert ours == {name: kind for name, (kind, _) in declared().items()}


def test_the_alerts_are_rules_of_prometheus_about_metrics_that_exist() -> None:
    page = (ROOT / "docs/how-to/watch.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    rules: list[dict[str, Any]] = [
        rule for block in blocks for group in block.get("groups", []) for rule in group["rules"]
    ]
    assert len(rules) >= 10
    samples = set(declared())
    samples |= {f"{name}_{part}" for name, (kind, _) in declared().items() if kind == "histogram"
                for part in ("bucket", "sum", "count")}  # fmt: skip
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "annotations"}
        assert rule["annotations"]["summary"]
        named = set(re.findall(r"\bmemstore_\w+", rule["expr"]))
        assert named or "up{" in rule["expr"]
        assert named <= samples, rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        for name, selector in re.findall(r"\b(memstore_\w+)\{([^}]*)\}", rule["expr"]):
            labels = set(re.findall(r"(\w+)=", selector))
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert labels <= {*declared()[base if base in declared() else name][1], "le"}, rule["alert"]


def test_the_version_is_told(server: Server) -> None:
    assert Metrics(server)("memstore_build_info", version=__version__) == 1


def test_writes_are_counted_by_who_made_them_and_what_they_did(
    server: Server, store: Store, open_session: SessionMaker, client: anthropic.Anthropic
) -> None:
    session = open_session(store.id)
    before = fresh(server)
    client.beta.memory_stores.memories.create(store.id, path="/by-a-key.md", content="1")
    with open_session.sign_in(session.id) as agent:
        memory = agent.beta.memory_stores.memories.create(store.id, path="/by-an-agent.md", content="1")
        agent.beta.memory_stores.memories.update(memory.id, memory_store_id=store.id, content="2")
        agent.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id)
    after = fresh(server)

    def grown(**labels: str) -> float:
        return after("memstore_writes_total", **labels) - before("memstore_writes_total", **labels)

    assert grown(actor="api_actor", operation="create_memory") == 1
    assert grown(actor="session_actor", operation="create_memory") == 1
    assert grown(actor="session_actor", operation="update_memory") == 1
    assert grown(actor="session_actor") == 2


def test_refusals_are_counted_by_their_reason_and_are_no_writes(
    server: Server, store: Store, client: anthropic.Anthropic, http: httpx2.Client
) -> None:
    memory = client.beta.memory_stores.memories.create(store.id, path="/once.md", content="1")
    before = fresh(server)
    with pytest.raises(anthropic.ConflictError):
        client.beta.memory_stores.memories.create(store.id, path="/once.md", content="2")
    with pytest.raises(anthropic.ConflictError):
        client.beta.memory_stores.memories.update(
            memory.id,
            memory_store_id=store.id,
            content="3",
            precondition={"type": "content_sha256", "content_sha256": "0" * 64},
        )
    assert http.get("/v1/memory_stores", headers={"x-api-key": "wrong"}).status_code == 401
    after = fresh(server)
    route = "/v1/memory_stores/{memory_store_id}/memories"
    for labels in (
        {"type": "memory_path_conflict_error", "route": route},
        {"type": "memory_precondition_failed_error", "route": f"{route}/{{memory_id}}"},
        {"type": "authentication_error", "route": "none"},
    ):
        name = "memstore_refusals_total"
        assert after(name, **labels) - before(name, **labels) == 1, labels
    assert after("memstore_writes_total") == before("memstore_writes_total")


def test_database_and_blob_store_are_timed(server: Server, store: Store, client: anthropic.Anthropic) -> None:
    before = Metrics(server)
    for number in range(10):
        client.beta.memory_stores.memories.create(store.id, path=f"/{number}.md", content=f"content {number}")
        client.beta.memory_stores.retrieve(store.id)

    def grown(name: str, operation: str) -> float:
        return Metrics(server)(name, operation=operation) - before(name, operation=operation)

    until(lambda: grown("memstore_database_seconds_count", "write") >= 10)
    until(lambda: grown("memstore_database_seconds_count", "read") >= 1)
    until(lambda: grown("memstore_blob_store_seconds_count", "put") >= 1)
    assert Metrics(server)("memstore_database_seconds_sum") > before("memstore_database_seconds_sum")


def test_readers_of_changes_are_counted_mounts_apart_and_how_late_they_hear(
    server: Server, store: Store, client: anthropic.Anthropic, http: httpx2.Client
) -> None:
    name = "memstore_feed_readers"
    before = fresh(server)

    def grown(client: str) -> float:
        return Metrics(server)(name, client=client) - before(name, client=client)

    api = StoreApi(server.base_url, store.id, lambda: server.api_key)
    watch = api.watch(0)
    try:
        with http.stream("GET", f"/v1/memory_stores/{store.id}/changes", headers={"accept": EVENT_STREAM}) as other:
            assert other.status_code == 200
            until(lambda: (grown("mount"), grown("other")) == (1, 1))
            client.beta.memory_stores.memories.create(store.id, path="/a.md", content="1")
            count = "memstore_feed_lag_seconds_count"
            until(lambda: Metrics(server)(count) > before(count))
    finally:
        watch.close()
        api.close()
    until(lambda: (grown("mount"), grown("other")) == (0, 0))


@pytest.fixture
def sweeping(backend: Backend, tmp_path: Path) -> Iterator[Server]:
    """A server whose sweeper makes a pass after the other."""
    with serve(backend.environment(tmp_path), settings={"MEMSTORE_SWEEP_INTERVAL_SECONDS": "0.1"}) as server:
        yield server


def test_the_sweepers_passes_are_counted_and_timed(sweeping: Server) -> None:
    started = time.time()
    with sweeping.client() as client:
        store = client.beta.memory_stores.create(name="to be purged")
        client.beta.memory_stores.delete(store.id)
    until(lambda: Metrics(sweeping)("memstore_sweeps_total", result="done") >= 1)
    until(lambda: Metrics(sweeping)("memstore_stores_purged_total") >= 1)
    shown = fresh(sweeping)
    assert shown("memstore_sweep_seconds_count") >= 1
    assert started - 1 <= shown("memstore_sweep_last_success_timestamp_seconds") <= time.time() + 1


def test_failures_of_database_and_blob_store_are_counted(tmp_path: Path, services: Any) -> None:
    """On files alone: what is broken is the directory."""
    environment = Backend("sqlite-disk", services).environment(tmp_path)
    with serve(environment) as server, server.client(max_retries=0) as client:
        store = client.beta.memory_stores.create(name="broken")
        blobs = Path(environment["MEMSTORE_DATA_DIR"], "blobs")
        moved = blobs.with_name("moved")
        blobs.rename(moved)
        blobs.write_text("no directory")
        client.beta.memory_stores.memories.create(store.id, path="/a.md", content="1")
        until(lambda: Metrics(server)("memstore_blob_store_failures_total") >= 1)
        until(lambda: Metrics(server)("memstore_blob_move_failures_total") >= 1)
        blobs.unlink()
        moved.rename(blobs)


@pytest.mark.any_backend
def test_several_workers_show_one_sum_and_a_dead_ones_streams_are_gone(backend: Backend, tmp_path: Path) -> None:
    with serve(backend.environment(tmp_path), workers=2) as server, server.client() as client:
        store = client.beta.memory_stores.create(name="shared")
        for _ in range(20):
            with server.http() as http:
                assert http.get(f"/v1/memory_stores/{store.id}").status_code == 200
        shown = Metrics(server)
        route = "/v1/memory_stores/{memory_store_id}"
        assert shown("memstore_http_requests_total", route=route, status="200") == 20
        assert shown("memstore_build_info", version=__version__) == 1
        with server.http() as http, http.stream(
            "GET", f"/v1/memory_stores/{store.id}/changes", headers={"accept": EVENT_STREAM}
        ) as stream:  # fmt: skip
            assert stream.status_code == 200
            until(lambda: Metrics(server)("memstore_feed_readers") == 1)
            port = int(server.base_url.rpartition(":")[2])
            (reader,) = {
                connection.laddr.port
                for connection in psutil.net_connections("tcp")
                if connection.raddr and connection.raddr.port == port and connection.pid == psutil.Process().pid
                and connection.status == psutil.CONN_ESTABLISHED
            } & {stream.extensions["network_stream"].get_extra_info("client_addr")[1]}  # fmt: skip
            (worker,) = [
                child
                for child in psutil.Process(server.process.pid).children(recursive=True)
                for connection in child.net_connections("tcp")
                if connection.raddr and connection.raddr.port == reader
            ]
            worker.kill()
            until(lambda: not psutil.pid_exists(worker.pid) or worker.status() == psutil.STATUS_ZOMBIE)
        until(lambda: Metrics(server)("memstore_feed_readers") == 0)

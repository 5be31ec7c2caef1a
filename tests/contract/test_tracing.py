"""Traces that continue the caller's own, received as any collector of OpenTelemetry would (the issue, section 4)."""

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anthropic
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app import __version__
from app.server import tracing
from app.settings import BadSettings
from tests.support.backends import Backend
from tests.support.servers import Server, run_cli, serve
from tests.support.waiting import until

WAIT_SECONDS = 60.0


@dataclass
class Collector:
    """An OTLP receiver over HTTP, and what it got."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    raw: bytes = b""

    def of_trace(self, trace_id: str, *, at_least: int = 1) -> list[Span]:
        """The spans of a trace, once so many are there."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = [span for span in self.spans if span.trace_id.hex() == trace_id]
            if len(found) >= at_least:
                return found
            assert time.monotonic() < deadline, f"{len(found)} spans of the trace after {WAIT_SECONDS} s"
            time.sleep(0.02)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(body)
            for group in request.resource_spans:
                collector.resources.append({item.key: item.value.string_value for item in group.resource.attributes})
                for scope in group.scope_spans:
                    collector.spans += scope.spans
            collector.raw += body
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        collector.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(backend: Backend, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serve(backend.environment(tmp_path_factory.mktemp("traced")), settings=settings) as server:
        yield server


@dataclass
class Trace:
    """A trace of the caller's own, which the server is to continue."""

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    parent: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def headers(self) -> dict[str, str]:
        """As an instrumented client sends it (W3C Trace Context)."""
        return {"traceparent": f"00-{self.id}-{self.parent}-01"}


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def test_a_request_of_the_sdk_continues_its_callers_trace(
    traced: Server, collector: Collector, backend: Backend
) -> None:
    trace = Trace()
    with traced.client(max_retries=0) as client:
        answer = client.beta.memory_stores.with_raw_response.create(name="traced", extra_headers=trace.headers)
    spans = collector.of_trace(trace.id, at_least=2)
    (server_span,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert server_span.parent_span_id.hex() == trace.parent
    assert server_span.name == "POST /v1/memory_stores"
    found = attributes(server_span)
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/memory_stores",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "memstore.request_id": answer.headers["request-id"],
        "memstore.workspace_id": answer.headers["anthropic-workspace-id"],
        "memstore.actor.type": "api_actor",
    }
    assert expected.items() <= found.items()
    assert found["user_agent.original"].startswith("Anthropic/")
    below = [span for span in spans if span.parent_span_id == server_span.span_id]
    system = "sqlite" if backend.name.startswith("sqlite") else "postgresql"
    assert {span.name for span in below} - {"database read"} == {"database write"}  # the read is that of the key
    (write,) = [span for span in below if span.name == "database write"]
    assert attributes(write) == {"db.operation.name": "write", "db.system.name": system}
    assert {"service.name": "memstore", "service.version": __version__}.items() <= collector.resources[-1].items()


def test_reading_content_shows_the_database_and_a_refusal_its_type(traced: Server, collector: Collector) -> None:
    read, refused = Trace(), Trace()
    with traced.client(max_retries=0) as client:
        store = client.beta.memory_stores.create(name="traced")
        memory = client.beta.memory_stores.memories.create(store.id, path="/a.md", content="text")
        client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id, extra_headers=read.headers)
        with suppress(anthropic.NotFoundError):
            client.beta.memory_stores.memories.retrieve(
                "mem_1", memory_store_id=store.id, extra_headers=refused.headers
            )
    names = {span.name for span in collector.of_trace(read.id, at_least=2)}
    route = "/v1/memory_stores/{memory_store_id}/memories/{memory_id}"
    assert names == {f"GET {route}", "database read"}
    (span,) = [span for span in collector.of_trace(refused.id) if span.kind == Span.SPAN_KIND_SERVER]
    assert attributes(span)["error.type"] == "not_found_error"
    assert attributes(span)["http.response.status_code"] == 404


def test_a_trace_that_the_caller_does_not_record_is_not_recorded_here(traced: Server, collector: Collector) -> None:
    silent, told = Trace(), Trace()
    with traced.http() as http:
        http.get("/v1/memory_stores", headers={"traceparent": f"00-{silent.id}-{silent.parent}-00"})
        http.get("/v1/memory_stores", headers=told.headers)
    collector.of_trace(told.id)
    assert not [span for span in collector.spans if span.trace_id.hex() == silent.id]


@pytest.mark.parametrize("flags", ["00", "01"])
def test_the_trace_that_a_stranger_names_is_not_believed(traced: Server, collector: Collector, flags: str) -> None:
    trace, told = Trace(), Trace()
    headers = {"traceparent": f"00-{trace.id}-{trace.parent}-{flags}", "x-api-key": "wrong"}
    with traced.http() as http:
        refused = http.get("/v1/memory_stores", headers=headers)
        assert refused.status_code == 401
        http.get("/v1/memory_stores", headers=told.headers)
    collector.of_trace(told.id)

    def of_the_stranger() -> list[Span]:
        return [
            span
            for span in collector.spans
            if attributes(span).get("memstore.request_id") == refused.headers["request-id"]
        ]

    until(lambda: of_the_stranger() != [], "the refusal has a span of its own")
    assert trace.id not in {span.trace_id.hex() for span in collector.spans}


def test_spans_hold_no_path_content_name_or_query(traced: Server, collector: Collector) -> None:
    marker, trace = f"planted-{secrets.token_hex(6)}", Trace()
    with traced.client(max_retries=0, default_headers=trace.headers) as client:
        stores = client.beta.memory_stores
        store = stores.create(name=marker, metadata={"a": marker})
        stores.memories.create(store.id, path=f"/{marker}", content=marker)
        list(stores.memories.list(store.id, path_prefix=f"/{marker}/"))
        with suppress(anthropic.APIStatusError):
            stores.memories.create(store.id, path=f"/{marker}/below", content=marker)
        with suppress(anthropic.APIStatusError):
            stores.retrieve(marker)
    last = Trace()
    with traced.http() as http:
        assert http.get(f"/v1/{marker}?{marker}={marker}", headers=last.headers).status_code == 404
    collector.of_trace(trace.id, at_least=5)
    (span,) = collector.of_trace(last.id)
    assert span.name == "GET"
    assert marker.encode() not in collector.raw


def test_a_stream_of_changes_has_a_span_that_ends_when_it_begins(traced: Server, collector: Collector) -> None:
    trace = Trace()
    with traced.client() as client:
        store = client.beta.memory_stores.create(name="followed")
    path = f"/v1/memory_stores/{store.id}/changes"
    with traced.http() as http, http.stream("GET", path, headers={"accept": "text/event-stream", **trace.headers}):
        spans = collector.of_trace(trace.id, at_least=2)
    assert "GET /v1/memory_stores/{memory_store_id}/changes" in {span.name for span in spans}


@pytest.mark.any_backend
def test_what_was_not_sent_yet_is_sent_at_the_end(backend: Backend, tmp_path: Path) -> None:
    trace = Trace()
    with collecting() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        with serve(backend.environment(tmp_path), settings=settings) as server, server.http() as http:
            assert http.get("/v1/memory_stores", headers=trace.headers).status_code == 200
            assert not collector.spans
        assert collector.of_trace(trace.id)


@pytest.mark.any_backend
def test_a_collector_that_is_away_hinders_nobody(backend: Backend, tmp_path: Path) -> None:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with serve(backend.environment(tmp_path), settings=settings) as server, server.client() as client:
        for number in range(20):
            client.beta.memory_stores.create(name=f"number {number}")


# When they are on.


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
    ],
)
def test_traces_are_on_where_the_variables_ask_for_them(
    variables: dict[str, str], on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() is on


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "must be otlp, console or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "must be http/protobuf"),
    ],
)
def test_what_is_not_there_is_said_when_the_server_starts(
    variables: dict[str, str], words: str, tmp_path: Path, services: Any
) -> None:
    environment = Backend("sqlite-disk", services).environment(tmp_path)
    done = run_cli({**environment, **variables}, "serve", "--port", "0", check=False)
    assert done.returncode == 2
    assert words in done.stderr


def test_without_the_packages_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(tracing, "find_spec", find_nothing)
    with pytest.raises(BadSettings, match=r"pip install 'memstore-server\[otel\]'"):
        tracing.wanted()


def test_the_sdk_of_opentelemetry_is_not_imported_where_traces_are_off() -> None:
    code = (
        "import sys; from app.server.application import create_gateway; create_gateway(); "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

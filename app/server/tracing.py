"""OpenTelemetry traces, as an option: a span for each request, which continues the caller's own trace.

They are on where OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_TRACES_EXPORTER is set, and
need `pip install 'memstore-server[otel]'`. Everything else about them is set by the OTEL_* variables of the
specification, which OpenTelemetry's SDK reads itself. Where they are off OpenTelemetry's SDK is not imported.

A span holds the route's template, IDs and numbers. Paths and query strings, which HTTP's semantic conventions also
foresee, are left out: they may name memories.
"""

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from app import __version__
from app.contract.actors import Caller
from app.http.asgi import Scope
from app.settings import BadSettings
from app.storage.rows.timing import show_spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PACKAGE = "opentelemetry.exporter.otlp.proto.http"
_AGENT_CHARACTERS = 256
_DATABASES = frozenset({"sqlite", "postgresql"})


class Answered(Protocol):
    """What a span tells of an answer."""

    request_id: str
    route: str
    status: int
    refusal: str
    """The error's type; empty for a success."""
    caller: Caller | None


def wanted() -> bool:
    """Whether the OTEL_* variables ask for traces.

    Raises:
        BadSettings: they ask for what is not there; the text says what to install or to set.

    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = os.environ.get(_EXPORTER, "").strip().lower()
    if exporter == "none" or not (exporter or any(os.environ.get(name) for name in _ENDPOINTS)):
        return False
    if exporter not in ("", "otlp", "console"):
        raise BadSettings(f"{_EXPORTER}: must be otlp, console or none (it is {exporter!r})")
    if exporter != "console":
        protocol = next((value for name in _PROTOCOLS if (value := os.environ.get(name))), "http/protobuf")
        if protocol != "http/protobuf":
            raise BadSettings(f"{_PROTOCOLS[1]}: must be http/protobuf (it is {protocol!r})")
    try:
        found = find_spec(_PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise BadSettings(
            "the OTEL_* variables ask for traces, but what they need is not installed: "
            "pip install 'memstore-server[otel]'"
        )
    return True


class Tracing:
    """The traces of one process."""

    def __init__(self, provider: "TracerProvider") -> None:
        """From now on the database's and the blob store's work shows in the traces of requests."""
        from opentelemetry import propagate, trace

        self._provider = provider
        self._tracer = provider.get_tracer("memstore", __version__)
        self._extract = propagate.extract
        self._trace = trace
        show_spans(self._work)

    def close(self) -> None:
        """Send what was not sent yet. Takes as long as the receiver takes."""
        show_spans(None)
        self._provider.shutdown()

    @contextlib.contextmanager
    def request(self, scope: Scope, began: int, *, is_continued: bool) -> Iterator["Span"]:
        """The span of a request, as the current one. It is `finish` that ends it.

        began: nanoseconds since 1970. is_continued: it belongs to the trace that its headers name.
        """
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method: str = scope["method"]
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if agent := carrier.get("user-agent"):
            attributes["user_agent.original"] = agent[:_AGENT_CHARACTERS]
        span = self._tracer.start_span(
            method,
            self._extract(carrier if is_continued else {}),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=began,
        )
        try:
            with self._trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        finally:
            if span.is_recording():
                span.end()

    def finish(self, span: "Span", method: str, answer: Answered) -> None:
        """Give a span what is known once there is an answer, and end it."""
        if not span.is_recording():
            return
        if answer.route != "none":
            span.update_name(f"{method} {answer.route}")
            span.set_attribute("http.route", answer.route)
        span.set_attribute("http.response.status_code", answer.status)
        span.set_attribute("memstore.request_id", answer.request_id)
        if answer.caller is not None:
            span.set_attribute("memstore.workspace_id", answer.caller.workspace_id)
            span.set_attribute("memstore.actor.type", answer.caller.actor.type)
            span.set_attribute("memstore.actor.id", answer.caller.actor.id)
        if answer.refusal:
            span.set_attribute("error.type", answer.refusal)
        if answer.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    @contextlib.contextmanager
    def _work(self, operation: str, system: str) -> Iterator[None]:
        """A span below the current one, if there is one: background work has no trace of its own."""
        if not self._trace.get_current_span().is_recording():
            yield
            return
        part, prefix = ("database", "db") if system in _DATABASES else ("blob store", "memstore.blob_store")
        with self._tracer.start_as_current_span(
            f"{part} {operation}",
            kind=self._trace.SpanKind.CLIENT,
            attributes={f"{prefix}.operation.name": operation, f"{prefix}.system.name": system},
            # What an exception says of itself may repeat what a caller sent.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._trace.StatusCode.ERROR)
                raise


def from_environment() -> Tracing | None:
    """The traces that the OTEL_* variables ask for; None: none.

    Raises:
        BadSettings: as `wanted`.

    """
    if not wanted():
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    exporter: SpanExporter
    if os.environ.get(_EXPORTER, "").strip().lower() == "console":
        exporter = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    attributes = {SERVICE_VERSION: __version__}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not named:
        attributes[SERVICE_NAME] = "memstore"
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)

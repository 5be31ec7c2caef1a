"""What the server prints: JSON with the request's ID on each line, and nothing of what callers send (section 4)."""

import asyncio
import io
import json
import logging
import logging.config
import re
import secrets
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from app.contract.calls import REQUEST_ID
from app.contract.errors import NotFound, Unavailable, for_log
from app.server import logs
from app.settings import Settings
from tests.support.backends import Backend
from tests.support.events import EVENT_STREAM
from tests.support.servers import Server, serve

pytestmark = pytest.mark.any_backend

MARKER = f"planted-{secrets.token_hex(6)}"
"""Stands in every place where a caller can put something of its own."""
IDS = {
    "memory_store_id": "memstore_01", "memory_id": "mem_01", "memory_version_id": "memver_01", "session_id": "sesn_01",
}  # fmt: skip


@pytest.fixture(scope="module")
def logging_server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "MEMSTORE_LOG_FORMAT": "json",
        "MEMSTORE_LOG_REQUESTS": "all",
        "MEMSTORE_BOOTSTRAP_API_KEY": f"key-{MARKER}",
    }
    with serve(backend.environment(tmp_path_factory.mktemp("logs")), settings=settings) as server:
        yield server


def lines(server: Server, *answers: httpx2.Response) -> list[dict[str, Any]]:
    """What the server printed, once the lines about these answers are there."""
    ids = [answer.headers["request-id"] for answer in answers]
    return [json.loads(line) for line in server.log_with("\n", *ids).splitlines()]


def test_each_line_is_one_object_with_time_level_logger_and_message(logging_server: Server) -> None:
    found = lines(logging_server)
    assert found
    for line in found:
        assert {"time", "level", "logger", "message"} <= line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("info", "warning", "error")


def test_an_answers_line_has_its_id_route_status_and_duration(logging_server: Server) -> None:
    with logging_server.http() as http:
        good, bad, none = (http.get(path) for path in ("/v1/memory_stores", "/v1/memory_stores/no", "/v1/no/such"))
    by_id = {line.get("request_id"): line for line in lines(logging_server, good, bad, none)}
    for answer, route in (
        (good, "/v1/memory_stores"),
        (bad, "/v1/memory_stores/{memory_store_id}"),
        (none, "none"),
    ):
        line = by_id[answer.headers["request-id"]]
        assert (line["method"], line["route"], line["status"]) == ("GET", route, answer.status_code)
        assert 0 < line["duration_ms"] < 60_000


def _use_every_place(server: Server, client: anthropic.Anthropic) -> None:
    """What succeeds, and what is refused for a reason that names what was sent."""
    stores = client.beta.memory_stores
    store = stores.create(name=MARKER, description=MARKER, metadata={MARKER: MARKER})
    memory = stores.memories.create(store.id, path=f"/{MARKER}.md", content=MARKER)
    stores.memories.update(memory.id, memory_store_id=store.id, content=f"{MARKER} again", path=f"/{MARKER}/moved.md")
    with suppress(anthropic.APIStatusError):
        stores.memories.create(store.id, path=f"/{MARKER}", content=MARKER)  # in conflict with what is below it
    with suppress(anthropic.APIStatusError):
        stores.memories.delete(memory.id, memory_store_id=store.id, expected_content_sha256="0" * 64)
    list(stores.memories.list(store.id, path_prefix=f"/{MARKER}/", view="full"))
    with server.http() as http:
        http.post(f"/v1/memory_stores/{store.id}/moves", json={"from": f"/{MARKER}/", "to": f"/{MARKER}-2/"})
        for headers in ({"x-api-key": MARKER}, {"authorization": f"Bearer {MARKER}"}, {"anthropic-beta": MARKER}):
            http.get("/v1/memory_stores", headers=headers)
        http.post("/v1/memory_stores", content=f'{{"name": "{MARKER}"')
        with http.stream(
            "GET", f"/v1/memory_stores/{store.id}/changes", headers={"accept": EVENT_STREAM}
        ) as stream:  # fmt: skip
            next(stream.iter_lines())
    stores.delete(store.id)


def _use_every_route(server: Server) -> httpx2.Response:
    """Each operation of the server's own document, whatever it is, with the marker in path, query, header and body."""
    with server.http() as http:
        documented = http.get("/openapi.json").json()["paths"]
        for template, operations in documented.items():
            marked = re.sub(r"\{\w+\}", MARKER, template)
            real = re.sub(r"\{(\w+)\}", lambda name: IDS.get(name[1], "x_01"), template)
            for method in set(operations) & {"get", "post", "delete", "head", "put", "patch"}:
                for path in (marked, real):
                    body = {"json": dict.fromkeys(("name", "path", "content", "reason", MARKER), MARKER)}
                    if method in ("get", "head", "delete"):
                        body = {}
                    http.request(method, path, **body, params={"path_prefix": f"/{MARKER}", MARKER: MARKER})  # type: ignore[arg-type]
                    http.request(method, path, **body, headers={"last-event-id": MARKER, "user-agent": MARKER})  # type: ignore[arg-type]
        http.get(f"/{MARKER}?{MARKER}")
        return http.get(f"/v1/{MARKER}")  # Only answers of the API get a line.


def test_no_line_holds_what_callers_send(logging_server: Server) -> None:
    with logging_server.client(max_retries=0) as client:
        _use_every_place(logging_server, client)
    last = _use_every_route(logging_server)
    routes = {line.get("route") for line in lines(logging_server, last)}
    printed = logging_server.log.read_text()
    assert len(routes) > 20, "the requests left no lines, so their absence says nothing"
    found = [line for line in printed.splitlines() if MARKER in line]
    assert not found


def test_by_default_only_faults_get_a_line(backend: Backend, tmp_path: Path) -> None:
    with serve(backend.environment(tmp_path)) as server, server.http() as http:
        assert http.get("/v1/memory_stores").status_code == 200
        assert http.get("/v1/memory_stores/none").status_code == 404
    printed = server.log.read_text()  # Whole, since the server has ended.
    assert "app.http.requests" not in printed
    assert "Memstore serves at" in printed


def test_with_json_no_key_is_printed_and_the_first_one_is_in_its_file(tmp_path: Path, services: Any) -> None:
    environment = Backend("sqlite-disk", services).environment(tmp_path)
    # An empty bootstrap key is none: the server makes its own.
    settings = {"MEMSTORE_LOG_FORMAT": "json", "MEMSTORE_BOOTSTRAP_API_KEY": ""}
    with serve(environment, settings=settings) as server:
        key = Path(environment["MEMSTORE_DATA_DIR"], "api_key").read_text().strip()
        answer = httpx2.get(f"{server.base_url}/v1/memory_stores", headers={"x-api-key": key}, trust_env=False)
        assert answer.status_code == 200
        assert key not in server.log.read_text()
        assert lines(server)


# The formats themselves, on records that a server can't be made to print.


def formatted(settings: Settings, log: logging.Logger, say: Any) -> str:
    """What is printed of what `say` logs."""
    configuration = logs.configuration(settings)["formatters"]["lines"]
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(configuration["()"](with_texts=configuration["with_texts"]))
    log.addHandler(handler)
    try:
        say()
    finally:
        log.removeHandler(handler)
    return out.getvalue()


def fail() -> None:
    try:
        raise KeyError(MARKER)
    except KeyError as error:
        raise ValueError(f"{MARKER} is wrong") from error


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_of_an_unexpected_error_the_type_and_the_place_are_printed_but_not_its_text(log_format: Any) -> None:
    log = logging.getLogger("app.tests")

    def say() -> None:
        try:
            fail()
        except ValueError:
            log.exception("request %s failed", "req_1")

    printed = formatted(Settings(log_format=log_format), log, say)
    assert MARKER not in printed
    for part in ("builtins.ValueError", "builtins.KeyError", "test_logs.py", "in fail", "MEMSTORE_LOG_LEVEL=debug"):
        assert part in printed
    with_texts = formatted(Settings(log_format=log_format, log_level="debug"), log, say)
    assert f"{MARKER} is wrong" in with_texts


def test_what_asyncio_adds_of_its_objects_is_not_printed() -> None:
    log = logging.getLogger("asyncio")

    async def leave_an_error() -> None:
        async def broken() -> None:
            raise NotFound(MARKER)

        task = asyncio.get_running_loop().create_task(broken())
        await asyncio.wait([task])
        del task

    printed = formatted(Settings(log_format="json"), log, lambda: asyncio.run(leave_an_error()))
    assert "Task exception was never retrieved" in printed
    assert MARKER not in printed


def test_what_a_task_of_a_request_prints_has_the_requests_id() -> None:
    log = logging.getLogger("app.tests")
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs.JsonLines(with_texts=False))
    log.addHandler(handler)

    async def work() -> None:
        log.warning("working")

    async def request(number: int) -> None:
        REQUEST_ID.set(f"req_{number}")
        await asyncio.create_task(work())

    async def requests() -> None:
        await asyncio.gather(*(asyncio.create_task(request(number)) for number in range(3)))

    try:
        asyncio.run(requests())
        log.warning("alone")
    finally:
        log.removeHandler(handler)
    printed = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sorted(line.get("request_id", "none") for line in printed) == ["none", "req_0", "req_1", "req_2"]


def test_libraries_are_heard_from_warning_on_whatever_the_level() -> None:
    for level in ("debug", "info", "warning"):
        assert logs.configuration(Settings(log_level=level))["root"]["level"] == "WARNING"
    assert logs.configuration(Settings(log_level="error"))["root"]["level"] == "ERROR"


def test_of_an_error_only_a_text_without_a_callers_words_is_for_the_log() -> None:
    assert for_log(NotFound(MARKER)) == "NotFound"
    assert for_log(ValueError(MARKER)) == "ValueError"
    assert for_log(Unavailable("the database does not answer")) == "the database does not answer"


HOSTILE = f"{MARKER}\x1b]0;x\x07\x9b2J\u202e\u2028\r\n2026-11-28T00:00:00.000Z ERROR app: forged"
"""What a terminal would obey, and a line that looks like one of ours."""
LIBRARIES = (
    "python_multipart.multipart", "botocore.retryhandler", "s3fs", "asyncpg", "sqlalchemy.pool", "urllib3", "fsspec",
    "pydantic", "starlette", "py.warnings", "root", "no.such.library",
)  # fmt: skip


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_of_a_librarys_message_the_template_is_printed_and_nothing_that_was_put_into_it(
    name: str, log_format: Any
) -> None:
    log = logging.getLogger(name)

    def say() -> None:
        log.warning("%s is bad", HOSTILE)
        log.warning(f"{HOSTILE} is bad")  # noqa: G004 - as libraries do
        log.warning("%(what)s is bad", {"what": HOSTILE})

    printed = formatted(Settings(log_format=log_format), log, say)
    assert MARKER not in printed
    assert printed.count("test_logs.py:") == 3 == len(printed.splitlines())
    assert "%s is bad" in printed


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_line_holds_what_a_terminal_obeys_and_no_message_makes_a_second_line(level: Any, log_format: Any) -> None:
    log = logging.getLogger("app.tests")

    def say() -> None:
        log.warning(HOSTILE)
        log.warning("%s", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("failed")

    printed = formatted(Settings(log_format=log_format, log_level=level), log, say)
    assert all(line.isprintable() for line in printed.splitlines()), printed
    assert sum("forged" in line and line.startswith("2026-11-28T00") for line in printed.splitlines()) == 0


def test_warnings_and_exceptions_of_threads_take_the_way_of_other_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    class Stubborn:
        def __del__(self) -> None:
            raise ValueError(HOSTILE)

    def fail_in_a_thread() -> None:
        raise ValueError(HOSTILE)

    def say() -> None:
        logs.catch_what_bypasses_them()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                logging.captureWarnings(True)
                warnings.warn(HOSTILE, stacklevel=1)
            thread = threading.Thread(target=fail_in_a_thread)
            thread.start()
            thread.join()
            Stubborn()
        finally:
            logging.captureWarnings(False)

    printed = formatted(Settings(log_format="json"), logging.getLogger(), say)
    assert MARKER not in printed
    found = [json.loads(line) for line in printed.splitlines()]
    assert [line["logger"] for line in found] == ["py.warnings", "app.server.logs", "app.server.logs"]
    assert all("builtins.ValueError" in line["exception"] for line in found[1:])


PARTS = (
    b"--other\r\n",
    b"--b\r\nna me\x1b\xff%b: x\r\n\r\n\r\n--b--\r\n",
    b'--b\r\ncontent-disposition: form-data; name="%b\x1b\n"\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\ncontent-disposition: form-data; name="f"; filename="%b"\r\n'
    b"content-transfer-encoding: %b\r\n\r\nx\r\n--b--\r\n",
    b"--b\r\n\r\n%b--b-x",
)
"""Forms that a parser of forms has something to say about."""


def test_no_upload_puts_its_bytes_into_the_log(logging_server: Server) -> None:
    with logging_server.http() as http:
        for part in PARTS:
            for boundary in (b"b", b"\t", b"\xff", b"x" * 300, b""):
                answer = http.post(
                    "/v1/memory_stores/import",
                    content=part.replace(b"%b", MARKER.encode()),
                    headers={b"content-type": b"multipart/form-data; boundary=%b; x=%b" % (boundary, MARKER.encode())},
                )
                assert 400 <= answer.status_code < 500, (part, boundary)
    lines(logging_server, answer)
    printed = logging_server.log.read_text()
    assert MARKER not in printed
    assert all(line.isprintable() for line in printed.splitlines())

"""Behind a proxy and in a browser: what proxies may say, who may read answers, and the forms that answers come in."""

import asyncio
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.server import variants
from app.server.forwarded import Forwarded
from app.server.variants import is_known, takes_gzip
from app.settings import Settings
from tests.contract.conftest import bare_http
from tests.contract.routes import Sample
from tests.contract.shapes import REQUEST_ID, check_refusal, is_id, sha256
from tests.docs.blocks import blocks
from tests.faults.balancer import MISSING, PROGRAM, nginx
from tests.support.backends import Backend
from tests.support.events import EVENT_STREAM, events
from tests.support.processes import answers, free_port
from tests.support.servers import Server, run_cli, serve

pytestmark = pytest.mark.any_backend

ORIGIN = "https://app.example.com"
STORES = "/v1/memory_stores"


@pytest.fixture(scope="module")
def operations_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def fronted(backend: Backend, operations_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that trusts proxies on the loopback address, and pages of one origin."""
    settings = {
        "MEMSTORE_TRUSTED_PROXIES": "127.0.0.0/8, ::1",
        "MEMSTORE_CORS_ORIGINS": f"{ORIGIN}, http://localhost:5173",
        "MEMSTORE_OPERATIONS_PORT": str(operations_port),
    }
    with serve(backend.environment(tmp_path_factory.mktemp("fronted")), workers=2, settings=settings) as server:
        yield server


@pytest.fixture
def large(store: Store, client: anthropic.Anthropic) -> str:
    """The URL of a memory whose answer is worth compressing."""
    memory = client.beta.memory_stores.memories.create(store.id, path="/large.md", content="a line\n" * 5_000)
    return f"{STORES}/{store.id}/memories/{memory.id}"


# What proxies say.


def forwarded(
    address: str | None,
    headers: dict[str, str],
    *,
    path: str = "/docs",
    root_path: str = "",
    networks: str = "10.0.0.0/8, ::1",
) -> Any:
    """The scope that the application gets."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    trusted = Settings(trusted_proxies=networks).trusted_proxies
    said = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {
        "type": "http",
        "client": None if address is None else (address, 1),
        "scheme": "http",
        "path": path,
        "headers": [(b"host", b"inner"), *said],
    }
    running = Forwarded(app, trusted, root_path)(scope, None, None)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        running.send(None)
    return seen[0]


SAID = {
    "x-forwarded-for": "203.0.113.7, 10.1.1.1",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "memory.example.com:8443",
    "x-forwarded-prefix": "/team/memstore",
}


@pytest.mark.parametrize("address", ["10.0.0.5", "::1", "::ffff:10.0.0.5"])
def test_a_trusted_proxy_is_believed(address: str) -> None:
    scope = forwarded(address, SAID)
    assert scope["client"] == ("203.0.113.7", 0)
    assert (scope["scheme"], scope["root_path"]) == ("https", "/team/memstore")
    assert dict(scope["headers"])[b"host"] == b"memory.example.com:8443"


@pytest.mark.parametrize("address", ["192.0.2.1", "::2", None, "nonsense"])
def test_nobody_else_is(address: str | None) -> None:
    scope = forwarded(address, SAID)
    assert scope["client"] == (None if address is None else (address, 1))
    assert (scope["scheme"], scope["root_path"]) == ("http", "")
    assert dict(scope["headers"])[b"host"] == b"inner"


@pytest.mark.parametrize(
    "prefix",
    ["memstore", "//evil.example", "/a b", "/<script>", "/..", "/a/../b", "/a//b", "/ä", "/a, /b", "https://x"],
)
def test_a_prefix_that_is_no_plain_path_is_ignored(prefix: str) -> None:
    assert forwarded("10.0.0.5", {"x-forwarded-prefix": prefix}, root_path="/own")["root_path"] == "/own"


def test_a_prefix_may_stay_in_the_path_or_be_taken_off() -> None:
    for path, expected in (("/m", "/"), ("/m/v1/x", "/v1/x"), ("/v1/x", "/v1/x"), ("/mm/v1", "/mm/v1")):
        assert forwarded("10.0.0.5", {"x-forwarded-prefix": "/m/"}, path=path)["path"] == expected


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the first was made up by the client
        ("10.9.9.9", "10.9.9.9"),
        ("unknown", "10.0.0.5"),
        ("203.0.113.7, nonsense", "10.0.0.5"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("203.0.113.7, ::1%eth0", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, ::ffff:10.1.1.1", "203.0.113.7"),
        ("203.0.113.7, ::ffff:a01:101", "203.0.113.7"),
        ("203.0.113.7%eth0", "203.0.113.7"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_proxy(said: str, address: str) -> None:
    assert forwarded("10.0.0.5", {"x-forwarded-for": said})["client"][0] == address


@pytest.mark.parametrize("networks", ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:a00:0/104", "::/0"])
@pytest.mark.parametrize("address", ["10.0.0.5", "::ffff:10.0.0.5"])
def test_an_address_of_ipv4_is_the_same_in_either_form(networks: str, address: str) -> None:
    assert forwarded(address, SAID, networks=networks)["scheme"] == "https"
    if networks != "::/0":
        assert forwarded("11.0.0.5", SAID, networks=networks)["scheme"] == "http"
        assert forwarded("::ffff:11.0.0.5", SAID, networks=networks)["scheme"] == "http"


def check_the_reference(http: httpx2.Client, prefix: str, *, shown: str) -> None:
    """The page that `GET {prefix}/docs` gives and all it asks for, when the service is shown under `shown`."""
    page = http.get(f"{prefix}/docs")
    assert page.status_code == 200
    for needed in ("openapi.json", "static-offline-docs/swagger-ui-bundle.js", "static-offline-docs/swagger-ui.css"):
        assert f"{shown}/{needed}" in page.text
        assert http.get(f"{prefix}/{needed}").status_code == 200
    servers = http.get(f"{prefix}/openapi.json").json().get("servers", [])
    assert servers == ([{"url": shown}] if shown else [])


def test_the_reference_asks_for_its_parts_under_the_prefix(fronted: Server, server: Server) -> None:
    with bare_http(fronted, x_forwarded_prefix="/memstore") as http:
        check_the_reference(http, "", shown="/memstore")
        check_the_reference(http, "/memstore", shown="/memstore")
        assert http.get("/memstore/v1/nothing").status_code == 401
    with bare_http(fronted) as http:
        check_the_reference(http, "", shown="")
    with bare_http(server, x_forwarded_prefix="/memstore") as http:  # a server that trusts nobody
        check_the_reference(http, "", shown="")


@pytest.mark.skipif(PROGRAM is None, reason=MISSING)
def test_the_documented_nginx_shows_the_service_under_its_path(fronted: Server, tmp_path: Path) -> None:
    port, inner = free_port(), fronted.base_url.rpartition(":")[2]
    (block,) = [block for block in blocks("docs/how-to/proxies.md") if block.language == "nginx"]
    text = block.text.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("127.0.0.1:8081", f"127.0.0.1:{inner}")
    url = f"http://127.0.0.1:{port}/memstore"
    with (
        nginx(text, tmp_path, ready=lambda: answers(port, "/memstore/healthz")),
        fronted.client(base_url=url, max_retries=0) as client,
        httpx2.Client(base_url=url, headers={"x-api-key": fronted.api_key}, trust_env=False, timeout=60) as http,
    ):
        check_the_reference(http, "", shown="/memstore")
        store = client.beta.memory_stores.create(name="behind nginx")
        memories = client.beta.memory_stores.memories
        with events(http, store.id) as stream:  # each event passes at once, though the client takes gzip
            for number in range(3):
                memories.create(store.id, path=f"/{number}.md", content="x" * 20_000)
                event = stream.next()
                assert event is not None
                assert event.data["path"] == f"/{number}.md"
        found = memories.list(store.id, view="full")
        assert [len(item.content or "") for item in found.data if item.type == "memory"] == [20_000] * 3


# Browsers.


def test_a_page_of_a_listed_origin_may_ask_and_read(fronted: Server) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key,anthropic-version,anthropic-beta,content-type,x-stainless-lang",
    }
    with bare_http(fronted) as stranger:
        may = stranger.request("OPTIONS", STORES, headers=asked)
        may_not = stranger.request("OPTIONS", STORES, headers={**asked, "access-control-request-method": "PATCH"})
    assert (may.status_code, may_not.status_code) == (200, 400)
    for said in (may, may_not):
        assert is_id(said.headers["request-id"], REQUEST_ID)
    assert may.headers["access-control-allow-origin"] == ORIGIN
    assert {"GET", "POST", "DELETE", "HEAD"} <= set(may.headers["access-control-allow-methods"].split(", "))
    assert "x-stainless-lang" in may.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in may.headers
    with fronted.http() as http, bare_http(fronted) as stranger:
        for answer, status in (
            (http.get(STORES, headers={"origin": ORIGIN}), 200),
            (http.get(f"{STORES}/none", headers={"origin": ORIGIN}), 404),
            (http.put(STORES, headers={"origin": ORIGIN}), 405),
            (stranger.get(STORES, headers={"origin": ORIGIN}), 401),
        ):
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "access-control-allow-credentials" not in answer.headers
            assert "origin" in answer.headers["vary"].lower()
            exposed = answer.headers["access-control-expose-headers"]
            assert {"request-id", "etag", "retry-after", "anthropic-ratelimit-requests-remaining"} <= set(
                exposed.split(", ")
            )


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://app.example.com", f"{ORIGIN}.evil.example"])
def test_a_page_of_another_origin_may_not(fronted: Server, origin: str) -> None:
    with fronted.http() as http:
        asked = {"origin": origin, "access-control-request-method": "GET"}
        assert "access-control-allow-origin" not in http.request("OPTIONS", STORES, headers=asked).headers
        assert "access-control-allow-origin" not in http.get(STORES, headers={"origin": origin}).headers


def test_without_the_setting_no_page_may(http: httpx2.Client) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "GET"}
    assert http.request("OPTIONS", STORES, headers=asked).status_code == 405
    assert not [name for name in http.get(STORES, headers=asked).headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("MEMSTORE_CORS_ORIGINS", "https://app.example.com/", "without a path"),
        ("MEMSTORE_CORS_ORIGINS", "app.example.com", "https://app.example.com"),
        ("MEMSTORE_CORS_ORIGINS", "https://app.example.com:443", "without a default port"),
        ("MEMSTORE_CORS_ORIGINS", "*, https://app.example.com", "* alone"),
        ("MEMSTORE_TRUSTED_PROXIES", "proxy.example.com", "10.0.0.0/8"),
        ("MEMSTORE_TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.0/8"),
        ("MEMSTORE_ROOT_PATH", "memstore", "/memstore"),
        ("MEMSTORE_OPERATIONS_PORT", "70000", "65535"),
    ],
)
def test_a_wrong_value_stops_the_start_with_a_sentence(name: str, value: str, right: str, tmp_path: Path) -> None:
    done = run_cli({"MEMSTORE_DATA_DIR": str(tmp_path), name: value}, "serve", "--port", "0", check=False)
    assert (done.returncode, right in done.stderr) == (2, True), done.stderr
    assert done.stderr.startswith(f"memstore: {name}")


# Forms of an answer.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_the_content_is_told_so_with_304(http: httpx2.Client, sample: Sample, method: str) -> None:
    url = f"{STORES}/{sample.store}/memories/{sample.memory}"
    tag = f'"{sha256("second")}"'
    for known in (tag, f"W/{tag}", "*", f'"x", {tag}', f'"x",W/{tag}'):
        answer = http.request(method, url, headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == tag
        assert not {"content-type", "content-length"} & set(answer.headers)
        assert {"request-id", "anthropic-workspace-id"} <= set(answer.headers)
    for other in ('"x"', sha256("second"), f'"{sha256("first")}"', ""):
        assert http.request(method, url, headers={"if-none-match": other}).status_code == 200
    assert http.get(f"{STORES}/{sample.store}", headers={"if-none-match": "*"}).status_code == 200
    check_refusal(http.get(f"{STORES}/{sample.store}/memories/mem_x", headers={"if-none-match": "*"}), 404)


def test_a_large_answer_is_compressed_for_those_who_take_it(http: httpx2.Client, large: str) -> None:
    plain = http.get(large, headers={"accept-encoding": "identity"})
    packed = http.get(large, headers={"accept-encoding": "br, gzip;q=0.5"})
    head = http.head(large, headers={"accept-encoding": "gzip"})
    assert packed.json() == plain.json()
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == int(head.headers["content-length"]) < 1_000
    assert int(plain.headers["content-length"]) == len(plain.content) > 35_000
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert packed.headers["etag"] == f"W/{plain.headers['etag']}"
    for tag in (packed.headers["etag"], plain.headers["etag"]):
        assert http.get(large, headers={"if-none-match": tag, "accept-encoding": "gzip"}).status_code == 304


def test_small_answers_streams_and_archives_are_not(http: httpx2.Client, sample: Sample, large: str) -> None:
    store = large.partition("/memories/")[0]
    taking = {"accept-encoding": "gzip"}
    for url in (f"{STORES}/{sample.store}", f"{STORES}/none", f"{store}/export"):
        assert "content-encoding" not in http.get(url, headers=taking).headers, url
    with http.stream("GET", f"{store}/changes", headers={"accept": EVENT_STREAM, **taking}) as stream:
        assert "content-encoding" not in stream.headers


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        (b"gzip", True),
        (b"GZIP;q=1.0", True),
        (b"deflate, gzip;q=0.1", True),
        (b"*", True),
        (b"x-gzip", True),
        (b"", False),
        (b"identity", False),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000, *", False),
        (b"gzip;level=9;q=0", False),
        (b"gzip;q=nan", True),
        (b"*;q=0", False),
        (b"gzipped", False),
        (b";;,,=\xff", False),
    ],
)
def test_what_a_client_takes_is_read_as_it_is_written(accepted: bytes, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


def test_tags_are_compared_whole() -> None:
    assert is_known(b'W/"a" , "b"', b'"a"')
    assert not is_known(b'"ab"', b'"a"')
    assert not is_known(b"", b'"a"')


def test_what_is_compressed_is_one_gzip_member() -> None:
    for text in (b"", b"x" * 100, b"y" * 300_000):
        packed = asyncio.run(variants.gzip(text))
        assert gzip.decompress(packed) == text
        with pytest.raises(zlib.error):
            zlib.decompress(packed)


# The operators' port.


def test_the_operators_port_has_health_and_metrics_and_nothing_else(fronted: Server, operations_port: int) -> None:
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{operations_port}", trust_env=False, timeout=60) as operators,
        bare_http(fronted, x_api_key=fronted.api_key) as http,
    ):
        for path in ("/healthz", "/readyz", "/metrics"):
            assert operators.get(path).status_code == 200, path
        for path in (STORES, "/docs", "/openapi.json", "/", "/metrics/"):
            answer = operators.get(path, headers={"x-api-key": fronted.api_key})
            assert check_refusal(answer, 404)["type"] == "not_found_error"
        assert [http.get(path).status_code for path in ("/healthz", "/readyz", STORES)] == [200, 200, 200]
        check_refusal(http.get("/metrics"), 404)


def test_an_operators_port_that_is_taken_is_said(server: Server, tmp_path: Path) -> None:
    port = server.base_url.rpartition(":")[2]
    done = run_cli(
        {"MEMSTORE_DATA_DIR": str(tmp_path), "MEMSTORE_OPERATIONS_PORT": port}, "serve", "--port", "0", check=False
    )
    assert done.returncode == 2
    assert "MEMSTORE_OPERATIONS_PORT" in done.stderr

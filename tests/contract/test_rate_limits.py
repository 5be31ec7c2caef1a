"""Limits per key: 429 in the vendor's shape, and clients that wait as they are told (the issue, section 4)."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anthropic
import httpx2
import pytest

from tests.contract.conftest import bare_http, make_key, sign_in
from tests.support.backends import Backend
from tests.support.servers import API_VERSION, Server, serve

pytestmark = pytest.mark.any_backend

PER_MINUTE = 60
BYTES_PER_MINUTE = 60_000
LIMIT, REMAINING, RESET = (f"anthropic-ratelimit-requests-{name}" for name in ("limit", "remaining", "reset"))


@pytest.fixture(scope="module")
def limited(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "MEMSTORE_RATE_LIMIT_REQUESTS_PER_MINUTE": str(PER_MINUTE),
        "MEMSTORE_RATE_LIMIT_WRITTEN_BYTES_PER_MINUTE": str(BYTES_PER_MINUTE),
    }
    directory: Path = tmp_path_factory.mktemp("limited")
    with serve(backend.environment(directory), settings=settings) as server:
        yield server


@pytest.fixture
def secret(limited: Server) -> str:
    """A key that has sent nothing yet."""
    return make_key(limited, "limited").secret


def http_with(server: Server, secret: str) -> httpx2.Client:
    return bare_http(server, x_api_key=secret, anthropic_version=API_VERSION)


def used_up(http: httpx2.Client) -> httpx2.Response:
    """Ask until the key is refused; the refusal."""
    for _ in range(20 * PER_MINUTE):
        answer = http.get("/v1/memory_stores")
        if answer.status_code != 200:
            return answer
    raise AssertionError("the key was never refused")


def refusals(server: Server) -> float:
    text = httpx2.get(f"{server.base_url}/metrics", trust_env=False).text
    found = re.findall(r'^memstore_refusals_total\{[^}]*type="rate_limit_error"\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


def test_each_answer_says_what_is_left_and_when_all_of_it_is_there_again(limited: Server, secret: str) -> None:
    with http_with(limited, secret) as http:
        answers = [http.get("/v1/memory_stores"), http.get("/v1/memory_stores/none"), http.get("/v1/nothing")]
    assert [answer.status_code for answer in answers] == [200, 404, 404]
    left = [int(answer.headers[REMAINING]) for answer in answers]
    assert left[0] == PER_MINUTE - 1
    assert left == sorted(left, reverse=True)
    for answer in answers:
        assert answer.headers[LIMIT] == str(PER_MINUTE)
        reset = datetime.fromisoformat(answer.headers[RESET])
        assert abs(reset - datetime.now(UTC)) < timedelta(seconds=120)


def test_beyond_the_limit_is_429_with_the_envelope_and_retry_after(limited: Server, secret: str) -> None:
    with http_with(limited, secret) as http:
        refusal = used_up(http)
    assert refusal.status_code == 429
    body = refusal.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "rate_limit_error"
    assert f"{PER_MINUTE} requests" in body["error"]["message"]
    assert body["request_id"] == refusal.headers["request-id"]
    assert 1 <= int(refusal.headers["retry-after"]) <= 60
    assert refusal.headers[REMAINING] == "0"
    assert refusal.headers[LIMIT] == str(PER_MINUTE)


def test_one_key_has_nothing_to_do_with_another(limited: Server, secret: str) -> None:
    with http_with(limited, secret) as http:
        used_up(http)
    other = make_key(limited, "limited").secret
    with http_with(limited, other) as http:
        assert http.get("/v1/memory_stores").headers[REMAINING] == str(PER_MINUTE - 1)


def test_a_sessions_token_counts_for_itself(limited: Server, secret: str) -> None:
    with sign_in(limited, secret) as client:
        environment = client.beta.environments.create(name="limited", config={"type": "cloud"})
        agent = client.beta.agents.create(name="limited", model="claude-sonnet-4-5")
        store = client.beta.memory_stores.create(name="limited")
        session = client.beta.sessions.create(
            agent=agent.id,
            environment_id=environment.id,
            resources=[{"type": "memory_store", "memory_store_id": store.id}],
        )
    with http_with(limited, secret) as http:
        token = http.post(f"/v1/sessions/{session.id}/tokens", json={}).json()["token"]
        used_up(http)
    with bare_http(limited, authorization=f"Bearer {token}", anthropic_version=API_VERSION) as http:
        answer = http.get(f"/v1/memory_stores/{store.id}/memories")
    assert answer.status_code == 200
    assert answer.headers[REMAINING] == str(PER_MINUTE - 1)


def test_the_official_sdk_gets_a_burst_through_by_waiting_as_it_is_told(limited: Server, secret: str) -> None:
    before = refusals(limited)
    with http_with(limited, secret) as http:
        used_up(http)
    with limited.client(api_key=secret) as client, ThreadPoolExecutor(4) as threads:
        names = [f"burst {number}" for number in range(4)]
        made = list(threads.map(lambda name: client.beta.memory_stores.create(name=name), names))
    assert [store.name for store in made] == names
    assert refusals(limited) > before + 1  # the plain client's, and some of the SDK's


def test_the_official_sdk_that_may_not_wait_raises_its_own_error(limited: Server, secret: str) -> None:
    with http_with(limited, secret) as http:
        used_up(http)

    def create_on(client: anthropic.Anthropic) -> None:
        for _ in range(PER_MINUTE):  # one or two may still get through
            client.beta.memory_stores.create(name="refused")

    with sign_in(limited, secret) as client, pytest.raises(anthropic.RateLimitError) as caught:
        create_on(client)
    assert caught.value.status_code == 429


def test_who_has_written_too_much_may_still_read(limited: Server, secret: str) -> None:
    with sign_in(limited, secret) as client:
        store = client.beta.memory_stores.create(name="much")
        # So far over it that it takes most of a minute until anything more may be written.
        content = "x" * (BYTES_PER_MINUTE + 40_000)
        memory = client.beta.memory_stores.memories.create(store.id, path="/much.md", content=content)
        with pytest.raises(anthropic.RateLimitError, match="60,000 bytes"):
            client.beta.memory_stores.memories.create(store.id, path="/more.md", content="x")
        found = client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id)
    assert found.path == "/much.md"


def test_an_upload_of_unknown_length_counts_as_what_was_read(limited: Server) -> None:
    """An import, and a body that is refused in the middle; both without a `content-length`."""
    start = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
    for path, media_type, chunks in (
        ("/v1/memory_stores/import", "multipart/form-data; boundary=x", 2 * BYTES_PER_MINUTE // 1_000),
        ("/v1/memory_stores", "application/json", 1_100),
    ):
        with http_with(limited, make_key(limited, "default").secret) as http:
            body = iter([start, *[b"x" * 1_000] * chunks])
            assert http.post(path, content=body, headers={"content-type": media_type}).status_code in (400, 413)
            refusal = http.post("/v1/memory_stores", json={"name": "more"})
        assert refusal.status_code == 429, path
        assert "60,000 bytes" in refusal.json()["error"]["message"]


def test_without_the_setting_nothing_is_said_of_limits(http: httpx2.Client) -> None:
    answer = http.get("/v1/memory_stores")
    assert answer.status_code == 200
    assert not [name for name in answer.headers if "ratelimit" in name]

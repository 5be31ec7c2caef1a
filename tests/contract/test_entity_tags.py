"""HEAD on one memory, and the entity tag: the content's SHA-256 (the issue, section 3)."""

import httpx2
from anthropic.resources.beta.memory_stores import Memories

from tests.contract.routes import Sample
from tests.contract.shapes import REQUEST_ID, WORKSPACE_ID, is_id, sha256


def _url(sample: Sample) -> str:
    return f"/v1/memory_stores/{sample.store}/memories/{sample.memory}"


def test_head_answers_as_get_does_without_a_body(http: httpx2.Client, sample: Sample) -> None:
    head, get = http.head(_url(sample)), http.get(_url(sample))
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["etag"] == get.headers["etag"] == f'"{sha256("second")}"'
    assert head.headers["content-type"] == get.headers["content-type"]
    assert is_id(head.headers["request-id"], REQUEST_ID)
    assert is_id(head.headers["anthropic-workspace-id"], WORKSPACE_ID)


def test_the_tag_follows_the_content_and_nothing_else(http: httpx2.Client, memories: Memories, sample: Sample) -> None:
    before = http.head(_url(sample)).headers["etag"]
    memories.update(sample.memory, memory_store_id=sample.store, path="/moved")
    assert http.head(_url(sample)).headers["etag"] == before
    memories.update(sample.memory, memory_store_id=sample.store, content="third")
    assert http.head(_url(sample)).headers["etag"] == f'"{sha256("third")}"'
    memories.update(sample.memory, memory_store_id=sample.store, content="second")
    assert http.head(_url(sample)).headers["etag"] == before


def test_head_of_a_missing_memory_is_404_without_a_body(http: httpx2.Client, sample: Sample) -> None:
    response = http.head(f"/v1/memory_stores/{sample.store}/memories/mem_nowhere")
    assert (response.status_code, response.content) == (404, b"")
    assert "etag" not in response.headers
    assert is_id(response.headers["request-id"], REQUEST_ID)


def test_head_asks_for_a_key(anonymous: httpx2.Client, sample: Sample) -> None:
    response = anonymous.head(_url(sample))
    assert (response.status_code, response.content) == (401, b"")

"""Whatever a caller sends, the answer is no 500 and never silence: the door is fed generated rubbish, byte by byte."""

import json
import re
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.contract.routes import Sample
from tests.contract.test_connections import address_of, connected, everything
from tests.support.servers import Server

ALLOWED = {200, 304, 400, 401, 403, 404, 405, 408, 409, 413, 431}
"""304 is the answer to `if-none-match: *` where something is there."""

deep = st.integers(1, 20_000).flatmap(
    lambda depth: st.sampled_from(["[" * depth, "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth])
)
texts = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from("\0\ud800\udfff\u202e\x1b\n\r\u2028/.é\U0001f989"), max_size=8),
    st.sampled_from(
        ["1" * 5_000, "-" + "9" * 400, "1e999", "NaN", "page_", "page_AAAAAAAAAAAAW10", "%00", "\0", "null"]
    ),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), texts, st.sampled_from([10**400, 2**63])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "name", "description", "metadata", "path", "content", "precondition", "type", "content_sha256", "from", "to",
    "model", "system", "tools", "version", "agent", "id", "environment_id", "resources", "memory_store_id",
    "instructions", "title", "config", "networking", "packages", "expires_in_seconds", "reason", "seq", "at",
    "multiagent", "skills",
]  # fmt: skip
LIKELY: list[dict[str, st.SearchStrategy[Any]]] = [
    {"path": texts.map("/{}".format), "content": texts},
    {"name": texts, "description": texts, "metadata": st.dictionaries(texts, texts, max_size=2)},
    {"name": texts, "model": texts, "system": texts},
    {"name": texts, "config": st.fixed_dictionaries({"type": st.just("cloud"), "packages": values})},
    {"agent": texts, "environment_id": texts, "title": texts},
    {"from": texts.map("/{}/".format), "to": texts.map("/{}/".format)},
    {"reason": texts},
    {"expires_in_seconds": values},
]
"""Bodies that get further than the first look."""
bodies = st.one_of(
    st.sampled_from(LIKELY).flatmap(st.fixed_dictionaries).map(lambda body: json.dumps(body).encode()),
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=5).map(lambda body: json.dumps(body).encode()),
    # Raw characters: NUL and lone surrogates as bytes, not as escapes.
    st.dictionaries(st.sampled_from(FIELDS), texts, max_size=3).map(
        lambda body: json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    deep.map(str.encode),
    st.binary(max_size=50),
)
NAMES = [
    "limit", "page", "view", "depth", "path_prefix", "created_at[gte]", "created_at[lte]", "seq", "at", "after", "from",
    "to", "include_archived", "statuses[]", "agent_id", "agent_version", "memory_store_id", "memory_id", "operation",
    "session_id", "api_key_id", "version", "order", "format", "expected_content_sha256", "wait", "path",
]  # fmt: skip
queries = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), texts, max_size=3).map(
        lambda query: "&".join(
            f"{quote(name)}={quote(text.encode('utf-8', 'surrogatepass'))}" for name, text in query.items()
        ).encode()
    ),
    st.binary(max_size=30).map(lambda raw: re.sub(rb"[^\x21-\x7e]|#", b"%", raw)),
)
HEADERS = [
    "x-stainless-retry-count", "last-event-id", "if-none-match", "accept", "accept-encoding", "anthropic-version",
    "anthropic-beta", "anthropic-workspace-id", "content-type", "user-agent", "traceparent", "x-forwarded-prefix",
    "x-forwarded-for", "origin", "authorization", "range", "expect",
]  # fmt: skip
header_values = st.one_of(
    st.binary(max_size=30).map(lambda raw: re.sub(rb"[\x00-\x1f\x7f]", b" ", raw)),
    st.sampled_from([b"9" * 5_000, b"-1", b"\xff\xfe", b"text/event-stream", b"*", b'W/"', b"gzip;q=" + b"9" * 400]),
)
SUFFIXES = [
    "", "/memories", "/memories/{memory}", "/memory_versions", "/memory_versions/{version}", "/changes", "/snapshot",
    "/moves", "/hold", "/export", "/comparisons", "/as_of/memories", "/as_of/memories/{memory}", "/rollback",
    "/memories/{memory}/blame", "/memory_versions/{version}/restore", "/memory_versions/{version}/redact",
]  # fmt: skip
TEMPLATES = [
    "/v1/memory_stores", "/v1/memory_stores/import", "/v1/agents", "/v1/agents/{id}", "/v1/agents/{id}/versions",
    "/v1/environments", "/v1/environments/{id}", "/v1/sessions", "/v1/sessions/{id}", "/v1/sessions/{id}/tokens",
    "/v1/sessions/{id}/resources", "/v1/audit", "/v1/audit/export", "/{id}", "/openapi.json", "/docs",
    *(f"/v1/memory_stores/{store}{suffix}" for suffix in SUFFIXES for store in ("{store}", "{id}")),
]  # fmt: skip
ids = st.one_of(
    st.binary(max_size=12).map(quote),
    st.sampled_from(["memstore_01", "mem_" + "1" * 5_000, "%00", "%ed%a0%80", "%2f", "."]),
)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_rubbish_is_answered_and_never_with_500(
    server: Server, http: httpx2.Client, sample: Sample, method: str
) -> None:
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(
        template=st.sampled_from(TEMPLATES),
        some_id=ids,
        query=queries,
        body=bodies,
        headers=st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=2),
        is_chunked=st.booleans(),
    )
    @example("/v1/memory_stores/{store}/memories", "x", b"", b'{"path":"/\\u0000","content":"\\ud800"}', {}, False)
    @example("/v1/memory_stores/{store}/memories", "x", b"page=page_" + b"A" * 60, b"", {}, False)
    @example("/v1/memory_stores/{store}/changes", "x", b"after=" + b"9" * 5_000, b"", {}, False)
    @example("/v1/memory_stores/{store}/changes", "x", b"", b"", {"last-event-id": b"9" * 5_000}, False)
    @example("/v1/memory_stores/{store}/memories/{memory}", "x", b"", b"", {"if-none-match": b"*"}, False)
    def ask(
        template: str, some_id: str, query: bytes, body: bytes, headers: dict[str, bytes], is_chunked: bool
    ) -> None:
        path = template.format(store=sample.store, memory=sample.memory, version=sample.version, id=some_id)
        if method == "DELETE" and path in (f"/v1/memory_stores/{sample.store}",):
            return  # the others need it
        lines = [f"{method} {path}?".encode() + query + b" HTTP/1.1", b"host: x", b"connection: close"]
        if "authorization" not in headers:
            lines.append(f"x-api-key: {server.api_key}".encode())
        lines += [name.encode() + b": " + value for name, value in headers.items()]
        if is_chunked:
            lines.append(b"transfer-encoding: chunked")
            body = (b"%x\r\n" % len(body) + body + b"\r\n" if body else b"") + b"0\r\n\r\n"
        else:
            lines.append(b"content-length: %d" % len(body))
        with connected(address_of(server)) as connection:
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            start = connection.recv(65_536)
            status = int(start.split(b" ")[1])
            if b"event-stream" not in start:
                start += everything(connection)
        assert status in ALLOWED, start
        head, _, answer = start.partition(b"\r\n\r\n")
        if status >= 400:
            assert json.loads(answer)["type"] == "error", start
            assert b"request-id: " in head

    try:
        ask()
    finally:
        http.delete(f"/v1/memory_stores/{sample.store}/hold")  # one may have been placed

"""Where the client finds its server and its key, and what it refuses to send."""

import pytest

from app.client import Memstore
from tests.client.scripted import answer, scripted

STORES = answer(b'{"data": [], "next_page": null}')
NAMES = ("MEMSTORE_BASE_URL", "MEMSTORE_API_KEY", "MEMSTORE_TOKEN", "MEMSTORE_WORKSPACE_ID")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_environment_says_what_the_program_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(STORES) as server:
        monkeypatch.setenv("MEMSTORE_BASE_URL", f" {server.url}/below/ ")
        monkeypatch.setenv("MEMSTORE_API_KEY", "of-the-environment")
        monkeypatch.setenv("MEMSTORE_WORKSPACE_ID", "wrkspc_1")
        with Memstore() as client:
            assert list(client.stores.list()) == []
        monkeypatch.setenv("MEMSTORE_TOKEN", "of-a-session")
        with Memstore() as client, Memstore(api_key="sk-ant-api-given", workspace_id="wrkspc_2") as other:
            assert list(client.stores.list()) == list(other.stores.list()) == []
    key, token, given = server.requests
    assert key.startswith("GET /below/v1/memory_stores?")
    assert "authorization: Bearer of-the-environment\r\nanthropic-workspace-id: wrkspc_1" in key
    assert "authorization: Bearer of-a-session" in token
    assert "x-api-key: sk-ant-api-given\r\nanthropic-workspace-id: wrkspc_2" in given


@pytest.mark.parametrize(
    ("url", "key", "why"),
    [
        (None, "key", "no server: .*MEMSTORE_BASE_URL"),
        ("http://h", None, "no key: .*MEMSTORE_API_KEY"),
        ("h:8080", "key", "is no URL of a server"),
        ("http://[h", "key", "is no URL of a server"),
        ("http://h:99999", "key", "is no URL of a server"),
        ("http://h/?a=b", "key", "no query"),
        ("http://me:secret@h", "key", "no user and no password"),
        ("http://h", "kéy", "the API key or token holds a character that none has"),
        ("http://h", "k\r\nx: y", "the API key or token holds a character that none has"),
    ],
)
def test_what_can_not_be_sent_is_refused_in_a_sentence_without_the_secret(
    url: str | None, key: str | None, why: str
) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        Memstore(url, key)
    assert not key or key == "key" or key not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_key_is_not_shown() -> None:
    with Memstore("http://h", "hidden") as client:
        assert repr(client) == "<Memstore http://h>"


def test_no_identifier_and_no_text_changes_where_a_call_goes() -> None:
    with Memstore("http://h", "key") as client:
        for found in ("", "..", "a/b", "a?b", "ä", "a\r\nb"):
            with pytest.raises(ValueError, match="no ID"):
                client.stores.retrieve(found)
        with pytest.raises(ValueError, match="no path of the API"):
            client.request("GET", "/v1/x y")
        with pytest.raises(ValueError, match="lone surrogate"):
            client.memories.create("memstore_1", "/a", "\ud800")

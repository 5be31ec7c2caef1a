"""A store under legal hold, seen from a mount: files can be written and renamed; a removal fails with EPERM."""

import errno
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.sync.errors import Refused
from tests.mount.engines import Mounted, Remote, mounted
from tests.support.servers import Server
from tests.support.waiting import WAIT_SECONDS


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


@pytest.fixture
def one(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounted]:
    """A mount whose writes wait for the server, however busy the machine is."""
    monkeypatch.setattr("app.mount.sync.uploader.PATIENCE_SECONDS", WAIT_SECONDS)
    with mounted(remote.server.base_url, remote.server.api_key, remote.store_id, tmp_path) as one:
        yield one


@pytest.mark.parametrize("archived", [False, True], ids=["live", "archived"])
def test_a_removal_is_refused_with_its_reason_and_the_file_stays(
    one: Mounted, remote: Remote, http: httpx2.Client, client: anthropic.Anthropic, archived: bool
) -> None:
    entry = one.write("/a.md", "text")
    url = f"/v1/memory_stores/{remote.store_id}/hold"
    assert http.post(url, json={}).status_code == 200
    if archived:
        client.beta.memory_stores.archive(remote.store_id)
    with pytest.raises(Refused, match="is under legal hold since") as refused:
        one.engine.remove(entry)
    assert refused.value.errno == errno.EPERM
    assert one.texts() == {"/a.md": "text"} == remote.texts()
    if not archived:
        one.write("/a.md", "more")
        one.engine.rename(one.entry("/a.md"), "/b.md")
        assert remote.texts() == {"/b.md": "more"}

    assert http.delete(url).status_code == 200
    one.engine.remove(one.entry("/a.md" if archived else "/b.md"))
    assert remote.texts() == {}

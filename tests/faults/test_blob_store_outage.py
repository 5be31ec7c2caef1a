"""The blob store is away, hangs or is slow: only the move of contents is delayed, never the agent."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import httpx2
import pytest

from tests.faults.load import STORES, assert_clean, load
from tests.faults.places import Place
from tests.faults.places import place as placed
from tests.storage.outside import Outside, digest, key, outside
from tests.support.backends import Backend
from tests.support.servers import Server, serve
from tests.support.waiting import until

NO_CACHE = {"MEMSTORE_CACHE_BYTES": "0"}


def assert_an_outage_delays_only_the_move(place: Place, view: Outside) -> None:
    with (
        serve(place.environment, settings=NO_CACHE) as server,
        server.client(max_retries=0) as client,
        server.http() as http,
    ):
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="kept")
        moved = memories.create(store.id, path="/moved.md", content="moved")
        view.wait_until_moved()
        with place.without_blob_store():
            # Whatever needs no blob works: writes, reads of what is staged, listings, versions.
            staged = memories.create(store.id, path="/staged.md", content="staged")
            memories.update(staged.id, memory_store_id=store.id, content="staged again")
            assert memories.retrieve(staged.id, memory_store_id=store.id).content == "staged again"
            assert len(client.beta.memory_stores.memory_versions.list(store.id).data) == 3
            assert {item.path for item in memories.list(store.id).data} == {"/moved.md", "/staged.md"}
            memories.update(moved.id, memory_store_id=store.id, path="/renamed.md")
            with load(server, writers=2) as writing:
                writing.wait_for_acknowledged(10)
            assert writing.refusals == []
            # What needs one is refused clearly, and the service says what it lacks.
            refused = http.get(f"{STORES}/{store.id}/memories/{moved.id}")
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert http.get(f"{STORES}/{store.id}/memories", params={"view": "full", "limit": 20}).status_code == 503
            ready = http.get("/readyz")
            assert ready.status_code == 503
            assert (ready.json()["database"], ready.json()["blob_store"] == "ok") == ("ok", False)
            assert http.get("/healthz").status_code == 200
            assert view.staged() >= 2
        assert memories.retrieve(moved.id, memory_store_id=store.id).content == "moved"
        until(lambda: http.get("/readyz").status_code == 200, "the service is ready again")
        view.rows.execute("UPDATE staged_contents SET staged_at = 0")  # old enough for the sweeper
        view.wait_until_moved()
        assert view.blobs_of(store.id) == {digest("moved"), digest("staged"), digest("staged again")}
        writing.assert_nothing_is_lost(server)
        assert_clean(place.inner)


def test_an_outage_of_the_blob_store_delays_only_the_move(place: Place, view: Outside) -> None:
    assert_an_outage_delays_only_the_move(place, view)


def test_an_outage_of_a_real_s3_server_delays_only_the_move(ceph_backend: Backend, tmp_path: Path) -> None:
    with placed(ceph_backend, tmp_path) as place, outside(place.inner) as view:
        assert_an_outage_delays_only_the_move(place, view)


def test_cached_content_is_read_during_an_outage(place: Place, view: Outside) -> None:
    with serve(place.environment) as server, server.client(max_retries=0) as client:
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="kept")
        memory = memories.create(store.id, path="/memory.md", content="cached")
        view.wait_until_moved()
        with place.without_blob_store():
            assert memories.retrieve(memory.id, memory_store_id=store.id).content == "cached"
            (listed,) = memories.list(store.id, view="full").data
            assert listed.type == "memory"
            assert listed.content == "cached"


def test_what_is_erased_during_an_outage_is_gone_after_it(place: Place, view: Outside) -> None:
    with contextlib.ExitStack() as outage, serve(place.environment) as server, server.client(max_retries=0) as client:
        memories, versions = client.beta.memory_stores.memories, client.beta.memory_stores.memory_versions
        store = client.beta.memory_stores.create(name="kept")
        doomed = client.beta.memory_stores.create(name="doomed")
        memory = memories.create(store.id, path="/memory.md", content="secret")
        memories.create(doomed.id, path="/memory.md", content="secret too")
        memories.update(memory.id, memory_store_id=store.id, content="harmless")
        view.wait_until_moved()
        outage.enter_context(place.without_blob_store())
        versions.redact(memory.memory_version_id, memory_store_id=store.id)
        client.beta.memory_stores.delete(doomed.id)
        with pytest.raises(anthropic.NotFoundError):
            memories.list(doomed.id)
        secret = versions.retrieve(memory.memory_version_id, memory_store_id=store.id)
        assert secret.content is None
        with server.http() as http:
            until(lambda: failed_housekeeping(server), "the service has tried to remove the blobs")
            assert http.get("/healthz").status_code == 200
        outage.close()
        view.rows.execute("UPDATE condemned_contents SET claimed_until = 0")  # as after two minutes
        left = {key(store.id, digest("harmless"))}
        until(lambda: view.blobs.all_keys() == left, "the erased contents are gone")
        assert_clean(place.inner)


def failed_housekeeping(server: Server) -> bool:
    return "housekeeping is put off" in server.log.read_text()


def test_an_s3_server_that_hangs_holds_up_neither_writes_nor_other_reads(s3_place: Place) -> None:
    assert s3_place.s3 is not None
    with (
        outside(s3_place.inner) as view,
        serve(s3_place.environment, settings=NO_CACHE) as server,
        server.client(max_retries=0) as client,
        server.http() as http,
    ):
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="kept")
        moved = memories.create(store.id, path="/moved.md", content="moved")
        view.wait_until_moved()
        s3_place.s3.hang()
        http.timeout = httpx2.Timeout(60)
        with ThreadPoolExecutor(1) as threads:
            read = threads.submit(http.get, f"{STORES}/{store.id}/memories/{moved.id}")
            with load(server, writers=2) as writing:
                writing.wait_for_acknowledged(10)
            assert writing.refusals == []
            refused = read.result(timeout=60)
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) >= 1
        s3_place.s3.forward()
        assert memories.retrieve(moved.id, memory_store_id=store.id).content == "moved"
        view.wait_until_moved()
        writing.assert_nothing_is_lost(server)
        assert_clean(s3_place.inner)


def test_a_slow_s3_server_slows_nobody_down_but_who_reads_from_it(s3_place: Place) -> None:
    assert s3_place.s3 is not None
    with (
        outside(s3_place.inner) as view,
        serve(s3_place.environment, settings=NO_CACHE) as server,
        server.client(max_retries=0) as client,
    ):
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="kept")
        moved = memories.create(store.id, path="/moved.md", content="moved")
        view.wait_until_moved()
        s3_place.s3.slow(0.3)
        with load(server, writers=2) as writing:
            writing.wait_for_acknowledged(20)
            assert view.staged() > 0, "writers do not wait for S3"
        assert writing.refusals == []
        assert memories.retrieve(moved.id, memory_store_id=store.id).content == "moved"
        s3_place.s3.forward()
        view.wait_until_moved()
        writing.assert_nothing_is_lost(server)
        assert_clean(s3_place.inner)

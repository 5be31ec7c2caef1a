"""`kill -9` of a server loses nothing that was acknowledged."""

import contextlib

import pytest

from tests.faults.load import Load, assert_clean, load
from tests.faults.places import Place
from tests.storage.outside import Outside, digest, key, until
from tests.support.servers import serve

ROUNDS = 3


def contents(load: Load) -> set[str]:
    """The keys of everything that was acknowledged."""
    return {key(writer.store_id, digest(content)) for writer in load.writers for content in writer.versions.values()}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_acknowledged_write_is_there_after_kill_9_under_load(place: Place, view: Outside, workers: int) -> None:
    if place.s3 is not None:
        place.s3.slow(0.05)  # so that each kill finds contents that are not moved yet
    loads = []
    with serve(place.environment, workers=workers) as server:
        for _ in range(ROUNDS):
            with load(server) as writing:
                writing.wait_for_acknowledged(25)
                server.kill()
            loads.append(writing)
            if place.s3 is not None:
                assert view.staged() > 0
            server.start()
        if place.s3 is not None:
            place.s3.forward()
        for writing in loads:
            writing.assert_nothing_is_lost(server)
        assert_clean(place.inner)
        view.rows.execute("UPDATE staged_contents SET staged_at = 0")  # old enough for the sweeper
        view.wait_until_moved()
        blobs = view.blobs.all_keys()
        for writing in loads:
            assert contents(writing) <= blobs


def test_a_write_that_was_not_acknowledged_before_kill_9_is_whole_or_not_there(place: Place, view: Outside) -> None:
    with serve(place.environment) as server:
        with load(server, writers=8) as writing:
            writing.wait_for_acknowledged(5)
            server.kill()
        server.start()
        writing.assert_nothing_is_lost(server)
        for store_id in writing.store_ids:
            versions = view.rows.execute(
                f"SELECT seq, memory_id FROM memory_versions WHERE store_id = '{store_id}' ORDER BY seq"
            )
            assert [int(seq) for seq, _ in versions] == list(range(1, len(versions) + 1))
        assert_clean(place.inner)


def test_content_left_staged_by_a_killed_server_is_moved_after_the_restart(place: Place, view: Outside) -> None:
    with contextlib.ExitStack() as outage, serve(place.environment) as server:
        outage.enter_context(place.without_blob_store())
        with load(server) as writing:
            writing.wait_for_acknowledged(10)
            server.kill()
        assert view.staged() > 0
        outage.close()
        view.rows.execute("UPDATE staged_contents SET staged_at = 0")  # old enough for the sweeper
        server.start()
        writing.assert_nothing_is_lost(server)
        view.wait_until_moved()
        assert contents(writing) <= view.blobs.all_keys()
        writing.assert_nothing_is_lost(server)
        assert_clean(place.inner)


def test_a_server_killed_while_it_erases_finishes_after_the_restart(place: Place, view: Outside) -> None:
    with contextlib.ExitStack() as outage, serve(place.environment) as server, server.client() as client:
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="kept")
        doomed = client.beta.memory_stores.create(name="doomed")
        memory = memories.create(store.id, path="/memory.md", content="secret")
        memories.create(doomed.id, path="/memory.md", content="secret too")
        memories.update(memory.id, memory_store_id=store.id, content="harmless")
        view.wait_until_moved()
        # The erasure is asked for while the blobs can't be removed, so the server dies with it undone.
        outage.enter_context(place.without_blob_store())
        client.beta.memory_stores.memory_versions.redact(memory.memory_version_id, memory_store_id=store.id)
        begun = "claimed_until > 0"
        until(lambda: view.rows.count("condemned_contents", begun) == 1, "the removal is begun, not done", within=20)
        client.beta.memory_stores.delete(doomed.id)
        server.kill()
        outage.close()
        view.rows.execute("UPDATE condemned_contents SET claimed_until = 0")  # as after two minutes
        server.start()
        until(lambda: view.blobs.all_keys() == {key(store.id, digest("harmless"))}, "the erased contents are gone")
        assert_clean(place.inner)

"""`kill -9` of a server loses nothing that was acknowledged."""

import contextlib

from tests.faults.load import Load, assert_clean, load
from tests.faults.places import Place
from tests.storage.outside import Outside, digest, key
from tests.support.amounts import amount, repeats
from tests.support.servers import serve
from tests.support.waiting import until

ROUNDS = amount(2, 10)


def contents(load: Load) -> set[str]:
    """The keys of everything that was acknowledged."""
    return {key(writer.store_id, digest(content)) for writer in load.writers for content in writer.versions.values()}


@repeats
def test_every_acknowledged_write_is_there_after_kill_9_under_load(place: Place, view: Outside) -> None:
    if place.s3 is not None:
        place.s3.slow(0.05)  # so that each kill finds contents that are not moved yet
    loads = []
    with serve(place.environment, workers=1 if place.s3 is None else 2) as server:
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
        for store_id in (store_id for writing in loads for store_id in writing.store_ids):
            rows = view.rows.execute(f"SELECT seq FROM memory_versions WHERE store_id = '{store_id}' ORDER BY seq")
            assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1)), "a write is whole or not there"
        assert_clean(place.inner)
        view.rows.execute("UPDATE staged_contents SET staged_at = 0")  # old enough for the sweeper
        view.wait_until_moved()
        blobs = view.blobs.all_keys()
        for writing in loads:
            assert contents(writing) <= blobs


def test_a_server_killed_before_it_moved_and_erased_does_both_after_the_restart(place: Place, view: Outside) -> None:
    with contextlib.ExitStack() as outage, serve(place.environment) as server, server.client() as client:
        memories = client.beta.memory_stores.memories
        store = client.beta.memory_stores.create(name="kept")
        doomed = client.beta.memory_stores.create(name="doomed")
        memory = memories.create(store.id, path="/memory.md", content="secret")
        memories.create(doomed.id, path="/memory.md", content="secret too")
        memories.update(memory.id, memory_store_id=store.id, content="harmless")
        view.wait_until_moved()
        # It is asked for while the blob store is away, so the server dies with it undone.
        outage.enter_context(place.without_blob_store())
        client.beta.memory_stores.memory_versions.redact(memory.memory_version_id, memory_store_id=store.id)
        begun = "claimed_until > 0"
        until(lambda: view.rows.count("condemned_contents", begun) == 1, "the removal is begun, not done")
        client.beta.memory_stores.delete(doomed.id)
        with load(server) as writing:
            writing.wait_for_acknowledged(5)
            server.kill()
        assert view.staged() > 0
        outage.close()
        view.rows.execute("UPDATE condemned_contents SET claimed_until = 0")  # as after two minutes
        view.rows.execute("UPDATE staged_contents SET staged_at = 0")  # old enough for the sweeper
        server.start()
        writing.assert_nothing_is_lost(server)
        view.wait_until_moved()
        assert contents(writing) <= view.blobs.all_keys()
        until(lambda: view.blobs_of(store.id) == {digest("harmless")}, "the redacted content is gone")
        until(lambda: view.blobs_of(doomed.id) == set(), "the deleted store's content is gone")
        assert_clean(place.inner)

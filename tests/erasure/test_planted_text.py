"""A text that came in through every door of the API is in no raw byte of the deployment afterwards."""

import json
from pathlib import Path

import anthropic

from tests.erasure.planting import bucket_of, endpoint_of, new_marker, object_versions, places_with, plant
from tests.storage.outside import Outside
from tests.support.postgres import execute
from tests.support.servers import Server


def keep_object_versions(server: Server) -> None:
    """Make the bucket one that keeps what is overwritten and removed."""
    environment = server.environment
    if "MEMSTORE_DATABASE_URL" in environment:
        with endpoint_of(environment).client() as s3:
            s3.put_bucket_versioning(Bucket=bucket_of(environment), VersioningConfiguration={"Status": "Enabled"})


def plant_around(sdk: anthropic.Anthropic, store_id: str, marker: str) -> None:
    """Write the text into a session, an agent and an environment, which are not in use any more."""
    agents, environments, sessions = sdk.beta.agents, sdk.beta.environments, sdk.beta.sessions
    agent = agents.create(name=f"Agent of {marker}", model="claude-opus-5-5", system=f"Ask {marker}")
    agents.update(agent.id, version=1, system="Ask somebody else", metadata={"who": marker})
    environment = environments.create(
        name=f"For {marker}",
        description=marker,
        config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": [f"{marker}.example.com"]}},
    )
    session = sessions.create(
        agent=agent.id,
        environment_id=environment.id,
        title=f"About {marker}",
        metadata={"who": marker},
        resources=[{"type": "memory_store", "memory_store_id": store_id, "instructions": f"ask {marker}"}],
    )
    sessions.archive(session.id)
    agents.archive(agent.id)
    environments.archive(environment.id)


def gather_statistics(server: Server) -> None:
    """PostgreSQL does this by itself from time to time, and then keeps paths and names among its statistics."""
    if url := server.environment.get("MEMSTORE_DATABASE_URL"):
        execute(url, "ANALYZE")


def test_a_forgotten_person_is_in_no_raw_byte_while_the_server_runs(
    own: Server, sdk: anthropic.Anthropic, view: Outside, tmp_path: Path
) -> None:
    marker, stranger = new_marker(), new_marker()
    report = tmp_path / "erased.json"
    keep_object_versions(own)
    with own.http() as http:
        store_id = plant(sdk, http, marker)
        plant(sdk, http, stranger)
        other = sdk.beta.memory_stores.create(name="Somebody else", metadata={"user": "u_1234"})
        memory = sdk.beta.memory_stores.memories.create(other.id, path="/kept.md", content=f"kept {stranger}")
    view.wait_until_moved()
    gather_statistics(own)
    planted = places_with(own, marker)
    assert any(name.startswith("data: ") or "object " in name for name in planted)
    assert "log" not in planted, "the log never holds content or paths"

    done = own.cli("forget", "--where", "user=u_123", "--where", f"who={marker}", "--yes", "--report", str(report))
    assert places_with(own, marker) == [], done.stdout + done.stderr
    assert marker not in report.read_text()
    assert marker not in done.stdout + done.stderr
    checked = own.cli("forget", "verify", str(report), "--contains", marker)
    assert "Nothing is left of 1 store, 6 memories, 10 versions" in checked.stdout

    made = json.loads(report.read_text())
    assert made["counts"] == {"stores": 1, "memories": 6, "versions": 10, "stores_touched": 0, "texts": 0}
    assert all(place["complete"] for place in made["places"]), made["places"]
    assert store_id not in report.read_text()
    assert places_with(own, stranger), "what others wrote is still there"
    kept = sdk.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=other.id)
    assert kept.content == f"kept {stranger}"
    assert own.cli("fsck").stdout == "clean\n"


def test_memories_that_hold_the_text_go_with_all_versions_and_the_rest_of_the_store_stays(
    own: Server, sdk: anthropic.Anthropic, view: Outside, tmp_path: Path
) -> None:
    marker = new_marker()
    report = tmp_path / "erased.json"
    keep_object_versions(own)
    store = sdk.beta.memory_stores.create(name="Shared")
    memories = sdk.beta.memory_stores.memories
    live = memories.create(store.id, path="/live.md", content=f"about {marker}")
    memories.update(live.id, memory_store_id=store.id, content="harmless by now")
    gone = memories.create(store.id, path=f"/gone/{marker}.md", content="nothing in it")
    memories.delete(gone.id, memory_store_id=store.id)
    kept = memories.create(store.id, path="/kept.md", content="harmless by now")
    memories.update(kept.id, memory_store_id=store.id, content="kept")
    plant_around(sdk, store.id, marker)
    old = memories.create(store.id, path="/redacted.md", content=f"redacted {marker}")
    memories.update(old.id, memory_store_id=store.id, content="kept too")
    view.wait_until_moved()
    # Its blob goes; on a versioned bucket an old object version of it stays, of which no row knows any more.
    sdk.beta.memory_stores.memory_versions.redact(old.memory_version_id, memory_store_id=store.id)
    gather_statistics(own)
    assert places_with(own, marker)

    own.cli("forget", "--contains", marker, "--yes", "--report", str(report))
    assert places_with(own, marker) == []
    own.cli("forget", "verify", str(report), "--contains", marker)
    counts = json.loads(report.read_text())["counts"]
    assert counts == {"stores": 0, "memories": 2, "versions": 5, "stores_touched": 1, "texts": 3}
    assert {item.path for item in memories.list(store.id)} == {"/kept.md", "/redacted.md"}
    versions = list(sdk.beta.memory_stores.memory_versions.list(store.id, view="full"))
    erased = [version for version in versions if version.memory_id in (live.id, gone.id)]
    assert len(erased) == 5
    assert all(version.path is None and version.content is None and version.redacted_at for version in erased)
    newest = versions[0]
    assert (newest.operation, newest.memory_id) == ("deleted", live.id)
    assert newest.created_by is not None
    assert newest.created_by.type == "user_actor"
    first = [version for version in versions if version.memory_id == kept.id][-1]
    assert first.content == "harmless by now", "another memory's version with the same content keeps it"
    if "MEMSTORE_DATABASE_URL" in own.environment:
        contents = {content for key, content in object_versions(own.environment) if store.id in key and content}
        assert contents == {b"harmless by now", b"kept", b"kept too"}
    assert own.cli("fsck").stdout == "clean\n"

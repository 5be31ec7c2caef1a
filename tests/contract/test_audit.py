"""The audit log: each act has its entry with the right author, refused attempts have theirs, and it can be checked."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.conftest import Credential, SessionMaker, bare_http, make_key
from tests.contract.routes import Sample
from tests.contract.shapes import REQUEST_ID, SHA256, is_id, is_timestamp
from tests.support.backends import Backend
from tests.support.servers import Server, serve

AUDIT = "/v1/audit"
ENTRY_KEYS = {
    "type", "seq", "at", "workspace_id", "actor", "action", "subject", "detail", "request_id", "sha256",
}  # fmt: skip

Entry = dict[str, Any]


def entries(http: httpx2.Client, **query: object) -> list[Entry]:
    """All entries that fulfil the filters, page by page."""
    found: list[Entry] = []
    page: dict[str, str] = {}
    while True:
        answer = http.get(AUDIT, params={"limit": "100", **{name: str(value) for name, value in query.items()}, **page})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert set(body) == {"data", "next_page"}
        found += body["data"]
        if body["next_page"] is None:
            return found
        page = {"page": body["next_page"]}


def the_entry(http: httpx2.Client, **query: object) -> Entry:
    """The only entry that fulfils the filters."""
    (entry,) = entries(http, **query)
    return entry


def lines(text: str) -> list[Entry]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="session")
def me(server: Server, client: anthropic.Anthropic) -> dict[str, str]:
    """The actor behind `client` and `http`."""
    store = client.beta.memory_stores.create(name="who am I")
    made = client.beta.memory_stores.memories.create(store.id, path="/a", content="x")
    version = client.beta.memory_stores.memory_versions.retrieve(made.memory_version_id, memory_store_id=store.id)
    client.beta.memory_stores.delete(store.id)
    assert version.created_by is not None
    return version.created_by.to_dict()  # type: ignore[return-value]


def test_an_entry_has_its_shape(http: httpx2.Client, client: anthropic.Anthropic, me: dict[str, str]) -> None:
    raw = client.beta.memory_stores.with_raw_response.create(name="audited")
    store = raw.parse()
    entry = the_entry(http, subject=store.id)
    assert set(entry) == ENTRY_KEYS
    assert entry["type"] == "audit_entry"
    assert isinstance(entry["seq"], int)
    assert is_timestamp(entry["at"])
    assert entry["workspace_id"] == raw.headers["anthropic-workspace-id"]
    assert entry["actor"] == me
    assert (entry["action"], entry["subject"], entry["detail"]) == ("store.created", store.id, {})
    assert entry["request_id"] == raw.headers["request-id"]
    assert is_id(entry["request_id"], REQUEST_ID)
    assert SHA256.fullmatch(entry["sha256"])
    client.beta.memory_stores.delete(store.id)


def test_a_stores_life_is_told(http: httpx2.Client, client: anthropic.Anthropic, me: dict[str, str]) -> None:
    stores = client.beta.memory_stores
    store = stores.create(name="a")
    stores.update(store.id, name="b")
    stores.update(store.id, name="b")  # changes nothing
    http.post(f"/v1/memory_stores/{store.id}/hold", json={"reason": "Case 17"})
    http.post(f"/v1/memory_stores/{store.id}/hold", json={})  # changes nothing
    http.delete(f"/v1/memory_stores/{store.id}/hold")
    stores.archive(store.id)
    stores.archive(store.id)  # changes nothing
    stores.delete(store.id)
    told = entries(http, subject=store.id)
    assert [entry["action"] for entry in told] == [
        f"store.{act}" for act in ("created", "updated", "held", "released", "archived", "deleted")
    ]
    assert all(entry["actor"] == me for entry in told)
    assert "Case 17" not in json.dumps(told)


def test_a_redaction_is_told_once(
    http: httpx2.Client, client: anthropic.Anthropic, sample: Sample, me: dict[str, str]
) -> None:
    versions = client.beta.memory_stores.memory_versions
    versions.redact(sample.version, memory_store_id=sample.store)
    versions.redact(sample.version, memory_store_id=sample.store)
    entry = the_entry(http, subject=sample.version)
    assert (entry["action"], entry["actor"]) == ("version.redacted", me)
    assert entry["detail"] == {"memory_store_id": sample.store}


def test_sessions_and_their_tokens_are_told(
    http: httpx2.Client, client: anthropic.Anthropic, open_session: SessionMaker, store: Store, me: dict[str, str]
) -> None:
    session = open_session(store.id)
    token = open_session.token(session.id)
    token_url = f"/v1/sessions/{session.id}/tokens/{token['id']}"
    http.delete(token_url)
    http.delete(token_url)  # changes nothing
    client.beta.sessions.update(session.id, title="Named")
    client.beta.sessions.update(session.id, title="Named")  # changes nothing
    client.beta.sessions.archive(session.id)
    client.beta.sessions.archive(session.id)  # changes nothing
    client.beta.sessions.delete(session.id)

    told = entries(http, subject=session.id)
    assert [entry["action"] for entry in told] == [
        f"session.{act}" for act in ("created", "updated", "archived", "deleted")
    ]
    tokens = entries(http, subject=token["id"])
    assert [entry["action"] for entry in tokens] == ["session_token.created", "session_token.revoked"]
    assert all(entry["detail"] == {"session_id": session.id} for entry in tokens)
    assert all(entry["actor"] == me for entry in (*told, *tokens))
    assert token["token"] not in json.dumps(tokens)


def test_agents_and_environments_are_told(http: httpx2.Client, client: anthropic.Anthropic, me: dict[str, str]) -> None:
    agent = client.beta.agents.create(name="Told", model="claude-opus-5-5")
    client.beta.agents.update(agent.id, version=1, name="Renamed")
    client.beta.agents.archive(agent.id)
    environment = client.beta.environments.create(name=f"told {agent.id}", config={"type": "cloud"})
    client.beta.environments.update(environment.id, description="changed")
    client.beta.environments.archive(environment.id)
    client.beta.environments.delete(environment.id)
    told = [*entries(http, subject=agent.id), *entries(http, subject=environment.id)]
    assert [entry["action"] for entry in told] == [
        "agent.created", "agent.updated", "agent.archived",
        "environment.created", "environment.updated", "environment.archived", "environment.deleted",
    ]  # fmt: skip
    assert all(entry["actor"] == me for entry in told)


def test_what_commands_do_is_told_with_the_person_as_author(
    server: Server, open_session: SessionMaker, http: httpx2.Client, store: Store, tmp_path: Path
) -> None:
    workspace = f"told {store.id}"
    key = make_key(server, workspace)
    server.cli("keys", "revoke", key.id)
    server.cli("keys", "revoke", key.id)  # changes nothing
    session = open_session(store.id)
    server.cli("sessions", "token", session.id)
    server.cli("hold", store.id)
    server.cli("hold", store.id, "--release")

    made = lines(server.cli("audit", "list", "--subject", key.workspace_id, "--json").stdout)
    told = lines(server.cli("audit", "list", "--subject", key.id, "--json").stdout)
    held = [entry for entry in entries(http, subject=store.id) if entry["action"] in ("store.held", "store.released")]
    (token,) = [
        entry
        for entry in entries(http, action="session_token.created")
        if entry["detail"] == {"session_id": session.id}
    ]
    assert [entry["action"] for entry in (*made, *told)] == ["workspace.created", "key.created", "key.revoked"]
    assert [entry["workspace_id"] for entry in (*made, *told)] == [key.workspace_id] * 3
    assert len(held) == 2
    for entry in (*made, *told, *held, token):
        assert entry["actor"]["type"] == "user_actor"
        assert entry["actor"]["user_id"].startswith("cli:")
        assert entry["request_id"] is None


def test_an_act_that_is_refused_leaves_no_entry(http: httpx2.Client, store: Store) -> None:
    assert http.post(f"/v1/memory_stores/{store.id}", json={"name": ""}).status_code == 400
    assert http.delete("/v1/memory_stores/memstore_nowhere").status_code == 404
    assert [entry["action"] for entry in entries(http, subject=store.id)] == ["store.created"]
    assert entries(http, subject="memstore_nowhere") == []


def test_a_workspace_sees_its_own_entries_only(
    http: httpx2.Client, guest: anthropic.Anthropic, guest_key: Credential, store: Store
) -> None:
    theirs = guest.beta.memory_stores.create(name="theirs")
    assert entries(http, subject=theirs.id) == []
    with bare_http_of(guest) as other:
        assert entries(other, subject=store.id) == []
        assert len(entries(other, subject=theirs.id)) == 1
        assert {entry["workspace_id"] for entry in entries(other)} == {guest_key.workspace_id}
        exported = lines(other.get(f"{AUDIT}/export").text)
        assert {entry["workspace_id"] for entry in exported} == {guest_key.workspace_id}
    guest.beta.memory_stores.delete(theirs.id)


def bare_http_of(client: anthropic.Anthropic) -> httpx2.Client:
    return httpx2.Client(base_url=str(client.base_url), headers={"x-api-key": client.api_key or ""}, trust_env=False)


def test_a_sessions_token_can_not_read_it(open_session: SessionMaker, store: Store, server: Server) -> None:
    token = open_session.token(open_session(store.id).id)["token"]
    with bare_http(server, authorization=f"Bearer {token}") as agent:
        assert agent.get(AUDIT).status_code == 403
        assert agent.get(f"{AUDIT}/export").status_code == 403


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=101", "page=page_x", "who=me", "action="])
def test_a_bad_query_is_refused(http: httpx2.Client, query: str) -> None:
    expected = 200 if query == "action=" else 400
    assert http.get(f"{AUDIT}?{query}").status_code == expected


def test_a_cursor_is_good_for_its_own_filters_only(http: httpx2.Client, store: Store, sample: Sample) -> None:
    page = http.get(AUDIT, params={"limit": 1}).json()["next_page"]
    assert http.get(AUDIT, params={"limit": 1, "page": page, "action": "store.created"}).status_code == 400


# With a server of its own, whose log nobody else writes to


@pytest.fixture(scope="module")
def own(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(backend.environment(tmp_path_factory.mktemp("audited"))) as server:
        yield server


def test_pages_filters_and_after_agree(own: Server) -> None:
    with own.http() as http, own.client() as client:
        made = [client.beta.memory_stores.create(name=f"paged {number}").id for number in range(5)]
        for store_id in made:
            client.beta.memory_stores.delete(store_id)
        whole = entries(http)
        assert [entry["seq"] for entry in whole] == sorted({entry["seq"] for entry in whole})
        assert entries(http, limit=3) == whole
        deleted = entries(http, action="store.deleted", limit=2)
        assert deleted == [entry for entry in whole if entry["action"] == "store.deleted"]
        assert {entry["subject"] for entry in deleted} >= set(made)
        middle = whole[len(whole) // 2]
        assert entries(http, after=middle["seq"]) == [entry for entry in whole if entry["seq"] > middle["seq"]]
        since = entries(http, **{"created_at[gte]": middle["at"], "limit": 2})
        assert since == [entry for entry in whole if entry["at"] >= middle["at"]]
        until = entries(http, **{"created_at[lte]": middle["at"]})
        assert until == [entry for entry in whole if entry["at"] <= middle["at"]]
        assert entries(http, action="never.done") == entries(http, subject="ä") == []


def test_an_export_has_every_entry_as_a_line(own: Server) -> None:
    with own.http() as http, own.client() as client:
        store = client.beta.memory_stores.create(name="exported")
        response = http.get(f"{AUDIT}/export")
        assert response.headers["content-type"] == "application/x-ndjson"
        assert lines(response.text) == entries(http)
        narrow = http.get(f"{AUDIT}/export", params={"subject": store.id})
        assert lines(narrow.text) == entries(http, subject=store.id)


def exported(server: Server) -> list[Entry]:
    return lines(server.cli("audit", "export").stdout)


def test_who_has_an_exported_file_can_check_it(own: Server, tmp_path: Path) -> None:
    with own.http() as http:
        http.post("/v1/memory_stores", json={"name": "exported"})
    own.cli("audit", "export", "--output", str(tmp_path / "log.jsonl"))
    told = lines((tmp_path / "log.jsonl").read_text())
    assert told == exported(own)
    previous = bytes(32)
    for number, entry in enumerate(told, start=1):
        assert entry["seq"] == number
        previous = hashlib.sha256(previous + covered(entry)).digest()
        assert entry["sha256"] == previous.hex()


def covered(entry: Entry) -> bytes:
    """What a digest covers, as docs/reference/audit.md has it."""
    actor = entry["actor"] or {}
    row = {
        "seq": entry["seq"],
        "at": microseconds(entry["at"]),
        "workspace_id": entry["workspace_id"],
        "actor_type": actor.get("type"),
        "actor_id": next((value for name, value in actor.items() if name != "type"), None),
        "action": entry["action"],
        "subject": entry["subject"],
        "detail": compact(entry["detail"]),
        "request_id": entry["request_id"],
    }
    return compact(row).encode()


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def microseconds(moment: str) -> int:
    return (datetime.fromisoformat(moment) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_verify_prints_the_end_to_note_and_checks_against_one(own: Server) -> None:
    last = exported(own)[-1]
    head = f"{last['seq']}:{last['sha256']}"
    assert own.cli("audit", "verify").stdout == f"{last['seq']:,} entries, each as it was written\nhead {head}\n"
    assert json.loads(own.cli("audit", "verify", "--expect", head, "--json").stdout) == {
        "ok": True,
        "bad_seq": None,
        "fault": None,
        "head": {"seq": last["seq"], "sha256": last["sha256"]},
    }
    other = own.cli("audit", "verify", "--expect", f"{last['seq']}:{'0' * 64}", check=False)
    assert other.returncode == 1
    assert other.stdout.startswith(f"entry {last['seq']} is not what was written there")
    beyond = own.cli("audit", "verify", "--expect", f"{last['seq'] + 9}:{'0' * 64}", check=False)
    assert beyond.returncode == 1
    assert beyond.stdout.startswith(f"entry {last['seq'] + 1} is missing")
    nonsense = own.cli("audit", "verify", "--expect", "12", check=False)
    assert nonsense.returncode == 2
    assert "SEQ:SHA256" in nonsense.stderr


def test_the_list_is_for_people(own: Server) -> None:
    first = own.cli("audit", "list").stdout.splitlines()[0]
    assert "workspace.created" in first
    assert own.cli("audit", "list", "--since", "2999-01-01T00:00:00Z").stdout == ""
    assert own.cli("audit", "list", "--since", "soon", check=False).returncode == 2


def test_refused_attempts_are_told_without_what_was_sent(own: Server) -> None:
    start = len(exported(own))
    with own.http() as http:
        store = http.post("/v1/memory_stores", json={"name": "held"}).json()["id"]
        memory = http.post(f"/v1/memory_stores/{store}/memories", json={"path": "/secret-path", "content": "x"}).json()
        http.post(f"/v1/memory_stores/{store}/hold", json={})
        assert http.delete(f"/v1/memory_stores/{store}/memories/{memory['id']}").status_code == 400
        agent = http.post("/v1/agents", json={"name": "A", "model": "claude-opus-5-5"}).json()["id"]
        environment = http.post("/v1/environments", json={"name": "E", "config": {"type": "cloud"}}).json()["id"]
        session = http.post("/v1/sessions", json={"agent": agent, "environment_id": environment}).json()["id"]
        token = http.post(f"/v1/sessions/{session}/tokens", json={}).json()["token"]
        assert http.get("/v1/memory_stores/memstore_nowhere").status_code == 404  # no attempt at what is forbidden
    with bare_http(own, authorization=f"Bearer {token}") as intruder:
        assert intruder.get("/v1/agents").status_code == 403
    with bare_http(own, x_api_key="wrong-secret") as stranger:
        for _ in range(20):
            assert stranger.get(f"/v1/memory_stores/{store}").status_code == 401
        assert stranger.get("/v1/made-up-path").status_code == 401
        assert stranger.request("PATCH", "/v1/memory_stores").status_code == 401
    assert own.stop() in (0, -15)
    own.start()

    told = exported(own)
    refused = [entry for entry in told[start:] if entry["action"].startswith("request.")]
    text = json.dumps(refused)
    for sent in ("wrong-secret", token, "made-up", "PATCH", "secret-path", store, memory["id"]):
        assert sent not in text
    found = {
        (
            entry["detail"]["route"],
            entry["detail"]["status"],
            entry["detail"]["code"],
            (entry["actor"] or {}).get("type"),
        )
        for entry in refused
    }
    assert found == {
        ("DELETE /v1/memory_stores/{memory_store_id}/memories/{memory_id}", 400, "legal_hold", "api_actor"),
        ("GET /v1/agents", 403, None, "session_actor"),
        ("GET /v1/memory_stores/{memory_store_id}", 401, None, None),
        (None, 401, None, None),
    }
    strangers = sum(entry["detail"]["count"] for entry in refused if entry["detail"]["status"] == 401)
    assert strangers == 22
    assert len(refused) <= 8
    assert own.cli("audit", "verify").returncode == 0

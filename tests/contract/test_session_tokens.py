"""A session's token: what its agent may do with it, how it ends, and that the SDK's own worker parts run with it."""

import asyncio
import datetime
import hashlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.lib.tools._memories import SessionMemoryStores
from anthropic.lib.tools.agent_toolset import AgentToolContext, beta_agent_toolset_20260401
from anthropic.types.beta import BetaManagedAgentsSession as Session

from app.contract import ids
from tests.contract.conftest import SessionMaker, bare_http
from tests.contract.routes import Sample
from tests.contract.shapes import check_refusal, is_id, is_timestamp, refused
from tests.storage.outside import Rows
from tests.support.servers import Server

DEAD_WITHIN_SECONDS = 5.0

_STORE = "/v1/memory_stores/{memory_store_id}"
READ = {
    f"GET {_STORE}",
    f"GET {_STORE}/changes",
    f"GET {_STORE}/snapshot",
    f"GET {_STORE}/memories",
    f"GET {_STORE}/memories/{{memory_id}}",
    f"HEAD {_STORE}/memories/{{memory_id}}",
    f"GET {_STORE}/memory_versions",
    f"GET {_STORE}/memory_versions/{{memory_version_id}}",
    f"GET {_STORE}/comparisons",
    f"GET {_STORE}/as_of/memories",
    f"GET {_STORE}/as_of/memories/{{memory_id}}",
    f"GET {_STORE}/memories/{{memory_id}}/blame",
}
WRITE = {
    f"POST {_STORE}/memories",
    f"POST {_STORE}/memories/{{memory_id}}",
    f"DELETE {_STORE}/memories/{{memory_id}}",
    f"POST {_STORE}/moves",
    f"POST {_STORE}/memory_versions/{{memory_version_id}}/restore",
}
OWN_SESSION = {
    "GET /v1/sessions/{session_id}",
    "GET /v1/sessions/{session_id}/resources",
    "GET /v1/sessions/{session_id}/resources/{resource_id}",
    "GET /v1/sessions/{session_id}/memory_prompt",
}
HIDDEN = {"POST /v1/sessions/{session_id}/resources"}
"""Routes that the OpenAPI document does not tell of."""


@dataclass(frozen=True)
class Agent:
    """A session with two stores attached, one of them to be read only; and what a caller with its token sees."""

    session: Session
    token: dict[str, Any]
    http: httpx2.Client
    writable: Sample
    readable: Sample


@pytest.fixture
def agent(open_session: SessionMaker, server: Server, client: anthropic.Anthropic) -> Iterator[Agent]:
    def sample(name: str) -> Sample:
        store = client.beta.memory_stores.create(name=name).id
        memory = client.beta.memory_stores.memories.create(store, path="/notes/today.md", content="first")
        client.beta.memory_stores.memories.update(memory.id, memory_store_id=store, content="second")
        return Sample(store, memory.id, memory.memory_version_id)

    writable, readable = sample("Notes"), sample("Rules")
    read_only = {"type": "memory_store", "memory_store_id": readable.store, "access": "read_only"}
    session = open_session(writable.store, read_only)
    token = open_session.token(session.id)
    with bare_http(server, authorization=f"Bearer {token['token']}") as http:
        yield Agent(session, token, http, writable, readable)
    for each in (writable, readable):
        client.beta.memory_stores.delete(each.store)


def memories_of(client: anthropic.Anthropic, store_id: str) -> list[Any]:
    return list(client.beta.memory_stores.memories.list(store_id, view="full"))


def until_refused(call: Callable[[], httpx2.Response]) -> dict[str, Any]:
    """The refusal that a credential must get within 5 seconds."""
    deadline = time.monotonic() + DEAD_WITHIN_SECONDS
    pause = threading.Event()
    for _ in itertools.count():
        asked_at = time.monotonic()
        response = call()
        if response.status_code != 200:
            return check_refusal(response, 401)
        assert asked_at < deadline, "the token was accepted 5 seconds after its end"
        pause.wait(0.05)
    raise AssertionError


# What it is


def test_a_token_is_shown_once_with_its_secret(open_session: SessionMaker, http: httpx2.Client) -> None:
    session = open_session()
    made = open_session.token(session.id)
    assert set(made) == {"type", "id", "session_id", "token", "created_at", "expires_at", "revoked_at"}
    assert (made["type"], made["session_id"], made["revoked_at"]) == ("session_token", session.id, None)
    assert is_id(made["id"], "stok")
    assert re.fullmatch(r"mst_[A-Za-z0-9_-]{43}", made["token"])
    assert is_timestamp(made["created_at"])
    assert is_timestamp(made["expires_at"])

    listed = http.get(f"/v1/sessions/{session.id}/tokens").json()
    assert listed == {"data": [{name: made[name] for name in made if name != "token"}], "next_page": None}


@pytest.mark.parametrize(("body", "seconds"), [({}, 86_400), ({"expires_in_seconds": 60}, 60)])
def test_a_token_lives_as_long_as_was_asked(open_session: SessionMaker, body: dict[str, int], seconds: int) -> None:
    made = open_session.token(open_session().id, **body)
    created, expires = (datetime.datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    assert expires - created == datetime.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "body",
    [{"expires_in_seconds": value} for value in (59, 604_801, 0, -1, "60", 60.5, None, True, 10**30)] + [{"ttl": 60}],
    ids=str,
)
def test_a_life_that_is_out_of_range_is_400(open_session: SessionMaker, http: httpx2.Client, body: Any) -> None:
    check_refusal(http.post(f"/v1/sessions/{open_session().id}/tokens", json=body), 400)


def test_tokens_are_listed_newest_first_in_pages(open_session: SessionMaker, http: httpx2.Client) -> None:
    session, other = open_session(), open_session()
    made = [open_session.token(session.id)["id"] for _ in range(3)]
    open_session.token(other.id)
    url = f"/v1/sessions/{session.id}/tokens"
    first = http.get(url, params={"limit": 2}).json()
    second = http.get(url, params={"limit": 2, "page": first["next_page"]}).json()
    assert [token["id"] for token in first["data"] + second["data"]] == made[::-1]
    assert second["next_page"] is None
    check_refusal(http.get(f"/v1/sessions/{other.id}/tokens", params={"page": first["next_page"]}), 400)


def test_only_the_digest_of_a_token_is_stored(open_session: SessionMaker, server: Server) -> None:
    made = open_session.token(open_session().id)
    rows = Rows(server.environment)
    ((stored,),) = rows.execute(f"SELECT {rows.hex('secret_sha256')} FROM session_tokens WHERE id = '{made['id']}'")
    assert stored == hashlib.sha256(made["token"].encode()).hexdigest()


def test_a_token_is_never_logged(agent: Agent, server: Server) -> None:
    assert agent.http.get(f"/v1/sessions/{agent.session.id}").status_code == 200
    check_refusal(agent.http.post("/v1/memory_stores", content=b"{"), 403)
    assert agent.token["token"] not in server.log.read_text()


@pytest.mark.parametrize("secret", ["mst_", "mst_" + "x" * 43])
def test_an_invented_token_is_401(server: Server, secret: str) -> None:
    with bare_http(server, x_api_key=secret) as stranger:
        check_refusal(stranger.get("/v1/sessions"), 401)


def test_a_token_goes_in_either_header_and_names_its_workspace(agent: Agent, server: Server) -> None:
    url = f"/v1/sessions/{agent.session.id}"
    answer = agent.http.get(url)
    assert answer.status_code == 200
    workspace = answer.headers["anthropic-workspace-id"]
    assert is_id(workspace, "wrkspc")
    with bare_http(server, x_api_key=agent.token["token"], anthropic_workspace_id=workspace) as same:
        assert same.get(url).status_code == 200


# What it may do


def parameters(agent: Agent, sample: Sample) -> dict[str, str]:
    """An existing thing for each parameter of a path."""
    return {
        "memory_store_id": sample.store,
        "memory_id": sample.memory,
        "memory_version_id": sample.version,
        "session_id": agent.session.id,
        "resource_id": sample.store,
        "erasure_id": sample.store,
        "token_id": agent.token["id"],
        "agent_id": agent.session.agent.id,
        "environment_id": agent.session.environment_id,
    }


BODIES = {
    f"POST {_STORE}/memories": {"path": "/new.md", "content": "new"},
    f"POST {_STORE}/memories/{{memory_id}}": {"content": "changed"},
    f"POST {_STORE}/moves": {"from": "/notes/", "to": "/moved/"},
}
QUERIES = {
    f"GET {_STORE}/comparisons": "?to={memory_version_id}",
    f"GET {_STORE}/as_of/memories": "?seq=1",
    f"GET {_STORE}/as_of/memories/{{memory_id}}": "?seq=1",
}


def operations(http: httpx2.Client) -> set[str]:
    """Every operation of the API, as `METHOD /path/{parameter}`."""
    document = http.get("/openapi.json").json()
    told = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    return {operation for operation in told if " /v1/" in operation} | HIDDEN


def ask(agent: Agent, operation: str, sample: Sample) -> httpx2.Response:
    """Call an operation with the session's token, so that it would succeed if it were allowed."""
    method, template = operation.split(" ")
    target = (template + QUERIES.get(operation, "")).format(**parameters(agent, sample))
    return agent.http.request(method, target, json=BODIES.get(operation))


def in_safe_order(allowed: set[str]) -> list[str]:
    """Deletions last: what they remove is needed before."""
    return sorted(allowed, key=lambda operation: (operation.startswith("DELETE"), operation))


def test_every_route_but_these_is_closed(agent: Agent, http: httpx2.Client, client: anthropic.Anthropic) -> None:
    every = operations(http)
    assert every >= READ | WRITE | OWN_SESSION
    closed = every - READ - WRITE - OWN_SESSION
    assert len(closed) > 20
    before = memories_of(client, agent.writable.store)
    for operation in sorted(closed):
        error = check_refusal(ask(agent, operation, agent.writable), 403, "permission_error")
        assert "session token" in error["message"], operation
    assert memories_of(client, agent.writable.store) == before
    assert client.beta.sessions.retrieve(agent.session.id).status == "idle"


def test_a_store_attached_to_be_written_is_read_and_written(agent: Agent, http: httpx2.Client) -> None:
    for operation in in_safe_order(READ | WRITE | OWN_SESSION):
        answer = ask(agent, operation, agent.writable)
        assert answer.status_code == 200, (operation, answer.text)


def test_a_store_attached_to_be_read_is_read_and_never_written(agent: Agent, client: anthropic.Anthropic) -> None:
    before = memories_of(client, agent.readable.store)
    for operation in sorted(READ | OWN_SESSION):
        answer = ask(agent, operation, agent.readable)
        assert answer.status_code == 200, (operation, answer.text)
    for operation in sorted(WRITE):
        error = check_refusal(ask(agent, operation, agent.readable), 403, "permission_error")
        assert "read_only" in error["message"]
    assert memories_of(client, agent.readable.store) == before


def test_any_other_store_is_404(agent: Agent, sample: Sample, guest: anthropic.Anthropic) -> None:
    foreign = guest.beta.memory_stores.create(name="theirs").id
    unknown = ids.new(ids.STORE)
    for store_id in (sample.store, foreign, unknown):
        other = Sample(store_id, sample.memory, sample.version)
        for operation in sorted(READ | WRITE):
            answer = ask(agent, operation, other)
            if operation.startswith("HEAD"):
                assert answer.status_code == 404
            else:
                check_refusal(answer, 404)


def test_a_memory_is_not_reached_through_a_store_that_does_not_hold_it(agent: Agent, sample: Sample) -> None:
    mixed = Sample(agent.writable.store, sample.memory, sample.version)
    for operation in sorted(READ | WRITE):
        if "{memory_id}" in operation or "{memory_version_id}" in operation:
            assert ask(agent, operation, mixed).status_code == 404


def test_any_other_session_is_404(agent: Agent, open_session: SessionMaker) -> None:
    other = open_session(agent.writable.store)
    for operation in sorted(OWN_SESSION):
        _, template = operation.split(" ")
        path = template.format(session_id=other.id, resource_id=agent.writable.store)
        check_refusal(agent.http.get(path), 404)


def test_an_unknown_path_or_method_is_told_as_to_anybody(agent: Agent) -> None:
    check_refusal(agent.http.get("/v1/nothing"), 404)
    check_refusal(agent.http.put(f"/v1/memory_stores/{agent.writable.store}"), 405)


def test_what_it_writes_is_the_sessions(agent: Agent, client: anthropic.Anthropic) -> None:
    store, memory = agent.writable.store, agent.writable.memory
    with_body = [
        ("POST", f"/v1/memory_stores/{store}/memories", {"path": "/new.md", "content": "new"}),
        ("POST", f"/v1/memory_stores/{store}/memories/{memory}", {"content": "third"}),
        ("POST", f"/v1/memory_stores/{store}/memories/{memory}", {"path": "/renamed.md"}),
        ("POST", f"/v1/memory_stores/{store}/memories/{memory}", {"content": "fourth", "path": "/both.md"}),
    ]
    for method, path, body in with_body:
        assert agent.http.request(method, path, json=body).status_code == 200
    assert agent.http.delete(f"/v1/memory_stores/{store}/memories/{memory}").status_code == 200

    versions = client.beta.memory_stores.memory_versions
    written = list(versions.list(store, session_id=agent.session.id))
    assert [version.operation for version in written] == ["deleted", "modified", "modified", "modified", "created"]
    for version in written:
        assert version.created_by is not None
        assert version.created_by.model_dump() == {"type": "session_actor", "session_id": agent.session.id}
    assert len(list(versions.list(store))) == len(written) + 2  # the fixture's own


def test_an_archived_store_can_be_cleared_and_not_written(agent: Agent, client: anthropic.Anthropic) -> None:
    client.beta.memory_stores.archive(agent.writable.store)
    memories = f"/v1/memory_stores/{agent.writable.store}/memories"
    check_refusal(agent.http.post(memories, json={"path": "/new.md", "content": ""}), 400)
    assert agent.http.delete(f"{memories}/{agent.writable.memory}").status_code == 200


def test_a_deleted_store_is_404(agent: Agent, client: anthropic.Anthropic, open_session: SessionMaker) -> None:
    store = client.beta.memory_stores.create(name="to go").id
    session = open_session(store)
    with open_session.sign_in(session.id) as own:
        own.beta.memory_stores.memories.create(store, path="/a", content="")
        client.beta.memory_stores.delete(store)
        with refused(404):
            own.beta.memory_stores.memories.list(store)
        assert own.beta.sessions.retrieve(session.id).resources == session.resources


# How it ends


@pytest.mark.any_backend
def test_a_revoked_token_dies_within_five_seconds(
    agent: Agent, http: httpx2.Client, open_session: SessionMaker
) -> None:
    own = f"/v1/sessions/{agent.session.id}"
    token = f"{own}/tokens/{agent.token['id']}"
    assert agent.http.get(own).status_code == 200
    other = open_session.token(agent.session.id)

    gone = http.delete(token)
    assert gone.json() == {"id": agent.token["id"], "type": "session_token_deleted"}
    error = until_refused(lambda: agent.http.get(own))
    assert "session token" in error["message"]

    listed = {each["id"]: each["revoked_at"] for each in http.get(f"{own}/tokens").json()["data"]}
    assert is_timestamp(listed[agent.token["id"]])
    assert listed[other["id"]] is None
    assert http.delete(token).json() == gone.json()
    assert {each["id"]: each["revoked_at"] for each in http.get(f"{own}/tokens").json()["data"]} == listed
    assert agent.http.get(own, headers={"authorization": f"Bearer {other['token']}"}).status_code == 200


def test_a_token_is_revoked_through_its_own_session_only(
    agent: Agent, http: httpx2.Client, open_session: SessionMaker
) -> None:
    other = open_session()
    check_refusal(http.delete(f"/v1/sessions/{other.id}/tokens/{agent.token['id']}"), 404)
    assert agent.http.get(f"/v1/sessions/{agent.session.id}").status_code == 200


@pytest.mark.any_backend
def test_an_expired_token_is_401(agent: Agent, server: Server) -> None:
    own = f"/v1/sessions/{agent.session.id}"
    assert agent.http.get(own).status_code == 200
    Rows(server.environment).execute(f"UPDATE session_tokens SET expires_at = 1 WHERE id = '{agent.token['id']}'")
    until_refused(lambda: agent.http.get(own))


@pytest.mark.any_backend
@pytest.mark.parametrize("end", ["archive", "delete"])
def test_a_token_ends_with_its_session(
    agent: Agent, client: anthropic.Anthropic, http: httpx2.Client, end: str
) -> None:
    memories = f"/v1/memory_stores/{agent.writable.store}/memories"
    assert agent.http.get(memories).status_code == 200
    getattr(client.beta.sessions, end)(agent.session.id)
    until_refused(lambda: agent.http.get(memories))
    status = 400 if end == "archive" else 404
    check_refusal(http.post(f"/v1/sessions/{agent.session.id}/tokens"), status)


# The command line


def test_the_command_makes_a_token(agent: Agent, server: Server) -> None:
    made = json.loads(server.cli("sessions", "token", agent.session.id, "--expires-in", "60", "--json").stdout)
    assert set(made) == {"token", "expires_at"}
    with bare_http(server, x_api_key=made["token"]) as own:
        assert own.get(f"/v1/sessions/{agent.session.id}").status_code == 200
        check_refusal(own.get("/v1/sessions"), 403)
    printed = server.cli("sessions", "token", agent.session.id).stdout
    assert re.search(r"^token +mst_\S{43}$", printed, re.MULTILINE)


def test_the_command_says_why_there_is_no_token(agent: Agent, server: Server, client: anthropic.Anthropic) -> None:
    unknown = server.cli("sessions", "token", "sesn_unknown", check=False)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "'sesn_unknown' was not found" in unknown.stderr
    assert server.cli("sessions", "token", agent.session.id, "--expires-in", "59", check=False).returncode == 2
    client.beta.sessions.archive(agent.session.id)
    ended = server.cli("sessions", "token", agent.session.id, "--json", check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "archived" in ended.stderr


def test_the_command_lists_the_sessions_of_every_workspace(
    open_session: SessionMaker, server: Server, guest: anthropic.Anthropic, client: anthropic.Anthropic
) -> None:
    agent = guest.beta.agents.create(name="Guest", model="claude-opus-5-5")
    environment = guest.beta.environments.create(name=f"of {agent.id}", config={"type": "cloud"})
    theirs = guest.beta.sessions.create(agent=agent.id, environment_id=environment.id, title="theirs")
    mine = client.beta.sessions.archive(open_session(title="mine").id)
    listed = {each["id"]: each for each in json.loads(server.cli("sessions", "list", "--json").stdout)}
    assert (listed[theirs.id]["workspace"], listed[theirs.id]["title"]) == ("guests", "theirs")
    assert (listed[mine.id]["workspace"], listed[mine.id]["title"]) == ("default", "mine")
    assert listed[theirs.id]["archived_at"] is None
    assert is_timestamp(listed[mine.id]["archived_at"])
    (line,) = (line for line in server.cli("sessions", "list").stdout.splitlines() if line.startswith(theirs.id))
    assert {"idle", "guests", "theirs"} <= set(line.split())


# The SDK's own worker


def moved_below(session: Session, directory: Path) -> Session:
    """The session with its stores to be opened below a directory of the test, not in the host's /mnt/memory."""
    moved = session.model_copy(deep=True)
    for resource in moved.resources:
        assert resource.type == "memory_store"
        assert resource.mount_path is not None
        resource.mount_path = f"{directory}{resource.mount_path}"
    return moved


def test_the_sdks_memory_stores_and_toolset_run_with_a_token(
    agent: Agent, server: Server, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    memories = client.beta.memory_stores.memories
    doomed = memories.create(agent.writable.store, path="/doomed.md", content="to be deleted")
    memories.create(agent.writable.store, path="/deep/er/kept.md", content="to be kept")
    rules_before = memories_of(client, agent.readable.store)
    read_only_refusals: list[str] = []

    async def work() -> None:
        options: dict[str, Any] = {"api_key": agent.token["token"], "base_url": server.base_url}
        async with anthropic.AsyncAnthropic(**options) as worker:
            session = moved_below(await worker.beta.sessions.retrieve(agent.session.id), tmp_path)
            stores = SessionMemoryStores(worker, workdir=tmp_path)
            await stores.download(session)
            notes, rules = stores.roots
            assert (notes / "notes" / "today.md").read_text() == "second"
            assert (notes / "deep" / "er" / "kept.md").read_text() == "to be kept"
            assert (rules / "notes" / "today.md").read_text() == "second"
            async with AgentToolContext(
                workdir=tmp_path,
                client=worker,
                session=session,
                allowed_roots=stores.roots,
                read_only_roots=stores.read_only_roots,
            ) as context:
                tools = {tool.name: tool for tool in beta_agent_toolset_20260401(context)}
                await tools["write"].call({"file_path": str(notes / "made.md"), "content": "by the write tool"})
                await tools["edit"].call(
                    {"file_path": str(notes / "notes" / "today.md"), "old_string": "second", "new_string": "third"}
                )
                await tools["bash"].call({"command": f"rm {notes}/doomed.md; echo more > {notes}/deep/er/more.md"})
                assert "third" in str(await tools["grep"].call({"pattern": "third", "path": str(notes)}))
                try:
                    await tools["write"].call({"file_path": str(rules / "mine.md"), "content": "not to be"})
                except Exception as error:
                    read_only_refusals.append(str(error))
                await tools["bash"].call({"command": f"echo spoiled > {rules}/notes/today.md"})
            await stores.flush_writes()
            memories.create(agent.writable.store, path="/meanwhile.md", content="by somebody else")
            await stores.finish()
            assert (notes / "meanwhile.md").read_text() == "by somebody else"
            await stores.dispose()

    asyncio.run(work())
    assert read_only_refusals
    assert "read-only" in read_only_refusals[0]

    contents = {memory.path: memory.content for memory in memories_of(client, agent.writable.store)}
    assert contents == {
        "/deep/er/kept.md": "to be kept",
        "/deep/er/more.md": "more\n",
        "/made.md": "by the write tool",
        "/meanwhile.md": "by somebody else",
        "/notes/today.md": "third",
    }
    assert memories_of(client, agent.readable.store) == rules_before
    written = list(client.beta.memory_stores.memory_versions.list(agent.writable.store, session_id=agent.session.id))
    assert sorted((version.operation, version.path) for version in written) == [
        ("created", "/deep/er/more.md"),
        ("created", "/made.md"),
        ("deleted", "/doomed.md"),
        ("modified", "/notes/today.md"),
    ]
    assert [version.memory_id for version in written if version.operation == "deleted"] == [doomed.id]

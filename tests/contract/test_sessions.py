"""Sessions: made with an agent, an environment and stores; changed, listed, ended (parts 5.1 and 5.3)."""

import datetime
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta import BetaManagedAgentsSession as Session

from tests.contract.conftest import Credential, SessionMaker, bare_http
from tests.contract.sdk_models import check_exact
from tests.contract.shapes import check_refusal, is_id, refused
from tests.support.servers import Server

SESSIONS = "/v1/sessions"
NO_SESSION = "sesn_011CZkZaBF1tNoB5wlCeusgy"
NO_AGENT = "agent_011CZkZaBF1tNoB5wlCeusgy"
NO_ENVIRONMENT = "env_011CZkZaBF1tNoB5wlCeusgy"


def without_duration(session: Session) -> dict[str, Any]:
    """All that stays the same from one look to the next."""
    return session.model_dump(exclude={"stats"})


def ids_of(sessions: list[Session]) -> list[str]:
    return [session.id for session in sessions]


# Creating


def test_a_new_session_has_the_vendors_shape(open_session: SessionMaker, store: Store) -> None:
    session = open_session(store.id, title="Refund", metadata={"order": "1093"})
    check_exact(session)
    assert is_id(session.id, "sesn")
    assert (session.type, session.status, session.title) == ("session", "idle", "Refund")
    assert session.metadata == {"order": "1093"}
    assert session.environment_id == open_session.environment
    assert session.agent.id == open_session.agent
    assert session.agent.system == "Answer customers."
    assert session.created_at == session.updated_at
    assert session.archived_at is None
    assert [resource.type for resource in session.resources] == ["memory_store"]
    assert session.vault_ids == []
    assert session.outcome_evaluations == []


def test_the_least_session(open_session: SessionMaker, client: anthropic.Anthropic) -> None:
    session = client.beta.sessions.create(agent=open_session.agent, environment_id=open_session.environment)
    check_exact(session)
    assert session.title is None
    assert session.metadata == {}
    assert session.resources == []


def test_a_session_is_retrieved_as_it_was_made(
    open_session: SessionMaker, client: anthropic.Anthropic, store: Store
) -> None:
    made = open_session(store.id, title="x")
    found = client.beta.sessions.retrieve(made.id)
    check_exact(found)
    assert without_duration(found) == without_duration(made)


def test_a_session_keeps_the_version_of_its_agent(open_session: SessionMaker, client: anthropic.Anthropic) -> None:
    agent = client.beta.agents.create(name="Before", model="claude-opus-5-5")
    session = open_session(agent=agent.id)
    client.beta.agents.update(agent.id, version=1, name="After")
    assert client.beta.sessions.retrieve(session.id).agent.name == "Before"

    newest = open_session(agent=agent.id).agent
    assert (newest.version, newest.name) == (2, "After")
    pinned = open_session(agent={"type": "agent", "id": agent.id, "version": 1}).agent
    assert (pinned.version, pinned.name) == (1, "Before")
    assert open_session(agent={"type": "agent", "id": agent.id}).agent.version == 2


def test_an_agent_can_be_overridden_for_one_session(open_session: SessionMaker, client: anthropic.Anthropic) -> None:
    overrides = {
        "model": "claude-haiku-5-5",
        "system": None,
        "tools": [{"type": "agent_toolset_20260401"}],
    }
    session = open_session(agent={"type": "agent_with_overrides", "id": open_session.agent, **overrides})
    check_exact(session)
    assert session.agent.model.id == "claude-haiku-5-5"
    assert session.agent.system is None
    assert [tool.type for tool in session.agent.tools] == ["agent_toolset_20260401"]
    assert session.agent.name == "Support"

    agent = client.beta.agents.retrieve(open_session.agent)
    assert agent.system == "Answer customers."
    assert agent.tools == []


@pytest.mark.parametrize("agent", [NO_AGENT, {"type": "agent", "id": NO_AGENT}, "no ID at all", "\x00", "é"])
def test_an_unknown_agent_is_404(open_session: SessionMaker, agent: Any) -> None:
    with refused(404):
        open_session(agent=agent)


def test_an_unknown_version_of_an_agent_is_404(open_session: SessionMaker) -> None:
    with refused(404):
        open_session(agent={"type": "agent", "id": open_session.agent, "version": 99})


@pytest.mark.parametrize(
    "agent",
    [
        None,
        1,
        {},
        {"id": NO_AGENT},
        {"type": "agent"},
        {"type": "other", "id": NO_AGENT},
        {"type": "agent", "id": NO_AGENT, "version": 0},
        {"type": "agent", "id": NO_AGENT, "version": "1"},
        {"type": "agent", "id": NO_AGENT, "system": "only overrides may"},
        {"type": "agent_with_overrides", "id": NO_AGENT, "name": "can't be overridden"},
    ],
)
def test_what_is_no_reference_to_an_agent_is_400(open_session: SessionMaker, agent: Any) -> None:
    with refused(400) as refusal:
        open_session(agent=agent)
    assert "agent" in refusal.error["message"]


@pytest.mark.parametrize("environment", [NO_ENVIRONMENT, "nothing", "\x00"])
def test_an_unknown_environment_is_404(open_session: SessionMaker, environment: str) -> None:
    with refused(404):
        open_session(environment_id=environment)


def test_an_archived_agent_or_environment_is_400(open_session: SessionMaker, client: anthropic.Anthropic) -> None:
    agent = client.beta.agents.create(name="Old", model="claude-opus-5-5")
    client.beta.agents.archive(agent.id)
    with refused(400) as refusal:
        open_session(agent=agent.id)
    assert "archived" in refusal.error["message"]

    environment = client.beta.environments.create(name=f"Old, for {agent.id}", config={"type": "cloud"})
    client.beta.environments.archive(environment.id)
    with refused(400) as refusal:
        open_session(environment_id=environment.id)
    assert "archived" in refusal.error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "x" * 501},
        {"title": "\x00"},
        {"metadata": {f"key {number}": "" for number in range(17)}},
        {"metadata": {"": "x"}},
        {"metadata": {"x" * 65: "x"}},
        {"metadata": {"x": "x" * 513}},
        {"vault_ids": ["vlt_1"]},
        {"initial_events": [{"type": "user.message", "content": [{"type": "text", "text": "hello"}]}]},
        {"budget": {"type": "limit", "max_list_cost": {"amount": "1", "currency": "USD"}}},
        {"extra_body": {"deployment_id": "depl_1"}},
        {"environment_id": None},
    ],
    ids=str,
)
def test_a_field_that_breaks_its_rule_is_400(open_session: SessionMaker, fields: dict[str, Any]) -> None:
    with refused(400):
        open_session(**fields)


def test_limits_of_a_session_are_met_exactly(open_session: SessionMaker) -> None:
    metadata = {f"{number:064}": "v" * 512 for number in range(16)}
    session = open_session(title="t" * 500, metadata=metadata)
    assert session.title == "t" * 500
    assert session.metadata == metadata


# Updating


def test_an_update_changes_what_it_gives(open_session: SessionMaker, client: anthropic.Anthropic) -> None:
    made = open_session(title="old", metadata={"a": "1", "b": "2"})
    changed = client.beta.sessions.update(made.id, title="new", metadata={"a": None, "c": "3"})
    check_exact(changed)
    assert (changed.title, changed.metadata) == ("new", {"b": "2", "c": "3"})
    assert changed.updated_at > made.updated_at
    assert without_duration(client.beta.sessions.retrieve(made.id)) == without_duration(changed)

    kept = client.beta.sessions.update(made.id, metadata={"b": "2"})
    assert without_duration(kept) == without_duration(changed)
    assert client.beta.sessions.update(made.id, title=None).title is None


def test_an_update_may_change_the_tools_of_the_sessions_own_agent(
    open_session: SessionMaker, client: anthropic.Anthropic
) -> None:
    made = open_session()
    changed = client.beta.sessions.update(made.id, agent={"tools": [{"type": "agent_toolset_20260401"}]})
    check_exact(changed)
    assert [tool.type for tool in changed.agent.tools] == ["agent_toolset_20260401"]
    assert client.beta.agents.retrieve(open_session.agent).tools == []
    assert client.beta.sessions.update(made.id, agent={"mcp_servers": []}).agent.tools == changed.agent.tools
    assert client.beta.sessions.update(made.id, agent={"tools": []}).agent.tools == []


@pytest.mark.parametrize(
    "fields",
    [
        {"vault_ids": ["vlt_1"]},
        {"agent": {"system": "x"}},
        {"title": "x" * 501},
        {"metadata": {"x": "x" * 513}},
        {"extra_body": {"environment_id": NO_ENVIRONMENT}},
        {"extra_body": {"resources": []}},
    ],
    ids=str,
)
def test_an_update_of_anything_else_is_400(
    open_session: SessionMaker, client: anthropic.Anthropic, fields: dict[str, Any]
) -> None:
    session = open_session()
    with refused(400):
        client.beta.sessions.update(session.id, **fields)


# The end


def test_an_archived_session_is_terminated_for_good(open_session: SessionMaker, client: anthropic.Anthropic) -> None:
    session = open_session(title="x")
    ended = client.beta.sessions.archive(session.id)
    check_exact(ended)
    assert ended.status == "terminated"
    assert ended.archived_at == ended.updated_at
    assert ended.archived_at is not None
    assert client.beta.sessions.archive(session.id) == ended
    assert client.beta.sessions.retrieve(session.id) == ended  # the duration stands still too
    with refused(400):
        client.beta.sessions.update(session.id, title="y")


def test_a_deleted_session_is_gone_and_its_stores_are_not(
    open_session: SessionMaker, client: anthropic.Anthropic, store: Store
) -> None:
    session = open_session(store.id)
    open_session.token(session.id)
    with open_session.sign_in(session.id) as agent:
        memory = agent.beta.memory_stores.memories.create(store.id, path="/kept.md", content="kept")

    deleted = client.beta.sessions.delete(session.id)
    check_exact(deleted)
    assert (deleted.id, deleted.type) == (session.id, "session_deleted")
    with refused(404):
        client.beta.sessions.retrieve(session.id)
    with refused(404):
        client.beta.sessions.delete(session.id)
    assert client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id).content == "kept"
    (version,) = client.beta.memory_stores.memory_versions.list(store.id, session_id=session.id).data
    assert version.memory_id == memory.id


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("DELETE", ""),
        ("POST", "/archive"),
        ("GET", "/resources"),
        ("POST", "/resources"),
        ("GET", "/resources/x"),
        ("GET", "/memory_prompt"),
        ("POST", "/tokens"),
        ("GET", "/tokens"),
        ("DELETE", "/tokens/x"),
    ],
)
def test_a_session_of_nobody_or_of_another_workspace_is_404(
    open_session: SessionMaker, server: Server, guest_key: Credential, method: str, path: str
) -> None:
    foreign = open_session()
    body = {"type": "memory_store"} if path == "/resources" else {}
    with bare_http(server, x_api_key=guest_key.secret) as guest:
        for session_id in (NO_SESSION, foreign.id):
            sent = body if method == "POST" else None
            check_refusal(guest.request(method, f"{SESSIONS}/{session_id}{path}", json=sent), 404)


# Listing


@pytest.fixture(scope="module")
def three(open_session: SessionMaker, client: anthropic.Anthropic) -> list[Session]:
    """Sessions of an agent of their own, in the order they were made; the last is archived."""
    agent = client.beta.agents.create(name="Lister", model="claude-opus-5-5")
    made = [open_session(agent=agent.id, title=f"number {number}") for number in range(3)]
    return [*made[:2], client.beta.sessions.archive(made[2].id)]


def listed(client: anthropic.Anthropic, three: list[Session], **filters: Any) -> list[int]:
    """Which of the three a listing has, in its order."""
    order = ids_of(three)
    return [order.index(each.id) for each in client.beta.sessions.list(agent_id=three[0].agent.id, **filters)]


def test_sessions_are_listed_newest_first_without_archived_ones(
    client: anthropic.Anthropic, three: list[Session]
) -> None:
    assert listed(client, three) == [1, 0]
    assert listed(client, three, include_archived=True) == [2, 1, 0]
    assert listed(client, three, order="asc", include_archived=True) == [0, 1, 2]


def test_a_listed_session_is_the_one_that_is_retrieved(client: anthropic.Anthropic, three: list[Session]) -> None:
    page = client.beta.sessions.list(agent_id=three[0].agent.id, include_archived=True)
    for session in page.data:
        check_exact(session)
        assert without_duration(session) == without_duration(client.beta.sessions.retrieve(session.id))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["idle"], [1, 0]),
        (["terminated"], [2]),
        (["idle", "terminated"], [2, 1, 0]),
        (["running", "rescheduling"], []),
        (["running", "idle"], [1, 0]),
    ],
)
def test_sessions_are_listed_by_status(
    client: anthropic.Anthropic, three: list[Session], statuses: list[Any], expected: list[int]
) -> None:
    assert listed(client, three, statuses=statuses, include_archived=True) == expected
    assert listed(client, three, statuses=statuses) == [number for number in expected if number != 2]


def test_sessions_are_listed_by_time(client: anthropic.Anthropic, three: list[Session]) -> None:
    middle = three[1].created_at
    every = {"include_archived": True}
    assert listed(client, three, created_at_gte=middle, **every) == [2, 1]
    assert listed(client, three, created_at_gt=middle, **every) == [2]
    assert listed(client, three, created_at_lte=middle, **every) == [1, 0]
    assert listed(client, three, created_at_lt=middle, **every) == [0]
    assert listed(client, three, created_at_gt=middle - datetime.timedelta(microseconds=1), **every) == [2, 1]
    assert listed(client, three, created_at_gte=middle, created_at_lte=middle, **every) == [1]


def test_sessions_are_listed_by_the_version_of_their_agent(
    open_session: SessionMaker, client: anthropic.Anthropic
) -> None:
    agent = client.beta.agents.create(name="One", model="claude-opus-5-5")
    first = open_session(agent=agent.id)
    client.beta.agents.update(agent.id, version=1, name="Two")
    second = open_session(agent=agent.id)
    sessions = client.beta.sessions
    assert ids_of(sessions.list(agent_id=agent.id).data) == [second.id, first.id]
    assert ids_of(sessions.list(agent_id=agent.id, agent_version=1).data) == [first.id]
    assert ids_of(sessions.list(agent_id=agent.id, agent_version=2).data) == [second.id]
    assert ids_of(sessions.list(agent_id=agent.id, agent_version=3).data) == []
    assert {first.id, second.id} <= set(ids_of(sessions.list(agent_version=3, limit=100).data))  # not without an agent


def test_sessions_are_listed_by_the_stores_they_attach(
    open_session: SessionMaker, client: anthropic.Anthropic, store: Store
) -> None:
    other = client.beta.memory_stores.create(name="other")
    both = open_session(store.id, other.id)
    one = open_session(other.id)
    open_session()
    assert ids_of(client.beta.sessions.list(memory_store_id=store.id).data) == [both.id]
    assert ids_of(client.beta.sessions.list(memory_store_id=other.id).data) == [one.id, both.id]
    client.beta.memory_stores.delete(other.id)
    assert ids_of(client.beta.sessions.list(memory_store_id=other.id).data) == [one.id, both.id]


@pytest.mark.parametrize(
    "filters",
    [
        {"deployment_id": "depl_1"},
        {"memory_store_id": "nothing"},
        {"memory_store_id": "\x00"},
        {"agent_id": "\x00"},
        {"agent_id": NO_AGENT},
    ],
    ids=str,
)
def test_a_filter_that_nothing_meets_gives_an_empty_page(client: anthropic.Anthropic, filters: dict[str, Any]) -> None:
    page = client.beta.sessions.list(**filters)
    assert (page.data, page.next_page, page.prev_page) == ([], None, None)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_lead_forwards_and_back(client: anthropic.Anthropic, three: list[Session], order: Any) -> None:
    def page(cursor: str | None) -> Any:
        more: dict[str, Any] = {} if cursor is None else {"page": cursor}
        return client.beta.sessions.list(
            agent_id=three[0].agent.id, include_archived=True, order=order, limit=1, **more
        )

    expected = ids_of(three) if order == "asc" else ids_of(three)[::-1]
    first = page(None)
    second = page(first.next_page)
    third = page(second.next_page)
    assert [ids_of(each.data) for each in (first, second, third)] == [[each] for each in expected]
    assert first.prev_page is None
    assert third.next_page is None

    back = page(third.prev_page)
    assert ids_of(back.data) == ids_of(second.data)
    start = page(back.prev_page)
    assert ids_of(start.data) == ids_of(first.data)
    assert start.prev_page is None
    assert ids_of(page(start.next_page).data) == ids_of(second.data)


def test_a_cursor_belongs_to_its_listing(client: anthropic.Anthropic, three: list[Session]) -> None:
    agent = three[0].agent.id
    cursor = client.beta.sessions.list(agent_id=agent, include_archived=True, limit=1).next_page
    assert cursor is not None
    others: list[dict[str, Any]] = [
        {"agent_id": agent},
        {"include_archived": True},
        {"agent_id": agent, "order": "asc"},
    ]
    for filters in others:
        with refused(400):
            client.beta.sessions.list(page=cursor, **filters)


@pytest.mark.parametrize(
    "query",
    [
        "order=newest",
        "statuses[]=asleep",
        "statuses=idle",
        "agent_id=x&agent_id=y",
        "limit=0",
        "limit=101",
        "agent_version=0",
        "agent_version=x",
        "created_at[gt]=yesterday",
        "unknown[]=x",
    ],
)
def test_a_query_that_is_not_understood_is_400(http: httpx2.Client, query: str) -> None:
    check_refusal(http.get(f"{SESSIONS}?{query}"), 400)


def test_statuses_may_be_repeated_with_brackets(http: httpx2.Client) -> None:
    assert http.get(f"{SESSIONS}?statuses[]=idle&statuses[]=running").status_code == 200
    assert http.get(f"{SESSIONS}?statuses%5B%5D=idle").status_code == 200

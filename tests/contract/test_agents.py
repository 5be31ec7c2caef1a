"""Agents and their versions, as far as sessions need them (contract, 5.5), in the shapes of the SDK."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.agents import Agents
from anthropic.types.beta import BetaManagedAgentsAgent as Agent

from tests.contract.conftest import Credential, sign_in
from tests.contract.leftovers import unknown_fields
from tests.contract.shapes import body_of, check_refusal, is_id, is_timestamp, refused
from tests.support.servers import Server

CONFLICT = "conflict_error"
MODEL = "claude-opus-5-5"
KEYS = {
    "id",
    "type",
    "name",
    "version",
    "description",
    "model",
    "system",
    "tools",
    "mcp_servers",
    "skills",
    "multiagent",
    "execution_identity",
    "metadata",
    "created_at",
    "updated_at",
    "archived_at",
}
ALLOW, ASK = {"type": "always_allow"}, {"type": "always_ask"}
TOOLSET = "agent_toolset_20260401"
SPAWNING = {"type": "enabled", "inline_agents": {"type": "enabled"}, "predefined_agents": []}
DISABLED = {"type": "disabled"}
GROUP = "multiagent_20261001"


@pytest.fixture
def agents(client: anthropic.Anthropic) -> Agents:
    return client.beta.agents


@pytest.fixture
def agent(agents: Agents) -> Agent:
    return agents.create(name="Plain", model=MODEL)


def made(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    """A new agent as JSON."""
    answer = http.post("/v1/agents", json={"name": "Made", "model": MODEL, **fields})
    assert answer.status_code == 200, answer.text
    return cast("dict[str, Any]", answer.json())


def refuse(http: httpx2.Client, **fields: Any) -> str:
    """The message of a create that is refused for these fields."""
    error = check_refusal(http.post("/v1/agents", json={"name": "Refused", "model": MODEL, **fields}), 400)
    return cast("str", error["message"])


def updated(http: httpx2.Client, key: str, **fields: Any) -> dict[str, Any]:
    """An agent as JSON after a change."""
    answer = http.post(f"/v1/agents/{key}", json=fields)
    assert answer.status_code == 200, answer.text
    return cast("dict[str, Any]", answer.json())


def test_an_agent_has_every_key(agents: Agents) -> None:
    body = body_of(agents.with_raw_response.create(name="Shape", model=MODEL))
    assert set(body) == KEYS
    assert is_id(body["id"], "agent")
    assert is_timestamp(body["created_at"])
    assert body["updated_at"] == body["created_at"]
    assert {**body, "id": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "type": "agent",
        "name": "Shape",
        "version": 1,
        "description": None,
        "model": {"id": MODEL, "effort": {"type": "high"}, "inference_geo": None, "speed": "standard"},
        "system": None,
        "tools": [],
        "mcp_servers": [],
        "skills": [],
        "multiagent": None,
        "execution_identity": {"type": "service_account"},
        "metadata": {},
        "created_at": "",
        "updated_at": "",
        "archived_at": None,
    }


def test_an_agent_looks_the_same_from_every_route(agents: Agents, agent: Agent) -> None:
    raw = agents.with_raw_response
    retrieved = body_of(raw.retrieve(agent.id))
    assert body_of(raw.retrieve(agent.id, version=1)) == retrieved
    assert body_of(raw.update(agent.id)) == retrieved
    assert body_of(agents.versions.with_raw_response.list(agent.id)) == {"data": [retrieved], "next_page": None}
    assert retrieved in body_of(raw.list(limit=100))["data"]
    archived = body_of(raw.archive(agent.id))
    assert is_timestamp(archived["archived_at"])
    assert {**archived, "archived_at": None, "updated_at": None} == {**retrieved, "updated_at": None}


EVERYTHING: dict[str, Any] = {
    "name": "Everything",
    "model": {"id": "some-model", "effort": "low", "inference_geo": "us", "speed": "fast"},
    "description": "d",
    "system": "s",
    "tools": [
        {
            "type": TOOLSET,
            "configs": [
                {"name": "bash", "enabled": False},
                {"name": "edit", "type": "edit", "permission_policy": ASK},
                {"name": "read"},
                {"name": "write"},
                {"name": "glob"},
                {"name": "grep", "permission_policy": {"type": "auto"}},
                {
                    "name": "web_fetch",
                    "allowed_domains": ["docs.example.com"],
                    "max_content_tokens": 1000,
                    "url_sources": {
                        "user_input": "all",
                        "client_tool_results": {"type": "only", "tools": [{"type": "tool_reference", "name": "mine"}]},
                        "server_tool_results": {
                            "type": "except",
                            "tools": [{"type": "tool_reference", "name": "web_search"}],
                        },
                    },
                },
                {
                    "name": "web_search",
                    "blocked_domains": ["ads.example.com/path"],
                    "user_location": {"type": "approximate", "country": "CH"},
                },
            ],
        },
        {
            "type": "mcp_toolset",
            "mcp_server_name": "server",
            "configs": [{"name": "look", "enabled": True}],
            "default_config": {"enabled": False},
        },
        {
            "type": "custom",
            "name": "mine",
            "description": "Does it.",
            "input_schema": {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "$defs": {"b": [1, 2.5, None, True, "ü\0"]},
            },
        },
    ],
    "mcp_servers": [{"type": "url", "name": "server", "url": "https://mcp.example.com"}],
    "skills": [{"type": "anthropic", "skill_id": "xlsx"}, {"type": "custom", "skill_id": "skill_1", "version": "7"}],
    "execution_identity": {"type": "aws_role", "role_arn": "arn:aws:iam::123456789012:role/r"},
    "metadata": {"k": "v"},
}


def test_all_that_can_be_given_comes_back_complete(http: httpx2.Client, agents: Agents) -> None:
    body = made(http, **EVERYTHING)
    assert body["model"] == {"id": "some-model", "effort": {"type": "low"}, "inference_geo": "us", "speed": "fast"}
    toolset, mcp, custom = body["tools"]

    def plain(name: str, enabled: bool = True, policy: dict[str, str] = ALLOW) -> dict[str, Any]:
        return {"type": name, "name": name, "enabled": enabled, "permission_policy": policy}

    assert toolset == {
        "type": TOOLSET,
        "default_config": {"enabled": True, "permission_policy": ALLOW},
        "configs": [
            plain("bash", enabled=False),
            plain("edit", policy=ASK),
            plain("read"),
            plain("write"),
            plain("glob"),
            plain("grep", policy={"type": "auto"}),
            {
                **plain("web_fetch"),
                "allowed_domains": ["docs.example.com"],
                "blocked_domains": None,
                "max_content_tokens": 1000,
                "url_sources": {
                    "user_input": {"type": "all"},
                    "client_tool_results": {"type": "only", "tools": [{"type": "tool_reference", "name": "mine"}]},
                    "server_tool_results": {
                        "type": "except",
                        "tools": [{"type": "tool_reference", "name": "web_search"}],
                    },
                },
            },
            {
                **plain("web_search"),
                "allowed_domains": None,
                "blocked_domains": ["ads.example.com/path"],
                "user_location": {
                    "type": "approximate",
                    "city": None,
                    "country": "CH",
                    "region": None,
                    "timezone": None,
                },
            },
        ],
    }
    assert mcp == {
        "type": "mcp_toolset",
        "mcp_server_name": "server",
        "default_config": {"enabled": False, "permission_policy": ASK},
        "configs": [{"name": "look", "enabled": True, "permission_policy": ASK}],
    }
    assert custom == EVERYTHING["tools"][2]
    assert body["skills"] == [
        {"type": "anthropic", "skill_id": "xlsx", "version": "latest"},
        {"type": "custom", "skill_id": "skill_1", "version": "7"},
    ]
    for field in ("name", "description", "system", "mcp_servers", "execution_identity", "metadata"):
        assert body[field] == EVERYTHING[field]

    parsed = agents.retrieve(body["id"])
    assert unknown_fields(parsed) == []
    assert body_of(agents.with_raw_response.retrieve(body["id"])) == body


def test_what_was_answered_can_be_given_back(http: httpx2.Client) -> None:
    body = made(http, **EVERYTHING)
    given = {field: body[field] for field in EVERYTHING if field != "tools"}
    assert updated(http, body["id"], **given) == body


@pytest.mark.parametrize(
    "fields",
    [
        {"name": None},
        {"name": ""},
        {"name": "a\tb"},
        {"name": "x" * 257},
        {"model": None},
        {"model": ""},
        {"model": 1},
        {"model": {}},
        {"model": {"id": "m", "effort": "extreme"}},
        {"model": {"id": "m", "speed": "slow"}},
        {"model": {"id": "m", "temperature": 1}},
        {"description": "x" * 2_049},
        {"system": "x" * 100_001},
        {"system": "a\0b"},
        {"tools": None},
        {"tools": [{}]},
        {"tools": [{"type": "agent_toolset_20250101"}]},
        {"tools": [{"type": TOOLSET, "tools": []}]},
        {"tools": [{"type": TOOLSET, "configs": [{"name": "python"}]}]},
        {"tools": [{"type": TOOLSET, "configs": [{"name": "bash", "type": "edit"}]}]},
        {"tools": [{"type": TOOLSET, "configs": [{"name": "bash", "permission_policy": {"type": "never"}}]}]},
        {"tools": [{"type": TOOLSET}] * 257},
        {"tools": [{"type": "custom", "name": "a b", "description": "", "input_schema": {"type": "object"}}]},
        {"tools": [{"type": "custom", "name": "a", "description": "", "input_schema": {"type": "string"}}]},
        {"tools": [{"type": "custom", "name": "a", "input_schema": {"type": "object"}}]},
        {"mcp_servers": None},
        {"mcp_servers": [{"type": "stdio", "name": "a", "url": "https://a.example"}]},
        {"skills": [{"type": "anthropic"}]},
        {"execution_identity": {"type": "user"}},
        {"execution_identity": {"type": "aws_role"}},
        {"multiagent": {"type": "swarm"}},
        {"metadata": None},
        {"metadata": {"k": None}},
        {"metadata": {str(number): "" for number in range(17)}},
        {"version": 1},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused(http: httpx2.Client, fields: dict[str, Any]) -> None:
    refuse(http, **fields)


def test_the_limits_themselves_are_allowed(http: httpx2.Client) -> None:
    body = made(http, name="x" * 256, description="x" * 2_048, system="ü" * 100_000, tools=[{"type": TOOLSET}] * 256)
    assert (len(body["name"]), len(body["description"]), len(body["system"])) == (256, 2_048, 100_000)
    assert len(body["tools"]) == 256


CUSTOM = {"type": "custom", "name": "mine", "description": "", "input_schema": {"type": "object"}}
SERVER = {"type": "url", "name": "server", "url": "https://mcp.example.com"}
SERVERS_TOOLS = {"type": "mcp_toolset", "mcp_server_name": "server"}


def _fetch(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": TOOLSET, "configs": [{"name": "web_fetch", **fields}]}]}


def _only(*names: str) -> dict[str, Any]:
    return {"type": "only", "tools": [{"type": "tool_reference", "name": name} for name in names]}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tools": [CUSTOM, CUSTOM]}, "'mine' is there more than once"),
        ({"tools": [SERVERS_TOOLS]}, "'server' is none of mcp_servers"),
        ({"mcp_servers": [SERVER]}, "'server' is used by no mcp_toolset"),
        ({"mcp_servers": [SERVER, SERVER], "tools": [SERVERS_TOOLS]}, "'server' is there more than once"),
        (_fetch(allowed_domains=["a.example"], blocked_domains=["b.example"]), "not both"),
        (_fetch(allowed_domains=[]), "at least 1 item"),
        (_fetch(allowed_domains=["a.example"] * 65), "at most 64 items"),
        (_fetch(allowed_domains=["https://a.example"]), "should match pattern"),
        (_fetch(allowed_domains=["a.example/path"]), "should match pattern"),
        (
            _fetch(url_sources=dict.fromkeys(("client_tool_results", "server_tool_results", "user_input"), "none")),
            "all",
        ),
        (_fetch(url_sources={"client_tool_results": _only("theirs")}), "'theirs'"),
        (_fetch(url_sources={"server_tool_results": _only("bash")}), "'bash'"),
        (_fetch(url_sources={"server_tool_results": _only("web_search", "web_search")}), "more than once"),
        (_fetch(url_sources={"user_input": _only("web_search")}), "user_input"),
    ],
)
def test_tools_must_fit_each_other(http: httpx2.Client, fields: dict[str, Any], told: str) -> None:
    assert told in refuse(http, **fields)


@pytest.mark.parametrize("number", [str(2**64), str(-(2**63) - 1), "1e999", "NaN", "-Infinity"])
@pytest.mark.parametrize("place", ["properties", "else"])
def test_a_number_that_can_not_be_answered_is_refused(http: httpx2.Client, number: str, place: str) -> None:
    schema = f'{{"type":"object","{place}":{{"n":[{number}]}}}}'
    tool = f'{{"type":"custom","name":"a","description":"","input_schema":{schema}}}'
    body = f'{{"name":"n","model":"m","tools":[{tool}]}}'
    refusal = check_refusal(http.post("/v1/agents", content=body, headers={"content-type": "application/json"}), 400)
    assert "input_schema" in refusal["message"] or "not valid JSON" in refusal["message"]


def test_whole_numbers_of_64_bits_come_back_as_they_were(http: httpx2.Client) -> None:
    schema = {"type": "object", "maximum": [2**64 - 1, -(2**63)]}
    assert made(http, tools=[{**CUSTOM, "input_schema": schema}])["tools"][0]["input_schema"] == schema


def test_each_change_is_a_version(agents: Agents, agent: Agent) -> None:
    second = agents.update(agent.id, system="Be brief.")
    assert (second.version, second.system, second.name) == (2, "Be brief.", "Plain")
    assert second.created_at == agent.created_at
    assert second.updated_at > agent.updated_at
    third = agents.update(agent.id, metadata={"a": "1"})
    assert (third.version, third.system, third.metadata) == (3, "Be brief.", {"a": "1"})

    assert agents.retrieve(agent.id) == third
    assert agents.retrieve(agent.id, version=3) == third
    assert agents.retrieve(agent.id, version=2) == second
    assert agents.retrieve(agent.id, version=1) == agent
    assert list(agents.versions.list(agent.id)) == [third, second, agent]
    assert [each.version for each in agents.versions.list(agent.id, limit=1)] == [3, 2, 1]


def test_an_update_that_changes_nothing_makes_no_version(http: httpx2.Client) -> None:
    body = made(http, **EVERYTHING)
    assert updated(http, body["id"]) == body
    assert updated(http, body["id"], **EVERYTHING) == body
    assert updated(http, body["id"], version=1, metadata={"absent": None}) == body


def test_the_version_guard(agents: Agents, agent: Agent) -> None:
    second = agents.update(agent.id, version=1, name="Second")
    assert second.version == 2
    for wrong in (1, 3):
        with refused(409, CONFLICT) as refusal:
            agents.update(agent.id, version=wrong, name="Third")
        assert refusal.response.headers["x-should-retry"] == "false"
        assert "version 2" in refusal.error["message"]
    with refused(409, CONFLICT):
        agents.update(agent.id, version=1)
    assert agents.retrieve(agent.id) == second
    assert agents.update(agent.id, version=2, name="Third").version == 3


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, None, 10**9, 10**30])
def test_a_version_that_can_not_be_one_is_refused(http: httpx2.Client, agent: Agent, version: Any) -> None:
    check_refusal(http.post(f"/v1/agents/{agent.id}", json={"version": version}), 400)
    check_refusal(http.get(f"/v1/agents/{agent.id}", params={"version": json.dumps(version)}), 400)


def test_a_version_that_is_not_there_is_404(agents: Agents, agent: Agent) -> None:
    with refused(404):
        agents.retrieve(agent.id, version=2)
    with refused(404):
        agents.versions.list("agent_011111111111111111111111")


def test_what_can_be_cleared_is_cleared_and_the_rest_is_not(http: httpx2.Client) -> None:
    key = made(http, **EVERYTHING)["id"]
    for field in ("name", "model"):
        check_refusal(http.post(f"/v1/agents/{key}", json={field: None}), 400)
    cleared = updated(
        http,
        key,
        description=None,
        system="",
        tools=None,
        mcp_servers=None,
        skills=None,
        execution_identity=None,
        metadata={"k": None},
    )
    assert cleared["version"] == 2
    assert (cleared["description"], cleared["system"]) == (None, None)
    assert (cleared["tools"], cleared["mcp_servers"], cleared["skills"]) == ([], [], [])
    assert cleared["execution_identity"] == {"type": "service_account"}
    assert cleared["metadata"] == {}
    assert updated(http, key, metadata=None, description="", system=None) == cleared


def test_a_model_is_replaced_as_a_whole_but_for_its_effort(http: httpx2.Client) -> None:
    key = made(http, **EVERYTHING)["id"]
    low = {"type": "low"}
    assert updated(http, key, model={"id": "other", "inference_geo": "global"})["model"] == {
        "id": "other",
        "effort": low,
        "inference_geo": "global",
        "speed": "standard",
    }
    plain = {"id": "third", "effort": low, "inference_geo": None, "speed": "standard"}
    assert updated(http, key, model="third")["model"] == plain
    assert updated(http, key, model={"id": "third", "effort": {"type": "max"}})["model"]["effort"] == {"type": "max"}


def test_a_server_that_loses_its_toolset_is_refused(http: httpx2.Client) -> None:
    body = made(http, mcp_servers=[SERVER], tools=[SERVERS_TOOLS])
    check_refusal(http.post(f"/v1/agents/{body['id']}", json={"tools": []}), 400)
    check_refusal(http.post(f"/v1/agents/{body['id']}", json={"mcp_servers": []}), 400)
    assert http.get(f"/v1/agents/{body['id']}").json() == body
    assert updated(http, body["id"], tools=[], mcp_servers=[])["version"] == 2


def test_an_archived_agent_can_be_read_only(agents: Agents, agent: Agent) -> None:
    agents.update(agent.id, name="Second")
    archived = agents.archive(agent.id)
    assert archived.archived_at is not None
    assert archived.version == 2
    assert agents.archive(agent.id) == archived
    with refused(400):
        agents.update(agent.id, name="too late")
    assert agents.retrieve(agent.id) == archived
    first = agents.retrieve(agent.id, version=1)
    assert (first.name, first.archived_at) == ("Plain", archived.archived_at)
    assert first.updated_at == first.created_at


# Other agents that an agent can start


def reference(agent: dict[str, Any]) -> dict[str, Any]:
    return {"type": "agent", "id": agent["id"], "version": agent["version"]}


def test_a_coordinators_agents_are_pinned_to_a_version(http: httpx2.Client, agents: Agents) -> None:
    one, two = made(http, name="One"), made(http, name="Two")
    newer = updated(http, two["id"], name="Two, newer")
    roster = [one["id"], {"type": "agent", "id": two["id"], "version": 1}, {"type": "advisor", "model": "m"}]
    boss = made(http, multiagent={"type": "coordinator", "agents": [*roster, {"type": "self"}]})
    pinned = [reference(one), reference(two), {"type": "advisor", "model": "m"}]
    assert boss["multiagent"] == {"type": "coordinator", "agents": [*pinned, reference(boss)]}
    assert unknown_fields(agents.retrieve(boss["id"])) == []

    updated(http, one["id"], name="One, newer")
    renamed = updated(http, boss["id"], name="Boss")
    assert renamed["multiagent"] == {"type": "coordinator", "agents": [*pinned, reference(renamed)]}
    assert http.get(f"/v1/agents/{boss['id']}?version=1").json()["multiagent"] == boss["multiagent"]

    moved = updated(http, boss["id"], multiagent={"type": "coordinator", "agents": [one["id"], two["id"]]})
    assert moved["multiagent"]["agents"] == [{**reference(one), "version": 2}, reference(newer)]
    again = updated(http, boss["id"], multiagent={"type": "coordinator", "agents": [one["id"], two["id"]]})
    assert again == moved
    assert updated(http, boss["id"], multiagent=None)["multiagent"] is None


def test_agents_of_a_roster_must_be_usable(http: httpx2.Client, agents: Agents, guest: anthropic.Anthropic) -> None:
    one, archived = made(http), made(http)
    agents.archive(archived["id"])
    boss = made(http, multiagent={"type": "coordinator", "agents": [one["id"]]})
    foreign = guest.beta.agents.create(name="Foreign", model=MODEL)
    for roster, told in (
        ([], "at least 1 item"),
        ([one["id"]] * 21, "at most 20 items"),
        ([one["id"], reference(one)], "more than once"),
        ([{"type": "self"}, {"type": "self"}], "more than once"),
        ([{"type": "advisor", "model": "m"}, {"type": "advisor", "model": "n"}], "an advisor more than once"),
        ([archived["id"]], "is archived"),
        ([boss["id"]], "only one level"),
        ([foreign.id], "was not found"),
        ([{**reference(one), "version": 2}], "no such version"),
        (["agent_\0"], "was not found"),
        (["ägent"], "was not found"),
    ):
        assert told in refuse(http, multiagent={"type": "coordinator", "agents": roster})


def test_a_group_is_completed_and_merged(http: httpx2.Client, agents: Agents) -> None:
    one = made(http)
    body = made(http, multiagent={"type": GROUP})
    key = body["id"]
    assert body["multiagent"] == {"type": GROUP, "advisor": DISABLED, "subagents": SPAWNING, "workflows": SPAWNING}

    def group(**members: Any) -> dict[str, Any]:
        shown = updated(http, key, multiagent={"type": GROUP, **members})["multiagent"]
        assert unknown_fields(agents.retrieve(key)) == []
        return cast("dict[str, Any]", shown)

    named = {"type": "enabled", "inline_agents": DISABLED, "predefined_agents": [reference(one)]}
    advisor = {"type": "enabled", "model": "m"}
    subagents = {"type": "enabled", "inline_agents": DISABLED, "predefined_agents": [one["id"]]}
    assert group(advisor=advisor, subagents=subagents, workflows=DISABLED) == {
        "type": GROUP,
        "advisor": advisor,
        "subagents": named,
        "workflows": DISABLED,
    }
    # What is absent stays, what is null is the default, and another type starts from its defaults.
    kept = group(subagents={"type": "enabled"}, workflows=None)
    assert kept == {"type": GROUP, "advisor": advisor, "subagents": named, "workflows": SPAWNING}
    opened = group(advisor=None, subagents={"type": "enabled", "inline_agents": None, "predefined_agents": None})
    assert opened == {"type": GROUP, "advisor": DISABLED, "subagents": SPAWNING, "workflows": SPAWNING}
    assert group(subagents=DISABLED)["subagents"] == DISABLED
    assert group(subagents={"type": "enabled"})["subagents"] == SPAWNING

    empty = {"type": GROUP, "subagents": {"type": "enabled", "inline_agents": DISABLED}}
    refusal = check_refusal(http.post(f"/v1/agents/{key}", json={"multiagent": empty}), 400)
    assert "at least one agent" in refusal["message"]
    refuse(http, multiagent={"type": GROUP, "advisor": {"type": "enabled"}})


def test_a_session_has_a_snapshot_of_its_agent_and_the_agents_it_can_start(
    http: httpx2.Client, client: anthropic.Anthropic
) -> None:
    environment = client.beta.environments.create(name=f"for {made(http)['id']}")
    one = made(http, name="One", system="Old.")
    updated(http, one["id"], system="New.")
    roster = [reference(one), {"type": "self"}, {"type": "advisor", "model": "m"}]
    for multiagent in (
        None,
        {"type": "coordinator", "agents": roster},
        {"type": GROUP, "subagents": {"type": "enabled", "predefined_agents": roster[:2]}, "workflows": DISABLED},
    ):
        boss = made(http, **EVERYTHING, multiagent=multiagent)
        session = client.beta.sessions.create(agent=boss["id"], environment_id=environment.id)
        raw = body_of(client.beta.sessions.with_raw_response.retrieve(session.id))["agent"]
        assert unknown_fields(session.agent) == []
        shown = {name: boss[name] for name in KEYS - {"metadata", "created_at", "updated_at", "archived_at"}}
        alone = {name: value for name, value in shown.items() if name != "multiagent"}
        other = {name: one[name] for name in alone}
        assert other["system"] == "Old."
        if multiagent is None:
            assert raw == {**alone, "multiagent": None}
        elif multiagent["type"] == "coordinator":
            members = [other, alone, {"type": "advisor", "model": "m"}]
            assert raw == {**alone, "multiagent": {"type": "coordinator", "agents": members}}
        else:
            subagents = {**SPAWNING, "predefined_agents": [other, alone]}
            assert raw == {**alone, "multiagent": {**boss["multiagent"], "subagents": subagents}}
        # Later changes do not reach it.
        updated(http, boss["id"], name="Later")
        assert body_of(client.beta.sessions.with_raw_response.retrieve(session.id))["agent"] == raw
        client.beta.sessions.delete(session.id)


# Listings and walls


@pytest.fixture(scope="module")
def five(server: Server, quiet_key: Credential) -> Iterator[tuple[Agents, list[Agent]]]:
    """Five agents in a workspace of their own, newest first, the third archived."""
    with sign_in(server, quiet_key.secret) as client:
        agents = client.beta.agents
        keys = [agents.create(name=f"number {number}", model=MODEL).id for number in range(5)]
        agents.update(keys[0], name="changed last")
        agents.archive(keys[2])
        yield agents, [agents.retrieve(key) for key in reversed(keys)]


def test_the_list_is_newest_first_and_without_the_archived(five: tuple[Agents, list[Agent]]) -> None:
    agents, newest_first = five
    mine = {agent.id for agent in newest_first}

    def listed(**filters: Any) -> list[Agent]:
        return [agent for agent in agents.list(**filters) if agent.id in mine]

    assert listed() == [agent for agent in newest_first if agent.archived_at is None]
    assert listed(include_archived=True) == newest_first
    assert listed(include_archived=True, limit=2) == newest_first
    middle = newest_first[2].created_at
    assert listed(include_archived=True, created_at_gte=middle) == newest_first[:3]
    assert listed(include_archived=True, created_at_lte=middle, limit=1) == newest_first[2:]


def test_a_cursor_goes_with_its_listing(five: tuple[Agents, list[Agent]], agents: Agents) -> None:
    quiet, newest_first = five
    cursor = quiet.list(limit=2).next_page
    assert cursor is not None
    assert quiet.list(limit=2, page=cursor).data
    with refused(400):
        quiet.list(limit=2, page=cursor, include_archived=True)
    with refused(400):
        agents.list(page=cursor)
    with refused(400):
        quiet.versions.list(newest_first[-1].id, page=cursor)
    older = quiet.versions.list(newest_first[-1].id, limit=1).next_page
    assert older is not None
    assert [each.version for each in quiet.versions.list(newest_first[-1].id, page=older)] == [1]
    with refused(400):
        quiet.versions.list(newest_first[0].id, page=older)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "include_archived=1", "page=x", "order=asc", "created_at[gte]=soon"]
)
def test_a_wrong_query_is_refused(http: httpx2.Client, query: str) -> None:
    check_refusal(http.get(f"/v1/agents?{query}"), 400)


def test_unknown_parameters_of_single_agents_are_refused(http: httpx2.Client, agent: Agent) -> None:
    check_refusal(http.get(f"/v1/agents/{agent.id}?view=full"), 400)
    check_refusal(http.get(f"/v1/agents/{agent.id}/versions?include_archived=true"), 400)
    check_refusal(http.post(f"/v1/agents/{agent.id}/archive?now=true"), 400)
    check_refusal(http.delete(f"/v1/agents/{agent.id}"), 405)


def test_another_workspace_sees_nothing(agent: Agent, guest: anthropic.Anthropic) -> None:
    others = guest.beta.agents
    for call in (others.retrieve, others.update, others.archive, others.versions.list):
        with refused(404):
            call(agent.id)
    assert agent.id not in [each.id for each in others.list(include_archived=True)]


def test_updates_at_once_make_a_version_each_and_a_guard_lets_one_through(http: httpx2.Client, agent: Agent) -> None:
    def post(body: dict[str, Any]) -> httpx2.Response:
        return http.post(f"/v1/agents/{agent.id}", json=body)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, [{"name": f"name {number}"} for number in range(8)]))
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 10))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, [{"name": f"guarded {number}", "version": 9} for number in range(8)]))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    listed = http.get(f"/v1/agents/{agent.id}/versions").json()["data"]
    assert [each["version"] for each in listed] == list(range(10, 0, -1))

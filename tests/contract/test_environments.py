"""Environments, as far as sessions need them (contract, 5.5), in the shapes of the SDK."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from uuid import uuid4

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.environments import Environments
from anthropic.types.beta import BetaEnvironment, BetaEnvironmentArchivedError, BetaInvalidConfigTypeChangeError

from tests.contract.conftest import Credential, sign_in
from tests.contract.leftovers import unknown_fields
from tests.contract.shapes import body_of, check_refusal, is_id, is_timestamp, refused
from tests.support.servers import Server

CONFLICT = "conflict_error"
KEYS = {
    "id",
    "type",
    "name",
    "description",
    "config",
    "metadata",
    "scope",
    "created_at",
    "updated_at",
    "archived_at",
}
NO_PACKAGES: dict[str, Any] = {"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}
CLOUD = {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": NO_PACKAGES}
LIMITED = {"type": "limited", "allow_mcp_servers": False, "allow_package_managers": False, "allowed_hosts": []}


@pytest.fixture
def environments(client: anthropic.Anthropic) -> Environments:
    return client.beta.environments


@pytest.fixture
def name() -> str:
    return f"environment {uuid4()}"


@pytest.fixture
def environment(environments: Environments, name: str) -> BetaEnvironment:
    return environments.create(name=name)


def config_of(environment: BetaEnvironment) -> dict[str, Any]:
    """The config as JSON."""
    return cast("dict[str, Any]", environment.config.to_dict(mode="json"))


def test_an_environment_has_every_key(environments: Environments, name: str) -> None:
    body = body_of(environments.with_raw_response.create(name=name))
    assert set(body) == KEYS
    assert is_id(body["id"], "env")
    assert body["type"] == "environment"
    assert (body["name"], body["description"], body["metadata"]) == (name, None, {})
    assert body["config"] == CLOUD
    assert body["scope"] == "organization"
    assert is_timestamp(body["created_at"])
    assert body["updated_at"] == body["created_at"]
    assert body["archived_at"] is None


def test_an_environment_looks_the_same_from_every_route(environments: Environments, name: str) -> None:
    raw = environments.with_raw_response
    created = body_of(raw.create(name=name, description="d", metadata={"k": "v"}, config={"type": "self_hosted"}))
    key = created["id"]
    assert created["config"] == {"type": "self_hosted"}
    assert body_of(raw.retrieve(key)) == created
    assert body_of(raw.update(key)) == created
    assert created in body_of(raw.list(limit=100))["data"]
    archived = body_of(raw.archive(key))
    assert is_timestamp(archived["archived_at"])
    assert {**archived, "archived_at": None, "updated_at": None} == {**created, "updated_at": None}
    assert body_of(raw.delete(key)) == {"id": key, "type": "environment_deleted"}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, CLOUD),
        ({"type": "cloud"}, CLOUD),
        ({"type": "cloud", "networking": None, "packages": None}, CLOUD),
        ({"type": "cloud", "networking": {"type": "limited"}}, {**CLOUD, "networking": LIMITED}),
        (
            {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["a.example"]}},
            {**CLOUD, "networking": {**LIMITED, "allowed_hosts": ["a.example"]}},
        ),
        (
            {"type": "cloud", "packages": {"pip": ["requests==2.0"], "npm": None}},
            {**CLOUD, "packages": {**NO_PACKAGES, "pip": ["requests==2.0"]}},
        ),
        (
            {
                "type": "cloud",
                "networking": {"type": "limited", "allow_package_managers": True},
                "packages": {"type": "packages", "apt": ["jq"]},
            },
            {
                "type": "cloud",
                "networking": {**LIMITED, "allow_package_managers": True},
                "packages": {**NO_PACKAGES, "apt": ["jq"]},
            },
        ),
        ({"type": "self_hosted"}, {"type": "self_hosted"}),
    ],
)
def test_a_config_is_completed_with_the_defaults(
    environments: Environments, name: str, given: Any, shown: dict[str, Any]
) -> None:
    environment = environments.create(name=name, config=given)
    assert config_of(environment) == shown
    assert unknown_fields(environment) == []
    assert environments.retrieve(environment.id) == environment


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"type": "local"},
        {"type": "cloud", "cpu": 2},
        {"type": "self_hosted", "networking": {"type": "unrestricted"}},
        {"type": "cloud", "networking": {"type": "open"}},
        {"type": "cloud", "networking": {"type": "unrestricted", "allowed_hosts": []}},
        {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": "a.example"}},
        {"type": "cloud", "networking": {"type": "limited", "allow_mcp_servers": "true"}},
        {"type": "cloud", "packages": {"conda": ["x"]}},
        {"type": "cloud", "networking": {"type": "limited"}, "packages": {"pip": ["requests"]}},
        "cloud",
    ],
)
def test_a_wrong_config_is_refused(http: httpx2.Client, name: str, config: Any) -> None:
    check_refusal(http.post("/v1/environments", json={"name": name, "config": config}), 400)
    assert http.post("/v1/environments", json={"name": name}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": None},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 256},
        {"name": "n", "description": "x" * 2_049},
        {"name": "n", "description": "\0"},
        {"name": "n", "metadata": None},
        {"name": "n", "metadata": {"k": 1}},
        {"name": "n", "metadata": {"k": "x" * 513}},
        {"name": "n", "scope": "account"},
        {"name": "n", "unknown": 1},
    ],
)
def test_a_wrong_body_is_refused(http: httpx2.Client, body: dict[str, Any]) -> None:
    check_refusal(http.post("/v1/environments", json=body), 400)


def test_a_name_is_unique_in_the_workspace(
    environments: Environments, environment: BetaEnvironment, name: str, guest: anthropic.Anthropic
) -> None:
    with refused(409, CONFLICT) as refusal:
        environments.create(name=name)
    assert environment.id in refusal.error["message"]
    assert refusal.response.headers["x-should-retry"] == "false"

    assert guest.beta.environments.create(name=name).name == name

    environments.delete(environment.id)
    assert environments.create(name=name).name == name


def test_a_new_name_is_unique_too(environments: Environments, environment: BetaEnvironment, name: str) -> None:
    other = environments.create(name=f"{name}, another")
    with refused(409, CONFLICT):
        environments.update(other.id, name=name)
    assert environments.retrieve(other.id) == other
    assert environments.update(environment.id, name=name, description="its own name").description == "its own name"
    assert environments.update(other.id, name=f"{name}, the third").name == f"{name}, the third"
    assert environments.create(name=f"{name}, another").name == f"{name}, another"


def test_an_update_changes_what_is_given(environments: Environments, environment: BetaEnvironment, name: str) -> None:
    changed = environments.update(environment.id, description="", metadata={"a": "1", "b": "2"})
    assert changed.description == ""
    assert changed.metadata == {"a": "1", "b": "2"}
    assert (changed.name, changed.config, changed.created_at) == (name, environment.config, environment.created_at)
    assert changed.updated_at > environment.updated_at

    changed = environments.update(environment.id, description=None, metadata={"a": None, "b": "", "c": "3"})
    assert changed.description is None
    assert changed.metadata == {"c": "3"}
    assert environments.retrieve(environment.id) == changed


def test_an_update_that_changes_nothing_does_not_move_updated_at(
    environments: Environments, environment: BetaEnvironment, name: str
) -> None:
    same = environments.update(
        environment.id,
        name=name,
        description=None,
        metadata={"absent": None},
        config={"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"pip": []}},
        scope="organization",
    )
    assert same == environment


def test_a_config_is_merged(environments: Environments, environment: BetaEnvironment) -> None:
    def updated(config: Any) -> dict[str, Any]:
        return config_of(environments.update(environment.id, config=config))

    wide = {"type": "limited", "allow_package_managers": True, "allowed_hosts": ["a.example"]}
    assert updated({"type": "cloud", "networking": wide, "packages": {"pip": ["x"]}}) == {
        "type": "cloud",
        "networking": {**LIMITED, **wide},
        "packages": {**NO_PACKAGES, "pip": ["x"]},
    }
    assert updated({"type": "cloud", "networking": {"type": "limited", "allow_mcp_servers": True}}) == {
        "type": "cloud",
        "networking": {**LIMITED, **wide, "allow_mcp_servers": True},
        "packages": {**NO_PACKAGES, "pip": ["x"]},
    }
    with refused(400):
        updated({"type": "cloud", "networking": {"type": "limited", "allow_package_managers": False}})
    assert updated({"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"npm": ["y"]}}) == {
        "type": "cloud",
        "networking": {"type": "unrestricted"},
        "packages": {**NO_PACKAGES, "pip": ["x"], "npm": ["y"]},
    }
    emptied = updated({"type": "cloud", "networking": {"type": "limited"}, "packages": {"pip": [], "npm": []}})
    assert emptied == {"type": "cloud", "networking": LIMITED, "packages": NO_PACKAGES}


def test_the_type_of_a_config_can_not_change(environments: Environments, environment: BetaEnvironment) -> None:
    with pytest.raises(BetaInvalidConfigTypeChangeError) as caught:
        environments.update(environment.id, config={"type": "self_hosted"})
    assert caught.value.status_code == 400
    assert caught.value.details.error_code == "invalid_config_type_change"
    assert environments.retrieve(environment.id) == environment


def test_an_archived_environment_can_be_read_and_deleted_only(
    environments: Environments, environment: BetaEnvironment
) -> None:
    archived = environments.archive(environment.id)
    assert environments.archive(environment.id) == archived
    with pytest.raises(BetaEnvironmentArchivedError) as caught:
        environments.update(environment.id, description="too late")
    assert caught.value.details.error_code == "environment_archived"
    assert environments.retrieve(environment.id) == archived
    environments.delete(environment.id)
    for call in (environments.retrieve, environments.archive, environments.delete, environments.update):
        with refused(404):
            call(environment.id)


def test_an_environment_that_a_session_names_is_not_deleted(
    client: anthropic.Anthropic, environment: BetaEnvironment
) -> None:
    agent = client.beta.agents.create(name="For a session", model="claude-opus-5-5")
    session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    with refused(409, CONFLICT) as refusal:
        client.beta.environments.delete(environment.id)
    assert session.id in refusal.error["message"]
    client.beta.sessions.delete(session.id)
    client.beta.environments.delete(environment.id)


@pytest.fixture(scope="module")
def five(server: Server, quiet_key: Credential) -> Iterator[tuple[Environments, list[str]]]:
    """Five environments in a workspace of their own, newest first; the third is archived."""
    with sign_in(server, quiet_key.secret) as client:
        made = [client.beta.environments.create(name=f"number {number}").id for number in range(5)]
        client.beta.environments.archive(made[2])
        yield client.beta.environments, made[::-1]
        for key in made:
            client.beta.environments.delete(key)


def test_the_list_is_newest_first_and_without_the_archived(five: tuple[Environments, list[str]]) -> None:
    environments, newest_first = five
    assert [each.id for each in environments.list()] == [key for key in newest_first if key != newest_first[2]]
    assert [each.id for each in environments.list(include_archived=True)] == newest_first
    assert [each.id for each in environments.list(include_archived=True, limit=2)] == newest_first


def test_a_cursor_goes_with_its_filters(five: tuple[Environments, list[str]]) -> None:
    environments, _ = five
    cursor = environments.list(limit=2).next_page
    assert cursor is not None
    assert environments.list(limit=2, page=cursor).next_page is None
    with refused(400):
        environments.list(limit=2, page=cursor, include_archived=True)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "include_archived=1", "page=x", "order=asc", "created_at=1"])
def test_a_wrong_query_is_refused(http: httpx2.Client, query: str) -> None:
    check_refusal(http.get(f"/v1/environments?{query}"), 400)


def test_another_workspace_sees_nothing(environment: BetaEnvironment, guest: anthropic.Anthropic) -> None:
    others = guest.beta.environments
    for call in (others.retrieve, others.archive, others.delete, others.update):
        with refused(404):
            call(environment.id)
    assert environment.id not in [each.id for each in others.list(include_archived=True)]


def test_two_creates_at_once_make_one(server: Server, name: str) -> None:
    with server.http() as http:
        answers = race(http, [("POST", "/v1/environments", {"name": name})] * 8)
    assert sorted(answers) == [200] + [409] * 7


def test_two_renames_at_once_give_the_name_once(server: Server, environments: Environments, name: str) -> None:
    made = [environments.create(name=f"{name} {number}").id for number in range(6)]
    with server.http() as http:
        answers = race(http, [("POST", f"/v1/environments/{key}", {"name": name}) for key in made])
    assert sorted(answers) == [200] + [409] * 5


def race(http: httpx2.Client, calls: list[tuple[str, str, dict[str, Any]]]) -> list[int]:
    """The statuses of requests that are sent at once."""
    with ThreadPoolExecutor(len(calls)) as threads:
        sent = [threads.submit(http.request, method, path, json=body) for method, path, body in calls]
        return [each.result().status_code for each in sent]


def fresh_name() -> str:
    return f"environment {uuid4()}"


@pytest.mark.parametrize("networking", [None, {"type": "limited", "allowed_hosts": ["example.com"]}])
def test_anthropic_cloud_is_cloud_and_is_answered_as_it_was_sent(
    environments: Environments, networking: dict[str, Any] | None
) -> None:
    config: Any = {"type": "anthropic_cloud"} | ({"networking": networking} if networking else {})
    plain: Any = config | {"type": "cloud"}
    made = environments.create(name=fresh_name(), config=config)
    other = environments.create(name=fresh_name(), config=plain)
    assert body_of_config(made) == body_of_config(other) | {"type": "anthropic_cloud"}
    assert environments.retrieve(made.id).config == made.config
    # Between the two it can be changed, as they are one; to another kind it can't.
    assert environments.update(made.id, description="new").config == made.config
    assert body_of_config(environments.update(made.id, config={"type": "cloud"})) == body_of_config(other)
    assert body_of_config(environments.update(made.id, config=config)) == body_of_config(made)
    with pytest.raises(anthropic.BadRequestError):
        environments.update(made.id, config={"type": "self_hosted"})


def body_of_config(environment: Any) -> dict[str, Any]:
    # The SDK's types know the one name only.
    shown: dict[str, Any] = environment.model_dump(warnings=False)["config"]
    return shown


def test_an_archived_environment_gives_its_name_back(environments: Environments) -> None:
    name = fresh_name()
    made = []
    for _ in range(3):  # a notebook that archives what it made can be run again
        environment = environments.create(name=name, config={"type": "cloud"})
        with pytest.raises(anthropic.ConflictError):
            environments.create(name=name, config={"type": "cloud"})
        environments.archive(environment.id)
        made.append(environment.id)
    assert [environments.retrieve(each).name for each in made] == [name] * 3
    other = environments.create(name=fresh_name(), config={"type": "cloud"})
    assert environments.update(other.id, name=name).name == name
    with pytest.raises(anthropic.ConflictError):
        environments.create(name=name, config={"type": "cloud"})
    environments.delete(made[0])


def test_of_many_that_want_one_name_at_once_one_gets_it(server: Server) -> None:
    name = fresh_name()

    def create(_: int) -> int:
        with server.http() as http:
            return http.post("/v1/environments", json={"name": name}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(create, range(8))) == [200, *[409] * 7]

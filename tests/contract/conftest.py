"""Fixtures of the contract tests: the SDK's three resources, a sample to act on, and a second workspace."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta import BetaManagedAgentsSession

from tests.contract.routes import Sample
from tests.support.servers import Server


@dataclass(frozen=True)
class Credential:
    """What `memstore keys create` prints."""

    id: str
    secret: str
    workspace_id: str


def make_key(server: Server, workspace: str) -> Credential:
    """A new key; the workspace is created when it is new."""
    printed = json.loads(server.cli("keys", "create", "--workspace", workspace, "--json").stdout)
    assert set(printed) == {"id", "secret", "workspace_id"}
    return Credential(**printed)


def sign_in(server: Server, secret: str) -> anthropic.Anthropic:
    """The SDK with another key than the server's own."""
    return server.client(api_key=secret, max_retries=0)


def bare_http(server: Server, **headers: str) -> httpx2.Client:
    """A plain HTTP client that sends only these headers of its own; `_` in a name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Client(base_url=server.base_url, headers=named, timeout=30, trust_env=False)


@pytest.fixture
def stores(client: anthropic.Anthropic) -> MemoryStores:
    return client.beta.memory_stores


@pytest.fixture
def memories(client: anthropic.Anthropic) -> Memories:
    return client.beta.memory_stores.memories


@pytest.fixture
def versions(client: anthropic.Anthropic) -> MemoryVersions:
    return client.beta.memory_stores.memory_versions


@pytest.fixture
def sample(store: Store, memories: Memories) -> Sample:
    memory = memories.create(store.id, path="/notes/today.md", content="first")
    memories.update(memory.id, memory_store_id=store.id, content="second")
    return Sample(store.id, memory.id, memory.memory_version_id)


@pytest.fixture(scope="session")
def guest_key(server: Server) -> Credential:
    """A key of a second workspace, whose things are nobody else's."""
    return make_key(server, "guests")


@pytest.fixture(scope="session")
def colleague_key(server: Server) -> Credential:
    """A second key of the workspace that the other fixtures work in."""
    return make_key(server, "default")


@pytest.fixture(scope="session")
def quiet_key(server: Server) -> Credential:
    """A key of a workspace that is empty but for what one module's own fixture puts there."""
    return make_key(server, "quiet")


@pytest.fixture(scope="session")
def colleague(server: Server, colleague_key: Credential) -> Iterator[anthropic.Anthropic]:
    """Another client of the same workspace, with the second key."""
    with sign_in(server, colleague_key.secret) as client:
        yield client


@pytest.fixture(scope="session")
def guest(server: Server, guest_key: Credential) -> Iterator[anthropic.Anthropic]:
    """A client of the second workspace."""
    with sign_in(server, guest_key.secret) as client:
        yield client


@pytest.fixture(scope="session")
def anonymous(server: Server) -> Iterator[httpx2.Client]:
    """A client that sends no credential of its own."""
    with bare_http(server) as client:
        yield client


@dataclass(frozen=True)
class SessionMaker:
    """Makes sessions of one agent in one environment, and clients with a session's token."""

    server: Server
    client: anthropic.Anthropic
    agent: str
    environment: str

    def __call__(self, *stores: str | dict[str, Any], **fields: Any) -> BetaManagedAgentsSession:
        """A new session with these stores attached, each given by its ID or as a whole resource."""
        resources: list[Any] = [
            {"type": "memory_store", "memory_store_id": store} if isinstance(store, str) else store for store in stores
        ]
        wanted = {"agent": self.agent, "environment_id": self.environment, "resources": resources, **fields}
        return self.client.beta.sessions.create(**wanted)

    def token(self, session_id: str, **body: Any) -> dict[str, Any]:
        """A new token of a session, as the API gives it."""
        with self.server.http() as http:
            made = http.post(f"/v1/sessions/{session_id}/tokens", json=body)
        assert made.status_code == 200, made.text
        answer: dict[str, Any] = made.json()
        return answer

    def sign_in(self, session_id: str) -> anthropic.Anthropic:
        """The SDK with a new token of a session; to be closed by the caller."""
        return sign_in(self.server, self.token(session_id)["token"])


@pytest.fixture(scope="session")
def open_session(server: Server, client: anthropic.Anthropic) -> SessionMaker:
    """Makes sessions, with an agent and an environment that all tests share."""
    agent = client.beta.agents.create(name="Support", model="claude-opus-5-5", system="Answer customers.")
    # Made again when pytest comes back to this back end, on the same server; the names of environments are unique.
    environment = client.beta.environments.create(name=f"contract tests {uuid.uuid4()}", config={"type": "cloud"})
    return SessionMaker(server, client, agent.id, environment.id)

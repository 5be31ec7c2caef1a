"""Attached stores: what may be attached, where it is mounted, and that it stays as it was (parts 1.7, 5.2 and 5.3)."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta import BetaManagedAgentsSession as Session

from tests.contract.conftest import SessionMaker
from tests.contract.sdk_models import check_exact
from tests.contract.shapes import check_refusal, refused
from tests.storage.outside import Rows
from tests.support.servers import Server

NO_STORE = "memstore_011CZkZaBF1tNoB5wlCeusgy"
KEYS = {"type", "memory_store_id", "access", "name", "description", "instructions", "mount_path"}

StoreMaker = Callable[..., Store]


@pytest.fixture
def new_store(client: anthropic.Anthropic) -> Iterator[StoreMaker]:
    """Makes stores, which are deleted afterwards."""
    made: list[Store] = []

    def make(name: str, **fields: Any) -> Store:
        made.append(client.beta.memory_stores.create(name=name, **fields))
        return made[-1]

    yield make
    for store in made:
        with suppress(anthropic.NotFoundError):
            client.beta.memory_stores.delete(store.id)


def attached(store_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "memory_store", "memory_store_id": store_id, **fields}


def mount_paths(session: Session) -> list[str | None]:
    return [getattr(resource, "mount_path", None) for resource in session.resources]


def test_an_attachment_has_the_vendors_shape(open_session: SessionMaker, new_store: StoreMaker) -> None:
    store = new_store("User Preferences", description="What each user likes.")
    (resource,) = open_session(attached(store.id, access="read_only", instructions="Read it first.")).resources
    check_exact(resource)
    assert resource.model_dump() == {
        "type": "memory_store",
        "memory_store_id": store.id,
        "access": "read_only",
        "name": "User Preferences",
        "description": "What each user likes.",
        "instructions": "Read it first.",
        "mount_path": "/mnt/memory/user-preferences",
    }


@pytest.mark.parametrize("fields", [{}, {"access": None, "instructions": None}, {"access": "read_write"}])
def test_an_attachment_is_read_write_unless_said(
    open_session: SessionMaker, store: Store, http: httpx2.Client, fields: dict[str, Any]
) -> None:
    session = open_session(attached(store.id, **fields))
    (resource,) = http.get(f"/v1/sessions/{session.id}").json()["resources"]
    assert set(resource) == KEYS
    assert (resource["access"], resource["instructions"], resource["description"]) == ("read_write", None, "")


def test_stores_of_one_name_get_directories_of_their_own(open_session: SessionMaker, new_store: StoreMaker) -> None:
    stores = [new_store(name) for name in ("Team Notes", "team notes!", "日本語", "TEAM NOTES")]
    session = open_session(*(store.id for store in stores))
    own_id = stores[2].id.lower().replace("_", "-")
    assert mount_paths(session) == [
        "/mnt/memory/team-notes",
        "/mnt/memory/team-notes-2",
        f"/mnt/memory/{own_id}",
        "/mnt/memory/team-notes-3",
    ]


def test_an_attachment_stays_as_it_was_when_its_store_changes(
    open_session: SessionMaker, client: anthropic.Anthropic, new_store: StoreMaker
) -> None:
    store = new_store("Before", description="as it was")
    session = open_session(store.id)

    client.beta.memory_stores.update(store.id, name="After", description="as it is")
    assert client.beta.sessions.retrieve(session.id).resources == session.resources
    assert mount_paths(open_session(store.id)) == ["/mnt/memory/after"]

    client.beta.memory_stores.archive(store.id)
    assert client.beta.sessions.retrieve(session.id).resources == session.resources
    client.beta.memory_stores.delete(store.id)
    assert client.beta.sessions.retrieve(session.id).resources == session.resources
    assert client.beta.sessions.archive(session.id).resources == session.resources


def test_eight_stores_are_attached_in_their_order_and_nine_are_not(
    open_session: SessionMaker, new_store: StoreMaker
) -> None:
    stores = [new_store(f"Store {number}").id for number in range(9)]
    session = open_session(*reversed(stores[:8]))
    assert [getattr(each, "memory_store_id", "") for each in session.resources] == stores[7::-1]
    with refused(400) as refusal:
        open_session(*stores)
    assert refusal.error["message"] == "resources cannot contain more than 8 memory_store entries"


@pytest.mark.parametrize("store_id", [NO_STORE, "nothing", "\x00", "é"])
def test_an_unknown_store_is_404(open_session: SessionMaker, store: Store, store_id: str) -> None:
    with refused(404):
        open_session(store.id, store_id)


def test_a_store_of_another_workspace_is_404(open_session: SessionMaker, guest: anthropic.Anthropic) -> None:
    foreign = guest.beta.memory_stores.create(name="theirs")
    with refused(404):
        open_session(foreign.id)


def test_a_deleted_store_is_404(
    open_session: SessionMaker, client: anthropic.Anthropic, server: Server, new_store: StoreMaker
) -> None:
    gone = new_store("gone")
    client.beta.memory_stores.delete(gone.id)
    with refused(404):
        open_session(gone.id)

    # A store whose rows are still to be purged.
    going = new_store("going")
    rows = Rows(server.environment)
    rows.execute(f"UPDATE memory_stores SET deleted_at = 1 WHERE id = '{going.id}'")
    rows.execute("UPDATE workspaces SET store_count = store_count - 1 WHERE name = 'default'")
    with refused(404):
        open_session(going.id)


def test_an_archived_store_is_400(
    open_session: SessionMaker, client: anthropic.Anthropic, new_store: StoreMaker
) -> None:
    store = new_store("old")
    client.beta.memory_stores.archive(store.id)
    with refused(400) as refusal:
        open_session(store.id)
    assert "archived" in refusal.error["message"]


def test_one_store_twice_is_400(open_session: SessionMaker, store: Store) -> None:
    with refused(400) as refusal:
        open_session(store.id, attached(store.id, access="read_only"))
    assert store.id in refusal.error["message"]


def test_a_refused_session_leaves_nothing(
    open_session: SessionMaker, client: anthropic.Anthropic, store: Store
) -> None:
    with refused(404):
        open_session(store.id, NO_STORE)
    assert client.beta.sessions.list(memory_store_id=store.id).data == []


@pytest.mark.parametrize("length", [4_096, 4_097])
def test_instructions_hold_4096_characters(open_session: SessionMaker, store: Store, length: int) -> None:
    instructions = "é" * length
    if length <= 4_096:
        (resource,) = open_session(attached(store.id, instructions=instructions)).resources
        assert getattr(resource, "instructions", None) == instructions
    else:
        with refused(400) as refusal:
            open_session(attached(store.id, instructions=instructions))
        assert "resources.0.instructions" in refusal.error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"access": "write_only"},
        {"access": 1},
        {"instructions": 1},
        {"instructions": "\x00"},
        {"mount_path": "/mnt/memory/mine"},
        {"name": "mine"},
        {"description": "mine"},
        {"memory_store_id": None},
        {"type": "file"},
        {"type": "github_repository"},
        {"type": None},
    ],
    ids=str,
)
def test_an_attachment_that_is_not_understood_is_400(
    open_session: SessionMaker, store: Store, fields: dict[str, Any]
) -> None:
    with refused(400) as refusal:
        open_session({**attached(store.id), **fields})
    assert "resources.0" in refusal.error["message"]


# The resources of a session that is there


def test_resources_are_listed_and_retrieved(
    open_session: SessionMaker, client: anthropic.Anthropic, new_store: StoreMaker
) -> None:
    stores = [new_store(f"Store {number}") for number in range(3)]
    session = open_session(*(store.id for store in stores))
    page = client.beta.sessions.resources.list(session.id)
    assert page.data == session.resources
    assert page.next_page is None
    for resource in page.data:
        check_exact(resource)
    one = client.beta.sessions.resources.retrieve(stores[1].id, session_id=session.id)
    assert one == session.resources[1]
    client.beta.sessions.archive(session.id)
    assert client.beta.sessions.resources.list(session.id).data == session.resources


def test_resources_come_in_pages_when_asked(
    open_session: SessionMaker, client: anthropic.Anthropic, new_store: StoreMaker
) -> None:
    session = open_session(*(new_store(f"Store {number}").id for number in range(5)))
    other = open_session()
    resources = client.beta.sessions.resources
    assert list(resources.list(session.id, limit=2)) == session.resources
    first = resources.list(session.id, limit=2)
    assert first.data == session.resources[:2]
    assert resources.list(session.id, limit=5).next_page is None
    assert resources.list(session.id, limit=1_000).data == session.resources
    assert first.next_page is not None
    with refused(400):
        resources.list(other.id, page=first.next_page)
    for limit in (0, 1_001):
        with refused(400):
            resources.list(session.id, limit=limit)


@pytest.mark.parametrize("resource_id", [NO_STORE, "sesrsc_011CZkZaBF1tNoB5wlCeusgy"])
def test_a_resource_that_is_not_attached_is_404(
    open_session: SessionMaker, client: anthropic.Anthropic, store: Store, resource_id: str
) -> None:
    session = open_session(store.id)
    with refused(404):
        client.beta.sessions.resources.retrieve(resource_id, session_id=session.id)


def test_nothing_is_added_to_a_session_that_is_there(
    open_session: SessionMaker, client: anthropic.Anthropic, http: httpx2.Client, store: Store
) -> None:
    session = open_session()
    resources = f"/v1/sessions/{session.id}/resources"
    error = check_refusal(http.post(resources, json=attached(store.id)), 400)
    assert "when a session is created" in error["message"]
    with refused(400):
        client.beta.sessions.resources.add(session.id, type="file", file_id="file_1")
    check_refusal(http.post(resources, json={}), 400)
    assert client.beta.sessions.retrieve(session.id).resources == []


def test_an_attachment_is_neither_changed_nor_removed(
    open_session: SessionMaker, client: anthropic.Anthropic, http: httpx2.Client, store: Store
) -> None:
    session = open_session(store.id)
    resource = f"/v1/sessions/{session.id}/resources/{store.id}"
    for method in ("POST", "DELETE"):
        check_refusal(http.request(method, resource), 405)
    assert client.beta.sessions.retrieve(session.id).resources == session.resources


def test_every_version_of_a_store_can_be_found_by_the_session_that_wrote_it(
    open_session: SessionMaker, client: anthropic.Anthropic, store: Store
) -> None:
    sessions = [open_session(store.id) for _ in range(2)]
    for number, session in itertools.product(range(3), sessions):
        with open_session.sign_in(session.id) as agent:
            agent.beta.memory_stores.memories.create(store.id, path=f"/{session.id}/{number}", content=str(number))
    client.beta.memory_stores.memories.create(store.id, path="/mine", content="mine")
    for session in sessions:
        written = list(client.beta.memory_stores.memory_versions.list(store.id, session_id=session.id, limit=2))
        assert [version.path for version in written] == [f"/{session.id}/{number}" for number in (2, 1, 0)]
        assert {getattr(version.created_by, "session_id", None) for version in written} == {session.id}

"""Random stories of one store, told through several servers in turn, against the plain reference."""

from contextlib import ExitStack
from typing import Any, ClassVar

import httpx2
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.concurrency.fleet import STORES, Fleet, Item, accepted, refusal
from tests.concurrency.reference import Reference, Refused, Version
from tests.contract.shapes import sha256

CONTENTS = st.sampled_from(["", "a", "b", "é", "c" * 300])
PATHS = st.lists(st.sampled_from(["a", "a!", "b"]), min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
EXPECTATIONS = st.sampled_from([None, None, "current", "stale"])
STALE = sha256("what the memory never held")
CLIENTS = 3
# A failure is told as it was found: making it shorter can take longer than a test may.
SETTINGS = settings(max_examples=30, stateful_step_count=30, phases=(Phase.generate,))


class StoreStory(RuleBasedStateMachine):
    """Each step is one request, by whichever client; the answer must be the one that the reference gives."""

    http: ClassVar[list[httpx2.Client]]

    def __init__(self) -> None:
        super().__init__()
        self.reference = Reference()
        self.memory_ids: list[str] = []
        self.store_id = accepted(self.http[0].post(STORES, json={"name": "story"}))["id"]

    def teardown(self) -> None:
        accepted(self.http[0].delete(f"{STORES}/{self.store_id}"))

    def _call(self, client: int, method: str, path: str, **options: Any) -> httpx2.Response:
        return self.http[client].request(method, f"{STORES}/{self.store_id}{path}", **options)

    def _expected(self, memory_id: str, expectation: str | None) -> str | None:
        head = self.reference.heads.get(memory_id)
        if expectation == "current" and head is not None and head.content is not None:
            return sha256(head.content)
        return None if expectation is None else STALE

    def _newest_version(self, client: int) -> Item:
        page = accepted(self._call(client, "GET", "/memory_versions", params={"limit": 1, "view": "full"}))
        (version,) = page["data"]
        return dict(version)

    def _note(self, client: int, version: Version) -> None:
        """The store's newest version, and no other, is the one that the last request made."""
        newest = self._newest_version(client)
        version.id = version.id or newest["id"]
        assert version.facts.items() <= newest.items()
        self.reference.add(version)

    def _check_refusal(self, answer: httpx2.Response, refused: Refused) -> Item:
        assert refusal(answer) == refused.type, answer.text
        error: Item = answer.json()["error"]
        return error

    def _check_conflict(self, error: Item, path: str, memory_id: str | None) -> None:
        if "conflicting_path" in error:
            in_the_way = self.reference.in_the_way(path, memory_id)
            assert in_the_way[error["conflicting_memory_id"]] == error["conflicting_path"]

    @rule(client=st.integers(0, CLIENTS - 1), path=PATHS, content=CONTENTS)
    def create(self, client: int, path: str, content: str) -> None:
        answer = self._call(client, "POST", "/memories", json={"path": path, "content": content})
        try:
            self.reference.check_create(path)
        except Refused as refused:
            self._check_conflict(self._check_refusal(answer, refused), path, None)
            return
        memory = accepted(answer)
        self.memory_ids.append(memory["id"])
        self._note(client, Version(memory["memory_version_id"], memory["id"], "created", path, content))

    @precondition(lambda self: self.memory_ids)
    @rule(
        data=st.data(),
        client=st.integers(0, CLIENTS - 1),
        content=st.none() | CONTENTS,
        path=st.none() | PATHS,
        expectation=EXPECTATIONS,
    )
    def update(
        self, data: st.DataObject, client: int, content: str | None, path: str | None, expectation: str | None
    ) -> None:
        if content is None and path is None:
            content = ""
        memory_id = data.draw(st.sampled_from(self.memory_ids))
        expected = self._expected(memory_id, expectation)
        body: dict[str, Any] = {"content": content, "path": path}
        if expected is not None:
            body |= {"precondition": {"type": "content_sha256", "content_sha256": expected}}
        answer = self._call(client, "POST", f"/memories/{memory_id}", params={"view": "full"}, json=body)
        try:
            makes_version = self.reference.check_update(memory_id, content, path, expected)
        except Refused as refused:
            self._check_conflict(self._check_refusal(answer, refused), path or "", memory_id)
            return
        memory, head = accepted(answer), self.reference.heads[memory_id]
        if makes_version:
            head = Version(
                memory["memory_version_id"],
                memory_id,
                "modified",
                head.path if path is None else path,
                head.content if content is None else content,
            )
            self._note(client, head)
        assert (memory["memory_version_id"], memory["path"], memory["content"]) == (head.id, head.path, head.content)

    @precondition(lambda self: self.memory_ids)
    @rule(data=st.data(), client=st.integers(0, CLIENTS - 1), expectation=EXPECTATIONS)
    def delete(self, data: st.DataObject, client: int, expectation: str | None) -> None:
        memory_id = data.draw(st.sampled_from(self.memory_ids))
        expected = self._expected(memory_id, expectation)
        query = {} if expected is None else {"expected_content_sha256": expected}
        answer = self._call(client, "DELETE", f"/memories/{memory_id}", params=query)
        try:
            self.reference.check_delete(memory_id, expected)
        except Refused as refused:
            self._check_refusal(answer, refused)
            return
        assert accepted(answer) == {"id": memory_id, "type": "memory_deleted"}
        self._note(client, Version("", memory_id, "deleted", self.reference.heads[memory_id].path, None))

    @precondition(lambda self: self.reference.versions)
    @rule(data=st.data(), client=st.integers(0, CLIENTS - 1))
    def redact(self, data: st.DataObject, client: int) -> None:
        version = data.draw(st.sampled_from(self.reference.versions))
        answer = self._call(client, "POST", f"/memory_versions/{version.id}/redact")
        try:
            self.reference.check_redact(version)
        except Refused as refused:
            self._check_refusal(answer, refused)
            return
        version.path = version.content = None
        version.redacted = True
        assert version.facts.items() <= accepted(answer).items()

    @precondition(lambda self: len(self.reference.versions) > 10)
    @rule(client=st.integers(0, CLIENTS - 1))
    def archive(self, client: int) -> None:
        assert accepted(self._call(client, "POST", "/archive"))["archived_at"] is not None
        self.reference.archived = True

    def _whole_listing(self, client: int, kind: str, **query: Any) -> list[Item]:
        items: list[Item] = []
        cursor: dict[str, str] = {}
        while True:
            page = accepted(self._call(client, "GET", f"/{kind}", params={**query, **cursor}))
            items += page["data"]
            if page["next_page"] is None:
                return items
            cursor = {"page": page["next_page"]}

    @rule(
        client=st.integers(0, CLIENTS - 1),
        prefix=st.sampled_from(["/", "/a/", "/a/b/", "/nowhere/"]),
        depth=st.sampled_from([0, 1]),
        limit=st.sampled_from([1, 3, 100]),
    )
    def list_memories(self, client: int, prefix: str, depth: int, limit: int) -> None:
        query = {"path_prefix": prefix, "depth": depth, "limit": limit, "view": "full"}
        items = self._whole_listing(client, "memories", **query)
        assert [item["path"] for item in items] == self.reference.listing(prefix, depth)
        for item in items:
            if item["type"] == "memory":
                head = self.reference.heads[item["id"]]
                assert (item["memory_version_id"], item["path"]) == (head.id, head.path)
                assert item["content"] == head.content

    @rule(client=st.integers(0, CLIENTS - 1), limit=st.sampled_from([2, 100]))
    def list_versions(self, client: int, limit: int) -> None:
        versions = self._whole_listing(client, "memory_versions", limit=limit, view="full")
        assert len(versions) == len(self.reference.versions)
        for version, told in zip(reversed(versions), self.reference.versions, strict=True):
            assert told.facts.items() <= version.items()
            assert (version["redacted_at"] is not None) == told.redacted

    @invariant()
    def every_memory_reads_as_the_reference_has_it(self) -> None:
        for memory_id in self.memory_ids[-2:]:
            answer = self._call(len(self.memory_ids) % CLIENTS, "GET", f"/memories/{memory_id}")
            head = self.reference.heads.get(memory_id)
            if head is None:
                assert answer.status_code == 404
            else:
                memory = accepted(answer)
                assert (memory["memory_version_id"], memory["content"]) == (head.id, head.content)


def test_a_store_behind_several_servers_behaves_as_the_reference_does(fleet: Fleet) -> None:
    with ExitStack() as clients:
        servers = [*fleet.servers, *fleet.servers][:CLIENTS]

        class Story(StoreStory):
            http: ClassVar = [clients.enter_context(server.http()) for server in servers]

        run_state_machine_as_test(Story, settings=SETTINGS)
    assert fleet.fsck_until_settled() == []

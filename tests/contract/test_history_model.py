"""Random stories of one store: every past state and every rollback against a plain copy of each state."""

import itertools
import json
from collections.abc import Iterator
from typing import ClassVar

import httpx2
from anthropic import Anthropic
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.contract.history_calls import Item, Told, ok
from tests.support.servers import Server

CONTENTS = st.sampled_from(["", "a", "b\n", "é" * 20])
PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
# A failure is told as it was found: making it shorter can take longer than a test may.
SETTINGS = settings(
    max_examples=15, stateful_step_count=30, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)

State = dict[str, tuple[str, str]]
"""Path and content by memory."""


class HistoryStory(RuleBasedStateMachine):
    """`states[n]` is the store after change n, as the answers told it; `versions[n]` the version that change made."""

    http: ClassVar[httpx2.Client]
    client: ClassVar[Anthropic]
    store_ids: ClassVar[list[str]]
    """All stories' stores: they stay for fsck."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Told(self.http, self.client, self.client.beta.memory_stores.create(name="history").id)
        self.store_ids.append(self.told.store_id)
        self.states: list[State] = [{}]
        self.known: list[str] = []
        self.of: dict[str, tuple[str, str, str]] = {}
        """Memory, path and content of each version with content."""

    @property
    def now(self) -> State:
        return self.states[-1]

    def _is_free(self, path: str, but: str | None = None) -> bool:
        return not any(
            memory_id != but and (other == path or other.startswith(f"{path}/") or path.startswith(f"{other}/"))
            for memory_id, (other, _) in self.now.items()
        )

    def _note(self, memory: Item) -> None:
        state = (memory["path"], memory["content"])
        self.states.append({**self.now, memory["id"]: state})
        self.of[memory["memory_version_id"]] = (memory["id"], *state)

    @rule(path=PATHS, content=CONTENTS)
    def create(self, path: str, content: str) -> None:
        if self._is_free(path):
            made = ok(self.http.post(f"{self.told.url}/memories?view=full", json={"path": path, "content": content}))
            self.known.append(made["id"])
            self._note(made)

    @precondition(lambda self: self.now)
    @rule(data=st.data(), path=st.none() | PATHS, content=st.none() | CONTENTS)
    def update(self, data: st.DataObject, path: str | None, content: str | None) -> None:
        memory_id = data.draw(st.sampled_from(sorted(self.now)))
        path = path if path is not None and self._is_free(path, memory_id) else None
        changes = {name: value for name, value in (("path", path), ("content", content)) if value is not None}
        if not changes:
            return
        before = self.now[memory_id]
        memory = ok(self.http.post(f"{self.told.url}/memories/{memory_id}?view=full", json=changes))
        if (memory["path"], memory["content"]) != before:
            self._note(memory)

    @precondition(lambda self: self.now)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        memory_id = data.draw(st.sampled_from(sorted(self.now)))
        ok(self.http.delete(f"{self.told.url}/memories/{memory_id}"))
        self.states.append({key: value for key, value in self.now.items() if key != memory_id})

    @precondition(lambda self: self.of)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        version_id = data.draw(st.sampled_from(sorted(self.of)))
        memory_id, path, content = self.of[version_id]
        answer = self.told.restore(version_id)
        if not self._is_free(path, memory_id):
            assert answer.status_code == 409, answer.text
            return
        memory = ok(answer)
        assert (memory["id"], memory["path"], memory["content"]) == (memory_id, path, content)
        if self.now.get(memory_id) != (path, content):
            self._note(memory)

    @precondition(lambda self: len(self.states) > 2)
    @rule(data=st.data(), dry_run=st.booleans())
    def roll_back(self, data: st.DataObject, dry_run: bool) -> None:
        seq = data.draw(st.integers(0, len(self.states) - 1))
        before, wanted = self.now, self.states[seq]
        body = ok(self.told.roll_back(seq=seq, dry_run=dry_run))
        changed = {memory_id for memory_id in {*before, *wanted} if before.get(memory_id) != wanted.get(memory_id)}
        assert {change["memory_id"] for change in body["changes"]} == changed
        assert len(body["changes"]) <= 2 * len(changed)
        if dry_run:
            return
        # In between are the states that a follower of the changes goes through.
        for change in body["changes"]:
            state = {key: value for key, value in self.now.items() if key != change["memory_id"]}
            if change["operation"] != "deleted":
                state[change["memory_id"]] = wanted[change["memory_id"]]
                self.of[change["memory_version_id"]] = (change["memory_id"], *wanted[change["memory_id"]])
            self.states.append(state)
        assert self.now == wanted
        assert body["last_seq"] == len(self.states) - 1

    @rule(data=st.data(), limit=st.sampled_from([1, 3, 20]), by_time=st.booleans())
    def look_back(self, data: st.DataObject, limit: int, by_time: bool) -> None:
        seq = data.draw(st.integers(0, len(self.states) - 1))
        query: dict[str, int | str] = {"seq": seq}
        if by_time and seq:
            (change,) = ok(self.http.get(f"{self.told.url}/changes", params={"after": seq - 1, "limit": 1}))["data"]
            query = {"at": change["created_at"]}
            # Changes of one moment come together.
            seq = ok(self.told.as_of(**query))["seq"]
        found = self.told.whole_as_of(view="full", limit=limit, **query)
        assert {item["memory_id"]: (item["path"], item["content"]) for item in found} == self.states[seq]
        paths = [item["path"].encode() for item in found]
        assert paths == sorted(paths)
        for memory_id in self.known[-3:]:
            answer = self.told.retrieve_as_of({"id": memory_id}, seq=seq)
            if memory_id in self.states[seq]:
                assert (ok(answer)["path"], ok(answer)["content"]) == self.states[seq][memory_id]
            else:
                assert answer.status_code == 404, answer.text

    @rule()
    def look_at_it_now(self) -> None:
        listed: Iterator[Item] = itertools.chain.from_iterable(self._pages())
        assert {item["id"]: (item["path"], item["content"]) for item in listed} == self.now
        assert self.told.last_seq == len(self.states) - 1

    def _pages(self) -> Iterator[list[Item]]:
        query: dict[str, str] = {"view": "full"}
        while True:
            page = ok(self.http.get(f"{self.told.url}/memories", params=query))
            yield page["data"]
            if page["next_page"] is None:
                return
            query["page"] = page["next_page"]


def test_every_state_can_be_read_and_brought_back(server: Server, http: httpx2.Client, client: Anthropic) -> None:
    class Story(HistoryStory):
        pass

    Story.http, Story.client, Story.store_ids = http, client, []
    run_state_machine_as_test(Story, settings=SETTINGS)
    findings = json.loads(server.cli("fsck", "--json", check=False).stdout)["findings"]
    assert [finding for finding in findings if finding["store_id"] in Story.store_ids] == []
    for store_id in Story.store_ids:
        client.beta.memory_stores.delete(store_id)

"""The routes of the history, called as a program would."""

from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2

Item = dict[str, Any]


def ok(response: httpx2.Response) -> Item:
    """The body of a good answer."""
    assert response.status_code == 200, response.text
    body: Item = response.json()
    return body


@dataclass(frozen=True)
class Told:
    """One store, written through the SDK and looked back on through our own routes."""

    http: httpx2.Client
    client: anthropic.Anthropic
    store_id: str

    @property
    def url(self) -> str:
        return f"/v1/memory_stores/{self.store_id}"

    def create(self, path: str, content: str) -> Item:
        return self.client.beta.memory_stores.memories.create(self.store_id, path=path, content=content).to_dict(
            mode="json"
        )

    def update(self, memory: Item, **changes: str) -> Item:
        memories = self.client.beta.memory_stores.memories
        return memories.update(memory["id"], memory_store_id=self.store_id, **changes).to_dict(mode="json")  # type: ignore[arg-type]

    def delete(self, memory: Item) -> None:
        self.client.beta.memory_stores.memories.delete(memory["id"], memory_store_id=self.store_id)

    def redact(self, version_id: str) -> None:
        ok(self.http.post(f"{self.url}/memory_versions/{version_id}/redact"))

    def versions(self, memory: Item | None = None) -> list[Item]:
        """Oldest first."""
        query: dict[str, int | str] = {"limit": 100} | ({"memory_id": memory["id"]} if memory else {})
        data: list[Item] = ok(self.http.get(f"{self.url}/memory_versions", params=query))["data"]
        return data[::-1]

    @property
    def last_seq(self) -> int:
        seq: int = ok(self.http.get(f"{self.url}/changes"))["last_seq"]
        return seq

    def tree(self) -> dict[str, tuple[str, str]]:
        """ID and content by path."""
        memories = self.client.beta.memory_stores.memories.list(self.store_id, view="full", limit=20)
        return {item.path: (item.id, item.content or "") for item in memories if item.type == "memory"}

    def restore(self, version_id: str, **body: Any) -> httpx2.Response:
        return self.http.post(f"{self.url}/memory_versions/{version_id}/restore", json=body, params={"view": "full"})

    def compare(self, **query: str) -> httpx2.Response:
        return self.http.get(f"{self.url}/comparisons", params=query)

    def as_of(self, **query: Any) -> httpx2.Response:
        return self.http.get(f"{self.url}/as_of/memories", params=query)

    def whole_as_of(self, **query: Any) -> list[Item]:
        """Every page."""
        items: list[Item] = []
        cursor: dict[str, str] = {}
        while True:
            page = ok(self.as_of(**query, **cursor))
            items += page["data"]
            if page["next_page"] is None:
                return items
            cursor = {"page": page["next_page"]}

    def tree_as_of(self, **query: Any) -> dict[str, tuple[str, str]]:
        return {item["path"]: (item["memory_id"], item["content"]) for item in self.whole_as_of(view="full", **query)}

    def retrieve_as_of(self, memory: Item, **query: Any) -> httpx2.Response:
        return self.http.get(f"{self.url}/as_of/memories/{memory['id']}", params=query)

    def roll_back(self, **body: Any) -> httpx2.Response:
        return self.http.post(f"{self.url}/rollback", json=body)

    def blame(self, memory: Item) -> httpx2.Response:
        return self.http.get(f"{self.url}/memories/{memory['id']}/blame")

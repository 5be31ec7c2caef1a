"""The fourteen routes, as data, for the promises that hold on every one of them."""

from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True)
class Sample:
    """One store with one memory that was written twice, so that its first version can be redacted."""

    store: str
    memory: str
    version: str


@dataclass(frozen=True)
class Route:
    """One route: how to call it so that it succeeds on a `Sample`."""

    name: str
    method: str
    template: str
    body: dict[str, Any] | None = None

    @property
    def takes_id(self) -> bool:
        return "{store}" in self.template

    def url(self, sample: Sample) -> str:
        return self.template.format(store=sample.store, memory=sample.memory, version=sample.version)

    def call(self, http: httpx2.Client, sample: Sample, **options: Any) -> httpx2.Response:
        return http.request(self.method, self.url(sample), **{"json": self.body, **options})


_STORES = "/v1/memory_stores"
_STORE = f"{_STORES}/{{store}}"
_MEMORIES = f"{_STORE}/memories"
_MEMORY = f"{_MEMORIES}/{{memory}}"
_VERSIONS = f"{_STORE}/memory_versions"
_VERSION = f"{_VERSIONS}/{{version}}"

ROUTES = [
    Route("create-store", "POST", _STORES, {"name": "made by a route test"}),
    Route("list-stores", "GET", _STORES),
    Route("retrieve-store", "GET", _STORE),
    Route("update-store", "POST", _STORE, {"description": "changed"}),
    Route("archive-store", "POST", f"{_STORE}/archive"),
    Route("delete-store", "DELETE", _STORE),
    Route("create-memory", "POST", _MEMORIES, {"path": "/new.md", "content": "new"}),
    Route("list-memories", "GET", _MEMORIES),
    Route("retrieve-memory", "GET", _MEMORY),
    Route("update-memory", "POST", _MEMORY, {"content": "changed"}),
    Route("delete-memory", "DELETE", _MEMORY),
    Route("list-versions", "GET", _VERSIONS),
    Route("retrieve-version", "GET", _VERSION),
    Route("redact-version", "POST", f"{_VERSION}/redact"),
]

ROUTES_WITH_ID = [route for route in ROUTES if route.takes_id]
ROUTES_WITH_BODY = [route for route in ROUTES if route.body is not None]
LISTS = [route for route in ROUTES if route.name.startswith("list-")]


def name_of(route: Route) -> str:
    """The test ID of a route."""
    return route.name

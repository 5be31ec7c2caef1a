"""Random path sets against a small reference model: who may exist beside whom, and what every page shows."""

from collections.abc import Iterator

import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.shapes import PATH_CONFLICT, refused
from tests.support.servers import Server

# Characters around "/" in byte order, wildcards of SQL, and some that UTF-16 would order differently.
SEGMENTS = ["a", "A", "a!", "a-", "a.b", "a0", "b", "%", "_", "\\", "é", "\ufffd", "\U0001f989"]

paths = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def conflicts(path: str, existing: str) -> bool:
    """A path is used once, and is a memory or a directory."""
    return path == existing or path.startswith(existing + "/") or existing.startswith(path + "/")


def listing(existing: list[str], prefix: str, depth: int) -> list[str]:
    """The paths of a whole listing, in order."""
    below = [path[len(prefix) :] for path in existing if path.startswith(prefix)]
    if depth == 1:
        below = [head + slash for head, slash, _ in (rest.partition("/") for rest in below)]
    return sorted({prefix + rest for rest in below}, key=str.encode)


def prefixes(existing: list[str]) -> list[str]:
    """Every directory, the root, and one that is not there."""
    ends = {path[: end + 1] for path in existing for end, character in enumerate(path) if character == "/"}
    return sorted(ends | {"/", "/a/", "/nowhere/"})


@pytest.fixture(scope="module")
def stores(server: Server) -> Iterator[MemoryStores]:
    with server.client(max_retries=0) as client:
        yield client.beta.memory_stores


def _write(memories: Memories, store_id: str, wanted: list[str]) -> list[str]:
    existing: list[str] = []
    for path in wanted:
        if any(conflicts(path, other) for other in existing):
            with refused(409, PATH_CONFLICT) as refusal:
                memories.create(store_id, path=path, content=path)
            assert conflicts(path, refusal.error["conflicting_path"])
            assert refusal.error["conflicting_path"] in existing
        else:
            memories.create(store_id, path=path, content=path)
            existing.append(path)
    return existing


def _pages(memories: Memories, store_id: str, prefix: str, depth: int, limit: int) -> list[list[str]]:
    page = memories.list(store_id, path_prefix=prefix, depth=depth, limit=limit)
    pages = [[item.path for item in page.data]]
    while page.next_page is not None:
        page = memories.list(store_id, path_prefix=prefix, depth=depth, limit=limit, page=page.next_page)
        pages.append([item.path for item in page.data])
    return pages


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(wanted=st.lists(paths, min_size=1, max_size=14), data=st.data())
def test_pages_of_every_size_give_the_listing_of_the_reference_model(
    stores: MemoryStores, wanted: list[str], data: st.DataObject
) -> None:
    store = stores.create(name="model")
    existing = _write(stores.memories, store.id, wanted)
    prefix = data.draw(st.sampled_from(["/", "/", *prefixes(existing)]), label="prefix")
    for depth in (0, 1):
        expected = listing(existing, prefix, depth)
        for limit in range(1, len(expected) + 2):
            pages = _pages(stores.memories, store.id, prefix, depth, limit)
            assert [path for page in pages for path in page] == expected
            assert all(len(page) == limit for page in pages[:-1])
            assert len(pages) == max(1, -(-len(expected) // limit)), "no empty page at the end"
    stores.delete(store.id)

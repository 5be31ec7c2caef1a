"""The cache of contents: bounded by bytes, and the least recently used goes first."""

from hypothesis import given
from hypothesis import strategies as st

from app.storage.contents.reading import ContentCache

stores = st.sampled_from(["memstore_1", "memstore_2"])
digests = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
# As in the service, the digest decides the content.
SIZES = {b"a": 0, b"b": 1, b"c": 2, b"d": 3, b"e": 20}

actions = st.lists(st.tuples(st.sampled_from(["get", "put"]), stores, digests), min_size=5, max_size=40)


class Model:
    """The same promise, written down without a thought for speed: a list, the least recently used first."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.entries: list[tuple[str, bytes]] = []

    @property
    def size(self) -> int:
        return sum(SIZES[digest] for _, digest in self.entries)

    def use(self, store: str, digest: bytes) -> bool:
        there = (store, digest) in self.entries
        if there:
            self.entries.remove((store, digest))
            self.entries.append((store, digest))
        return there

    def put(self, store: str, digest: bytes) -> None:
        if self.use(store, digest):
            return
        self.entries.append((store, digest))
        while self.size > self.maximum:
            self.entries.pop(0)


@given(st.integers(0, 8), actions)
def test_the_cache_holds_what_a_plain_model_holds(maximum: int, done: list[tuple[str, str, bytes]]) -> None:
    cache, model = ContentCache(maximum), Model(maximum)
    for action, store, digest in done:
        content = digest * SIZES[digest]
        if action == "put":
            cache.put(store, digest, content, cache.now())
            model.put(store, digest)
        else:
            assert cache.get(store, digest) == (content if model.use(store, digest) else None)
        assert cache.bytes == model.size <= maximum


def test_what_was_read_lately_outlives_what_was_not() -> None:
    cache = ContentCache(2)
    cache.put("s", b"1", b"x", cache.now())
    cache.put("s", b"2", b"y", cache.now())
    assert cache.get("s", b"1") == b"x"
    cache.put("s", b"3", b"z", cache.now())
    assert [cache.get("s", digest) for digest in (b"1", b"2", b"3")] == [b"x", None, b"z"]


def test_what_was_written_again_outlives_what_was_not() -> None:
    cache = ContentCache(2)
    for digest in (b"1", b"2", b"1", b"3"):
        cache.put("s", digest, b"x", cache.now())
    assert [cache.get("s", digest) for digest in (b"1", b"2", b"3")] == [b"x", None, b"x"]


def test_one_store_never_gets_a_content_from_another() -> None:
    cache = ContentCache(100)
    cache.put("memstore_1", b"digest", b"content", cache.now())
    assert cache.get("memstore_2", b"digest") is None


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = ContentCache(0)
    cache.put("s", b"1", b"x", cache.now())
    assert cache.get("s", b"1") is None
    assert cache.bytes == 0

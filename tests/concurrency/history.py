"""The history of a store, as its rows tell it, against the rules that must hold after every single version."""

from dataclasses import dataclass, field

from tests.concurrency.fleet import Rows
from tests.concurrency.limits import MAX_MEMORIES, MAX_STORE_BYTES

CREATED, MODIFIED, DELETED = 1, 2, 3


def conflicts(path: str, other: str) -> bool:
    """Two memories can't be at these paths: they are one path, or one would be a directory."""
    return path == other or path.startswith(other + "/") or other.startswith(path + "/")


@dataclass(frozen=True)
class Version:
    """A row of `memory_versions`; `sha256` is in hexadecimal digits."""

    seq: int
    id: str
    memory_id: str
    operation: int
    path: str
    sha256: str | None
    size: int


@dataclass
class History:
    """A store's versions in order, applied one by one to an empty store."""

    versions: list[Version]
    live: dict[str, Version] = field(default_factory=dict)
    """The head of each memory that is there."""

    def __post_init__(self) -> None:
        assert [version.seq for version in self.versions] == list(range(1, len(self.versions) + 1))
        for version in self.versions:
            self._apply(version)

    @property
    def heads(self) -> dict[str, str | None]:
        """The digest at each path."""
        return {version.path: version.sha256 for version in self.live.values()}

    @property
    def total_bytes(self) -> int:
        return sum(version.size for version in self.live.values())

    def before(self, version: Version) -> Version:
        """The version of the same memory that this one replaced."""
        return next(
            older for older in reversed(self.versions[: version.seq - 1]) if older.memory_id == version.memory_id
        )

    def _apply(self, version: Version) -> None:
        head = self.live.pop(version.memory_id, None)
        assert (head is None) == (version.operation == CREATED), f"{version} after {head}"
        if version.operation == DELETED:
            assert head is not None
            assert (version.path, version.sha256) == (head.path, None)
            return
        if head is not None:
            assert (version.path, version.sha256) != (head.path, head.sha256), f"{version} changed nothing"
        in_the_way = [other for other in self.live.values() if conflicts(version.path, other.path)]
        assert not in_the_way, f"{version} was let in beside {in_the_way}"
        self.live[version.memory_id] = version
        assert len(self.live) <= MAX_MEMORIES
        assert self.total_bytes <= MAX_STORE_BYTES


async def read_history(rows: Rows, store_id: str) -> History:
    """The history in the database; nothing of it may be redacted or expired."""
    versions = await rows.fetch(
        f"""
        SELECT seq, id, memory_id, operation, path, content_sha256, coalesce(content_size, 0)
          FROM memory_versions WHERE store_id = '{store_id}' ORDER BY seq
        """
    )
    return History(
        [
            Version(seq, version_id, memory_id, operation, path, digest and bytes(digest).hex(), size)
            for seq, version_id, memory_id, operation, path, digest, size in versions
        ]
    )


async def check_history(rows: Rows, store_id: str) -> History:
    """A whole and lawful history that agrees with the heads and with the store's counters."""
    history = await read_history(rows, store_id)
    heads = await rows.fetch(f"SELECT path, content_sha256 FROM memories WHERE store_id = '{store_id}'")
    assert {path: bytes(digest).hex() for path, digest in heads} == history.heads
    assert await rows.counters(store_id) == {
        "last_seq": len(history.versions),
        "memory_count": len(history.live),
        "total_bytes": history.total_bytes,
        "real_count": len(history.live),
        "real_bytes": history.total_bytes,
    }
    return history

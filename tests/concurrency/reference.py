"""A memory store in plain Python, as the contract describes it (parts 2 and 3): the reference for the real one."""

from dataclasses import dataclass, field

from tests.concurrency.history import conflicts
from tests.contract.shapes import INVALID_REQUEST, PATH_CONFLICT, PRECONDITION_FAILED, sha256

NOT_FOUND = "not_found_error"


class Refused(Exception):
    """What the contract refuses; `type` is the wire's `error.type`."""

    def __init__(self, error_type: str) -> None:
        super().__init__(error_type)
        self.type = error_type


@dataclass
class Version:
    id: str
    memory_id: str
    operation: str
    path: str | None
    content: str | None
    redacted: bool = False

    @property
    def facts(self) -> dict[str, object]:
        """The part of the wire's shape that the reference foretells."""
        return {
            "id": self.id,
            "memory_id": self.memory_id,
            "operation": self.operation,
            "path": self.path,
            "content": self.content,
            "content_sha256": None if self.content is None else sha256(self.content),
            "content_size_bytes": None if self.content is None else len(self.content.encode()),
        }


@dataclass
class Reference:
    """`heads` holds the newest version of each memory that is there; `versions` all of them, oldest first."""

    heads: dict[str, Version] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    archived: bool = False

    def check_create(self, path: str) -> None:
        """Raise `Refused` if a memory can't be made at the path."""
        self._check_writable()
        self._check_path(path, None)

    def check_update(self, memory_id: str, content: str | None, path: str | None, expected: str | None) -> bool:
        """Raise `Refused` if the update can't be; else whether it makes a version."""
        head = self._head(memory_id)
        self._check_writable()
        assert head.path is not None
        assert head.content is not None
        if content in (None, head.content) and path in (None, head.path):
            return False
        self._check_expected(head, expected)
        if path not in (None, head.path):
            assert path is not None
            self._check_path(path, memory_id)
        return True

    def check_delete(self, memory_id: str, expected: str | None) -> None:
        """Raise `Refused` if the memory can't be deleted."""
        self._check_expected(self._head(memory_id), expected)

    def check_redact(self, version: Version) -> None:
        """Raise `Refused` if the version holds what its memory holds now."""
        if self.heads.get(version.memory_id) is version:
            raise Refused(INVALID_REQUEST)

    def add(self, version: Version) -> None:
        """Take note of a version that the store has made."""
        self.versions.append(version)
        if version.operation == "deleted":
            del self.heads[version.memory_id]
        else:
            self.heads[version.memory_id] = version

    def in_the_way(self, path: str, memory_id: str | None) -> dict[str, str]:
        """The paths of other memories that can't be beside `path`, by ID."""
        return {
            other: head.path
            for other, head in self.heads.items()
            if head.path is not None and other != memory_id and conflicts(path, head.path)
        }

    def listing(self, prefix: str, depth: int) -> list[str]:
        """The paths that a listing shows, in order."""
        paths = [head.path for head in self.heads.values() if head.path is not None]
        below = [path.removeprefix(prefix).partition("/") for path in paths if path.startswith(prefix)]
        shown = {prefix + (name + slash if depth == 1 else name + slash + rest) for name, slash, rest in below}
        return sorted(shown, key=str.encode)

    def _head(self, memory_id: str) -> Version:
        if memory_id not in self.heads:
            raise Refused(NOT_FOUND)
        return self.heads[memory_id]

    def _check_writable(self) -> None:
        if self.archived:
            raise Refused(INVALID_REQUEST)

    def _check_path(self, path: str, memory_id: str | None) -> None:
        if self.in_the_way(path, memory_id):
            raise Refused(PATH_CONFLICT)

    @staticmethod
    def _check_expected(head: Version, expected: str | None) -> None:
        assert head.content is not None
        if expected not in (None, sha256(head.content)):
            raise Refused(PRECONDITION_FAILED)

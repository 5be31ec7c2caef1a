"""Writes that are accepted and not yet answered: what each means, and how the journal keeps it."""

import threading
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from app.mount.door.entries import Entry
from app.mount.sync.errors import Refused


class Kind(Enum):
    """What an intent does."""

    SAVE = "save"
    """Put the content at `path`."""
    REMOVE = "remove"
    """Delete the memory at `path`."""
    RENAME = "rename"
    """Give the memory at `path` the path `new_path`."""
    REPLACE = "replace"
    """Put the content, which is that of the memory at `path`, into the one at `new_path`; delete the first."""
    TREE = "tree"
    """Rename everything below `path` to below `new_path`; both end with `/`."""


@dataclass(frozen=True, slots=True)
class Base:
    """The memory as the writer knew it. The IDs are None if the server did not have it then."""

    sha256: str
    memory_id: str | None
    version_id: str | None

    @classmethod
    def of(cls, entry: Entry) -> "Base":
        """What matters of an entry."""
        return cls(entry.sha256, entry.memory_id, entry.version_id)


@dataclass(slots=True, eq=False)
class Intent:
    """One write. Its number is its place in the order of all writes of the store."""

    number: int
    kind: Kind
    path: str
    new_path: str | None = None
    base: Base | None = None
    """What is at `path`; None for a SAVE where nothing should be."""
    base_text: bytes | None = None
    """SAVE: the content of `base`, UTF-8, where the server may never have had it. The journal also keeps it."""
    target: Base | None = None
    """REPLACE: what is at `new_path`."""
    sha256: str | None = None
    size: int = 0
    mtime_ns: int = 0
    moves: list[Entry] = field(default_factory=list)
    """TREE: what was below `path`, with its old paths."""
    attempted: bool = False
    """It may have reached the server without an answer."""
    sent: list[str] = field(default_factory=list)
    """Digests of merged texts that were sent in place of the content."""
    content: bytes | None = None
    """SAVE, REPLACE: UTF-8. None while the journal has it."""

    journaled: bool = False
    is_refused: bool = False
    """It is about to finish with an error, and its writer waits for that."""
    is_finished: bool = False
    news: threading.Event = field(default_factory=threading.Event)
    """Set when it is finished, and when an attempt had no answer."""
    given_up: Refused | None = None
    """Nobody keeps it: what it ends with if the server does not have it."""
    result: Entry | None = None
    error: Refused | None = None
    expected: dict[str, str | None] = field(default_factory=dict)
    """Path to the digest that is there when it is done; None: nothing. What its writer knows already."""

    def moved_path(self, path: str) -> str:
        """TREE: where a path below `path` goes."""
        assert self.new_path is not None
        return self.new_path + path[len(self.path) :]

    @property
    def paths(self) -> list[str]:
        """Every path it writes."""
        if self.kind is Kind.TREE:
            return [path for entry in self.moves for path in (entry.path, self.moved_path(entry.path))]
        return [self.path] if self.new_path is None else [self.path, self.new_path]

    @property
    def contents(self) -> list[str]:
        """Digests of what it writes, and of what it may have to be merged with."""
        known = [self.sha256, *(base.sha256 for base in (self.base, self.target) if base is not None)]
        return [sha256 for sha256 in known if sha256 is not None] + [entry.sha256 for entry in self.moves]

    @property
    def name(self) -> str:
        """The path that a report names."""
        return self.new_path or self.path

    def shown(self) -> dict[str, Entry | None]:
        """What the mount shows at each path while the intent is pending."""
        if self.kind is Kind.REMOVE:
            return {self.path: None}
        if self.kind is Kind.TREE:
            gone: dict[str, Entry | None] = {entry.path: None for entry in self.moves}
            return gone | {(new := self.moved_path(entry.path)): replace(entry, path=new) for entry in self.moves}
        base = self.target if self.kind is Kind.REPLACE else self.base
        memory_id, version_id = (base.memory_id, base.version_id) if base else (None, None)
        assert self.sha256 is not None
        entry = Entry(self.name, memory_id, version_id, self.sha256, self.size, self.mtime_ns)
        return {self.path: entry} if self.new_path is None else {self.path: None, self.new_path: entry}

    def header(self) -> dict[str, Any]:
        """All but the content, ready for JSON."""
        return {
            "number": self.number,
            "kind": self.kind.value,
            "path": self.path,
            "new_path": self.new_path,
            "base": asdict(self.base) if self.base else None,
            "base_text": None if self.base_text is None else self.base_text.decode(),
            "target": asdict(self.target) if self.target else None,
            "sha256": self.sha256,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "moves": [asdict(entry) for entry in self.moves],
            "sent": self.sent,
        }

    @classmethod
    def of_header(cls, header: dict[str, Any]) -> "Intent":
        """The intent of an earlier process: whether it reached the server is not known."""
        return cls(
            number=header["number"],
            kind=Kind(header["kind"]),
            path=header["path"],
            new_path=header["new_path"],
            base=Base(**header["base"]) if header["base"] else None,
            base_text=None if header["base_text"] is None else header["base_text"].encode(),
            target=Base(**header["target"]) if header["target"] else None,
            sha256=header["sha256"],
            size=header["size"],
            mtime_ns=header["mtime_ns"],
            moves=[Entry(**entry) for entry in header["moves"]],
            sent=header["sent"],
            attempted=True,
            journaled=True,
        )

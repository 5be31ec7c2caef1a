"""One change of one memory, from the call to the version that it makes."""

from dataclasses import dataclass
from typing import Any

from app.contract import clock, ids
from app.contract.actors import Actor, Caller
from app.contract.content import Content
from app.storage.rows.database import Row

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Write:
    """A change of a memory: its author and time, and the version it will be; `operation` as in its row."""

    workspace_id: str
    store_id: str
    memory_id: str
    version_id: str
    operation: int
    now: int
    actor: Actor

    @classmethod
    def begin(cls, caller: Caller, store_id: str, memory_id: str, operation: int) -> "Write":
        """A write of now, with a version ID of its own."""
        version_id = ids.new(ids.VERSION)
        return cls(caller.workspace_id, store_id, memory_id, version_id, operation, clock.now(), caller.actor)

    def parameters(self) -> Parameters:
        """For the statements that find, lock and write."""
        return {
            "workspace_id": self.workspace_id,
            "store_id": self.store_id,
            "memory_id": self.memory_id,
            "version_id": self.version_id,
            "operation": self.operation,
            "now": self.now,
            "actor_type": self.actor.type,
            "actor_id": self.actor.id,
        }

    def deletes(self, memory: Row, store: Row) -> Parameters:
        """For the statement that deletes a memory. Both rows are locked."""
        return self.parameters() | {
            "path": memory["path"],
            "sha256": None,
            "size": None,
            "seq": store["last_seq"] + 1,
            "count_change": -1,
            "bytes_change": -memory["content_size"],
        }


@dataclass(frozen=True, slots=True)
class Placed:
    """A write, and how it leaves the memory: what its statement takes and what is answered.

    sha256, size: of the content that the memory then has. seq: of the version in its store.
    created_at: of the memory. count_change, bytes_change: of what the store holds.
    """

    write: Write
    path: str
    sha256: bytes
    size: int
    seq: int
    created_at: int
    count_change: int
    bytes_change: int

    def parameters(self, content: Content | None) -> Parameters:
        """For the statement that writes; `content` where the memory gets a new one."""
        parameters = self.write.parameters() | {
            "path": self.path,
            "sha256": self.sha256,
            "size": self.size,
            "seq": self.seq,
            "count_change": self.count_change,
            "bytes_change": self.bytes_change,
        }
        if content is not None:
            parameters["content"] = content.data
        return parameters

    def row(self) -> Row:
        """The memory's row as the transaction left it."""
        return {
            "id": self.write.memory_id,
            "store_id": self.write.store_id,
            "version_id": self.write.version_id,
            "path": self.path,
            "content_sha256": self.sha256,
            "content_size": self.size,
            "created_at": self.created_at,
            "updated_at": self.write.now,
        }

"""What one store may hold, and the refusal of more."""

from dataclasses import dataclass

from app.contract.errors import InvalidRequest
from app.storage.rows.database import Row


@dataclass(frozen=True, slots=True)
class Limits:
    """What one store may hold."""

    max_memories: int
    max_bytes: int


def refuse_over(store: Row, limits: Limits, *, count: int, size: int) -> None:
    """Refuse a change after which a store would hold more than it may; one that makes it smaller always passes.

    store: its locked row. count: of memories that come, less those that go. size: the same in bytes.

    Raises:
        InvalidRequest: more memories or bytes than the limits, and than now.

    """
    if count > 0 and store["memory_count"] + count > limits.max_memories:
        raise InvalidRequest(
            f"the memory store would hold {store['memory_count'] + count:,} memories; "
            f"at most {limits.max_memories:,} are allowed"
        )
    if size > 0 and store["total_bytes"] + size > limits.max_bytes:
        raise InvalidRequest(
            f"the memory store's contents would be {store['total_bytes'] + size:,} bytes together; "
            f"at most {limits.max_bytes:,} are allowed"
        )

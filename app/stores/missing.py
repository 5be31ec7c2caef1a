"""The refusal for stores that are not there."""

from app.contract.errors import NotFound


def not_found(store_id: str) -> NotFound:
    """The refusal for a store that is unknown, deleted, or another workspace's."""
    return NotFound(f"memory store {store_id!r} was not found", store_id=store_id)

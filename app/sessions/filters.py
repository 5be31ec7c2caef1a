"""Which sessions a listing has."""

import json
from dataclasses import astuple, dataclass

IDLE = "idle"
TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class SessionFilters:
    """Filters of a listing; None is no filter. Times in microseconds since 1970."""

    include_archived: bool = False
    statuses: tuple[str, ...] | None = None
    agent_id: str | None = None
    agent_version: int | None = None
    store_id: str | None = None
    deployment_id: str | None = None
    created_from: int | None = None
    created_after: int | None = None
    created_to: int | None = None
    created_before: int | None = None

    def conditions(self) -> tuple[str, ...] | None:
        """The names of the conditions to put; None if no session can meet them."""
        if self.deployment_id is not None or not all(map(is_id, filter(None, (self.agent_id, self.store_id)))):
            return None
        wanted = {IDLE, TERMINATED} if self.statuses is None else {IDLE, TERMINATED} & set(self.statuses)
        if not self.include_archived:
            wanted.discard(TERMINATED)
        if not wanted:
            return None
        values = ["agent_id", "store_id", "created_from", "created_after", "created_to", "created_before"]
        if self.agent_id is not None:
            values.append("agent_version")  # a number alone says nothing of which agent
        names = [name for name in values if getattr(self, name) is not None]
        if wanted == {IDLE}:
            names.append("live")
        elif wanted == {TERMINATED}:
            names.append("archived")
        return tuple(names)

    def for_cursor(self) -> list[str | int | bool | None]:
        """All filters in a fixed order."""
        return [json.dumps(value) if isinstance(value, tuple) else value for value in astuple(self)]


def is_id(text_of_id: str) -> bool:
    """Whether a text from a body or query could name anything; what could not need not reach the database."""
    return text_of_id.isascii() and text_of_id.isprintable()

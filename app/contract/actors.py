"""The author of a change: the `created_by` and `redacted_by` of a version (contract, 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

API_KEY: Final = "api_actor"
SESSION: Final = "session_actor"
USER: Final = "user_actor"
SERVICE_ACCOUNT: Final = "service_account_actor"

ID_FIELDS: Final = {
    API_KEY: "api_key_id",
    SESSION: "session_id",
    USER: "user_id",
    SERVICE_ACCOUNT: "service_account_id",
}
"""The wire's name for the actor's ID, by the actor's type."""

READ_WRITE: Final = "read_write"
READ_ONLY: Final = "read_only"
"""How a session's agent may use an attached store (contract, 5.2)."""


@dataclass(frozen=True, slots=True)
class Actor:
    """One author: a type of the contract and the ID that goes with it."""

    type: str
    id: str


def wire(actor_type: str | None, actor_id: str | None) -> dict[str, str] | None:
    """The actor as the wire shows it, or None where no author was recorded."""
    if actor_type is None or actor_id is None:
        return None
    return {"type": actor_type, ID_FIELDS[actor_type]: actor_id}


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: the workspace whose things it sees, and the author of what it writes."""

    workspace_id: str
    actor: Actor
    session: "SessionScope | None" = None
    """What a session's token is confined to; None for an API key, which may do everything in its workspace."""


@dataclass(frozen=True, slots=True)
class SessionScope:
    """One session's token: the session, and the stores that its agent reads and writes."""

    session_id: str
    token_id: str
    stores: Mapping[str, bool]
    """The attached stores by ID; True where the agent may write."""

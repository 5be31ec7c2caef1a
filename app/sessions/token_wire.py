"""Shapes of sessions' tokens on the wire, which are ours."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.contract import clock
from app.contract.limits import SESSION_TOKEN_SECONDS_DEFAULT, SESSION_TOKEN_SECONDS_MAX, SESSION_TOKEN_SECONDS_MIN
from app.http.documents import SessionIdText, SessionTokenIdText, Timestamp, shape
from app.http.numbers import JSON_INTEGER
from app.sessions.tokens import NewToken
from app.storage.rows.database import Row


class SessionToken(TypedDict):
    """A session's token, without the secret."""

    type: Literal["session_token"]
    id: SessionTokenIdText
    session_id: SessionIdText
    created_at: Timestamp
    expires_at: Timestamp
    revoked_at: Timestamp | None


class NewSessionToken(SessionToken):
    """A session's token with the secret, which is shown this once."""

    token: Annotated[str, shape(pattern="^mst_[A-Za-z0-9_-]{43}$")]


class DeletedSessionToken(TypedDict):
    """What a revocation answers."""

    id: SessionTokenIdText
    type: Literal["session_token_deleted"]


class CreateSessionToken(BaseModel):
    """Body of a create. May be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    expires_in_seconds: Annotated[
        int, shape(minimum=SESSION_TOKEN_SECONDS_MIN, maximum=SESSION_TOKEN_SECONDS_MAX), JSON_INTEGER
    ] = Field(SESSION_TOKEN_SECONDS_DEFAULT, description="How long it is good, in seconds.")


def token(row: Row) -> SessionToken:
    """A token as the wire shows it."""
    return {
        "type": "session_token",
        "id": row["id"],
        "session_id": row["session_id"],
        "created_at": clock.rfc3339(row["created_at"]),
        "expires_at": clock.rfc3339(row["expires_at"]),
        "revoked_at": clock.rfc3339_or_none(row["revoked_at"]),
    }


def new_token(made: NewToken) -> NewSessionToken:
    """The same with the secret."""
    return {**token(made.row), "token": made.secret}

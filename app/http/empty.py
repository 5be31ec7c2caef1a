"""The body of calls that take none."""

from pydantic import BaseModel, ConfigDict


class EmptyBody(BaseModel):
    """Nothing, or `{}`."""

    model_config = ConfigDict(extra="forbid")

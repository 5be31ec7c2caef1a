"""What every listing shares: its query parameters, and the page it answers with."""

import re
from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from app.contract.limits import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, PAGE_LIMIT_MAX_FULL
from app.http.documents import Omittable, shape

T = TypeVar("T")

View = Literal["basic", "full"]

CURSOR_PATTERN = "^page_[A-Za-z0-9_-]+$"


class QueryModel(BaseModel):
    """Base of all query parameters: unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _require(pattern: str, wanted: str, *, is_text: bool = False) -> BeforeValidator:
    """Refuse texts that pydantic would read generously, such as `1_0` for a number.

    is_text: and all that is no text, such as 12 for a time.
    """
    compiled = re.compile(pattern)

    def check(value: object) -> object:
        is_good = compiled.fullmatch(value) is not None if isinstance(value, str) else not is_text
        if not is_good:
            raise PydanticCustomError("form", "must be {wanted}", {"wanted": wanted})
        return value

    return BeforeValidator(check)


WHOLE_NUMBER = _require(r"-?[0-9]{1,9}", "a whole number")
"""Comes after the bounds in an `Annotated`: before them it would keep them out of the OpenAPI document."""

SEQUENCE_MAX = 10**18 - 1
SEQUENCE_NUMBER = _require(r"-?[0-9]{1,18}", "a whole number")
"""The same for a number that both databases hold in 64 bits."""

Flag = Annotated[bool, _require("true|false", "true or false")]


def _with_a_year_in_utc(moment: datetime) -> datetime:
    """Refuse what the offset moves out of the years that can be told: nothing could be said of it."""
    try:
        if moment.tzinfo is not None:
            moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("year", "must be in a year from 1 to 9999 in UTC") from None
    return moment


Moment = Annotated[
    datetime,
    AfterValidator(_with_a_year_in_utc),
    _require(r"\d{4}-\d\d-\d\d.*", "a time in RFC 3339, such as 2026-11-20T12:00:00Z", is_text=True),
]


class PageQuery(QueryModel):
    """`limit` and `page`, as on every listing."""

    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT_MAX), WHOLE_NUMBER] = Field(
        PAGE_LIMIT_DEFAULT, description="Items per page."
    )
    page: Omittable[str] = Field(
        None,
        description="The `next_page` of the page before; the filters must be the same.",
        json_schema_extra={"pattern": CURSOR_PATTERN},
    )


class ViewedPageQuery(PageQuery):
    """A listing whose items may carry content."""

    view: View = Field(
        "basic",
        description="`full` adds the content; a page then holds at most 20 items, whatever the limit.",
    )

    @property
    def size(self) -> int:
        """Items on the page: `limit`, capped with `view=full`."""
        return min(self.limit, PAGE_LIMIT_MAX_FULL) if self.view == "full" else self.limit


class CreatedRange(QueryModel):
    """Inclusive bounds on `created_at`."""

    created_at_gte: Omittable[Moment] = Field(
        None, alias="created_at[gte]", description="Created at or after this time (RFC 3339)."
    )
    created_at_lte: Omittable[Moment] = Field(
        None, alias="created_at[lte]", description="Created at or before this time (RFC 3339)."
    )


class Page(TypedDict, Generic[T]):
    """One page. `next_page` is null on the last one."""

    data: Annotated[list[T], shape(maxItems=PAGE_LIMIT_MAX)]
    next_page: Annotated[str, shape(pattern=CURSOR_PATTERN)] | None

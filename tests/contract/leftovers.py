"""What the SDK's models do not know: they take any key, and a value of an unknown shape as it is."""

from typing import Any, get_args, get_origin

import pydantic
from anthropic.types.beta import BetaManagedAgentsCustomToolInputSchema

_ANYTHING = (BetaManagedAgentsCustomToolInputSchema,)
"""Models that are made for keys they do not name."""


def unknown_fields(value: object, place: str = "") -> list[str]:
    """The places in a parsed answer that its model has no field for, or whose value is of no type of its field.

    The SDK never refuses an answer: what does not fit is kept as plain JSON. A plain dictionary where no field is one
    is therefore unknown as well.
    """
    if isinstance(value, list):
        return [found for number, item in enumerate(value) for found in unknown_fields(item, f"{place}[{number}]")]
    if not isinstance(value, pydantic.BaseModel) or isinstance(value, _ANYTHING):
        return []
    found = [f"{place}.{name}" for name in value.model_extra or {}]
    for name, field in type(value).model_fields.items():
        if name not in value.model_fields_set:
            found.append(f"{place}.{name} is absent")
            continue
        inner = getattr(value, name)
        if not _fits(inner, field.annotation):
            found.append(f"{place}.{name} is {inner!r}")
        found += unknown_fields(inner, f"{place}.{name}")
    return found


def _fits(value: object, annotation: Any) -> bool:
    try:
        pydantic.TypeAdapter(annotation).validate_python(value, strict=True)
    except pydantic.ValidationError:
        return False
    return _plain(value) <= _plain_allowed(annotation)


def _plain(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) for item in items)


def _plain_allowed(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_plain_allowed(part) for part in get_args(annotation))

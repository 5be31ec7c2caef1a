"""The SDK's models as a measure of our answers: no key that they do not know, none that they would invent."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def parts(value: Any) -> Iterator[BaseModel]:
    """Every model inside an answer that the SDK parsed, the answer included."""
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from parts(getattr(value, name))
    elif isinstance(value, dict):
        for child in value.values():
            yield from parts(child)
    elif isinstance(value, list):
        for child in value:
            yield from parts(child)


def check_exact(answer: BaseModel) -> None:
    """Assert that the answer has the vendor's keys, all of them, and no others."""
    for part in parts(answer):
        assert not part.model_extra, (type(part).__name__, part.model_extra)
        missing = type(part).model_fields.keys() - part.model_fields_set
        assert not missing, (type(part).__name__, missing)

"""Whole numbers in the bodies of requests."""

from pydantic import BeforeValidator


def _without_point(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


JSON_INTEGER = BeforeValidator(_without_point)
"""Take 3.0 for 3 where the model is strict: in JSON they are one number (JSON Schema 2020-12, 4.2.2).

Comes after the bounds in an `Annotated`: before them it would keep them out of the OpenAPI document.
"""

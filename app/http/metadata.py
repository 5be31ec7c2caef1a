"""The shape of `metadata`, which stores, agents, environments and sessions share (contract, 1.3)."""

from typing import Annotated

from app.contract.limits import METADATA_KEY_MAX_CHARACTERS, METADATA_MAX_PAIRS, METADATA_VALUE_MAX_CHARACTERS
from app.http.documents import NO_NULLS, shape

_KEY_PATTERN = rf"^[^\u0000]{{1,{METADATA_KEY_MAX_CHARACTERS}}}$"
_IMPOSSIBLE_KEY_PATTERN = rf"^$|^[\s\S]{{{METADATA_KEY_MAX_CHARACTERS + 1}}}|\u0000"
_VALUE = {"maxLength": METADATA_VALUE_MAX_CHARACTERS, "pattern": NO_NULLS}

Metadata = Annotated[
    dict[str, str],
    shape(
        maxProperties=METADATA_MAX_PAIRS,
        propertyNames={"pattern": _KEY_PATTERN},
        additionalProperties={"type": "string", **_VALUE},
    ),
]

# Removing a key that can't be there does no harm, so null goes with any key.
MetadataPatch = Annotated[
    dict[str, str | None],
    shape(
        patternProperties={_IMPOSSIBLE_KEY_PATTERN: {"type": "null"}},
        additionalProperties={"type": ["string", "null"], **_VALUE},
    ),
]
"""A merge patch: a string sets a key, null removes it, an absent key stays."""

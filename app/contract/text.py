"""Rules for a store's name, description and metadata (contract, 1.3). Lengths count code points."""

import unicodedata
from collections.abc import Mapping

from app.contract.errors import InvalidRequest
from app.contract.limits import (
    AGENT_SYSTEM_MAX_CHARACTERS,
    DESCRIPTION_MAX_CHARACTERS,
    HOLD_REASON_MAX_CHARACTERS,
    INSTRUCTIONS_MAX_CHARACTERS,
    METADATA_KEY_MAX_CHARACTERS,
    METADATA_MAX_PAIRS,
    METADATA_VALUE_MAX_CHARACTERS,
    NAME_MAX_CHARACTERS,
    REFERENCE_MAX_CHARACTERS,
    TITLE_MAX_CHARACTERS,
)


def _check_storable(text: str, field: str) -> None:
    if "\0" in text:
        raise InvalidRequest(f"{field}: contains U+0000, which can't be stored; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field}: must be valid Unicode text, without lone surrogates") from None


def _check_length(text: str, field: str, least: int, most: int) -> None:
    if not least <= len(text) <= most:
        raise InvalidRequest(f"{field}: is {len(text):,} characters long; {least:,} to {most:,} are allowed")


def check_name(name: str, most: int = NAME_MAX_CHARACTERS) -> str:
    """1 to `most` characters, none of them a control character; surrounding space is kept."""
    _check_length(name, "name", 1, most)
    _check_storable(name, "name")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidRequest("name: contains a control character; remove it")
    return name


def check_description(description: str, most: int = DESCRIPTION_MAX_CHARACTERS) -> str:
    """At most `most` characters."""
    _check_length(description, "description", 0, most)
    _check_storable(description, "description")
    return description


def check_hold_reason(reason: str) -> str:
    """Why a store is under legal hold: at most 1,024 characters."""
    _check_length(reason, "reason", 0, HOLD_REASON_MAX_CHARACTERS)
    _check_storable(reason, "reason")
    return reason


def check_reference(reference: str) -> str:
    """What an operator calls an erasure: one line of 1 to 200 characters, all of which print."""
    _check_length(reference, "reference", 1, REFERENCE_MAX_CHARACTERS)
    _check_storable(reference, "reference")
    if not reference.isprintable() or not reference.strip():
        raise InvalidRequest("reference: must be one line of characters that print, such as 'DSR-17'")
    return reference


def check_system(system: str) -> str:
    """An agent's system prompt: at most 100,000 characters."""
    _check_length(system, "system", 0, AGENT_SYSTEM_MAX_CHARACTERS)
    _check_storable(system, "system")
    return system


def check_title(title: str) -> str:
    """A session's: at most 500 characters."""
    _check_length(title, "title", 0, TITLE_MAX_CHARACTERS)
    _check_storable(title, "title")
    return title


def check_instructions(instructions: str, field: str) -> str:
    """How an agent should use one attached store: at most 4,096 characters."""
    _check_length(instructions, field, 0, INSTRUCTIONS_MAX_CHARACTERS)
    _check_storable(instructions, field)
    return instructions


def check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """At most 16 pairs; keys of 1 to 64 characters, values of at most 512."""
    if len(metadata) > METADATA_MAX_PAIRS:
        raise InvalidRequest(f"metadata: has {len(metadata)} pairs; at most {METADATA_MAX_PAIRS} are allowed")
    for key, value in metadata.items():
        _check_length(key, f"metadata: key {key[:80]!r}", 1, METADATA_KEY_MAX_CHARACTERS)
        _check_storable(key, "metadata: a key")
        _check_length(value, f"metadata.{key}", 0, METADATA_VALUE_MAX_CHARACTERS)
        _check_storable(value, f"metadata.{key}")
    return dict(metadata)


def merge_metadata(current: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    """A JSON merge patch: a string sets, `null` removes, an absent key stays. The result is checked."""
    merged = dict(current)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return check_metadata(merged)

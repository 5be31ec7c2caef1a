"""Paths of memories (contract, 2.3, 2.4 and 2.8): no I/O, no normalisation; a path is accepted or refused."""

import unicodedata

from app.contract.errors import InvalidRequest
from app.contract.limits import PATH_MAX_BYTES, PATH_MAX_SEGMENTS

_EXAMPLE_CHARACTERS = 80
_AFTER_SLASH = "0"
"""The character that follows `/` in byte order: everything below `/a/` sorts before `/a0`."""

_FORBIDDEN_CATEGORIES = {"Cc": "control", "Cf": "format"}
_SEPARATORS = {"\u2028": "line separator", "\u2029": "paragraph separator"}


def _check_characters(path: str, field: str) -> None:
    if path.isascii() and path.isprintable():
        return
    for character in path:
        category = _FORBIDDEN_CATEGORIES.get(unicodedata.category(character))
        name = f"{category} character" if category else _SEPARATORS.get(character)
        if name:
            raise InvalidRequest(f"{field}: contains U+{ord(character):04X}, a {name}; remove it")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field}: must be valid Unicode text, without lone surrogates") from None
    if not unicodedata.is_normalized("NFC", path):
        raise InvalidRequest(f"{field}: must be in Unicode Normalization Form C")


def _check_segments(segments: list[str], field: str) -> None:
    if len(segments) > PATH_MAX_SEGMENTS:
        raise InvalidRequest(f"{field}: has {len(segments)} segments; at most {PATH_MAX_SEGMENTS} are allowed")
    for segment in segments:
        if segment == "":
            raise InvalidRequest(f"{field}: has an empty segment; write single slashes, and none at the end")
        if segment in (".", ".."):
            raise InvalidRequest(f"{field}: has the segment {segment!r}; paths can't be relative")


def check(path: str, field: str = "path") -> str:
    """The path itself, when it names a possible memory.

    Raises:
        InvalidRequest: it breaks one of the rules; the message says which and what would be right.

    """
    if not path.startswith("/") or path == "/":
        raise InvalidRequest(f"{field}: must start with '/' and name something, such as '/notes/today.md'")
    _check_characters(path, field)
    if (size := len(path.encode())) > PATH_MAX_BYTES:
        raise InvalidRequest(f"{field}: is {size:,} bytes of UTF-8; at most {PATH_MAX_BYTES:,} are allowed")
    _check_segments(path[1:].split("/"), field)
    return path


def check_prefix(prefix: str, field: str = "path_prefix") -> str:
    """The directory that the prefix of a listing names; the empty prefix is the whole store, as `/` is.

    Raises:
        InvalidRequest: it can't be the beginning of a path, or cuts a segment.

    """
    return check_directory(prefix or "/", field)


def check_directory(prefix: str, field: str) -> str:
    """A directory: `/`, or whole segments with a `/` at both ends.

    Raises:
        InvalidRequest: it can't be the beginning of a path, or cuts a segment.

    """
    if not prefix.startswith("/") or not prefix.endswith("/"):
        inner = prefix.strip("/")
        is_shown = 0 < len(inner) <= _EXAMPLE_CHARACTERS and inner.isprintable()
        example = f"/{inner}/" if is_shown else "/notes/"
        raise InvalidRequest(f"{field}: must start and end with '/', such as {example!r}")
    if prefix != "/":
        check(prefix[:-1], field)
    return prefix


def ancestors(path: str) -> list[str]:
    """The paths above it, nearest the root first: `/a/b/c` gives `/a` and `/a/b`."""
    segments = path.split("/")
    return ["/".join(segments[:end]) for end in range(2, len(segments))]


def subtree(directory: str) -> tuple[str, str]:
    """The half-open range of paths below a directory, in byte order.

    `directory` ends with `/`; the whole store is `/`.
    """
    return directory, directory[:-1] + _AFTER_SLASH

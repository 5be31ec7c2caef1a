"""What a person may call a store or a session: its ID, the beginning of one that no other has, or its name."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from app.contract.errors import InvalidRequest, NotFound

_WHOLE_ID = re.compile(r"[a-z]+_01[1-9A-HJ-NP-Za-km-z]{22}")
_SHOWN = 10

STORE_HELP = "The memory store: its ID (memstore_…), the beginning of one, or its name."
SESSION_HELP = "The session: its ID (sesn_…), the beginning of one, or its title."


class Kind(NamedTuple):
    """A kind of things that have IDs and names."""

    thing: str
    tag: str
    """What its IDs begin with."""
    listing: str
    """The command that lists them."""


STORE = Kind("memory store", "memstore_", "memstore stores list")
SESSION = Kind("session", "sesn_", "memstore sessions list")


class Candidate(NamedTuple):
    """A thing that may be meant."""

    id: str
    name: str
    where: str = ""
    """Its workspace, where candidates are of several."""


def is_whole_id(kind: Kind, text: str) -> bool:
    """Whether it is an ID and nothing else: a thing that bears this text as its name is never meant by it."""
    return text.startswith(kind.tag) and _WHOLE_ID.fullmatch(text) is not None


def is_beginning(kind: Kind, text: str) -> bool:
    """Whether IDs may begin so."""
    return text.startswith(kind.tag) and text.isascii() and text.isprintable()


def spellings(name: str) -> tuple[str, str, str]:
    """The name as typed, and in both canonical forms: keyboards and file names differ in it."""
    return name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)


def can_be_one(text: str) -> bool:
    """Whether a database takes it: what a shell passes on may be no Unicode text."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def is_meant(kind: Kind, text: str, candidate: Candidate) -> bool:
    """Whether a person who types `text` may mean this thing."""
    return candidate.name in spellings(text) or (is_beginning(kind, text) and candidate.id.startswith(text))


def the_one(kind: Kind, text: str, meant: Sequence[Candidate]) -> Candidate:
    """The thing that is meant, of all those that may be.

    Raises:
        NotFound: there is none.
        InvalidRequest: there are several; the refusal lists them.

    """
    for candidate in meant:
        if candidate.id == text:
            return candidate
    if not meant:
        if is_beginning(kind, text):
            raise NotFound(f"{kind.thing} {text!r} was not found; '{kind.listing}' shows what there is")
        raise NotFound(
            f"no {kind.thing} is called {text!r}; give an ID ({kind.tag}…), the beginning of one, or a name: "
            f"'{kind.listing}' shows them"
        )
    if len(meant) > 1:
        lines = [
            f"{one.id}  {one.name!r}" + (f" in workspace {one.where!r}" if one.where else "") for one in meant[:_SHOWN]
        ]
        lines += ["…"] * (len(meant) > _SHOWN)
        raise InvalidRequest("\n".join([f"{text!r} may be any of these; give more of the ID:", *lines]))
    return meant[0]

r"""One text in every spelling in which it may be written: how a text is looked for, in a selection and in a proof.

Two texts are the same here if they differ only in

- canonical form (NFC, NFD, NFKC, NFKD: `é` as one character or two, `ﬁ` as a ligature) and in invisible characters
  (soft hyphens, zero-width spaces, marks of direction);
- upper and lower case, the two letters i of Turkish, and typewritten or typeset quotation marks and hyphens;
- white space: any amount and kind of it is one space, also line ends and no-break spaces;
- the escapes of JSON (`\u00e9`, `\/`, `\n`) and programs (`\xe9`, `\303\251`), of HTML (`&eacute;`, `&#233;`, `&#xe9;`,
  `&nbsp;`, `<br>`), and of URLs (`%C3%A9`, `%u00E9`, `+`), and these inside one another up to three times; and all of
  these in an e-mail that is quoted-printable (`=C3=A9`).

What is read as an escape may be none (`C:\new`), so a text is looked at as it is and with each kind of escape read.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JSON = re.compile(
    r"(?:\\u[0-9a-fA-F]{4})+|\\u\{[0-9a-fA-F]{1,6}\}|\\U[0-9a-fA-F]{8}|(?:\\x[0-9a-fA-F]{2})+|(?:\\[0-3][0-7]{2})+"
    r"|\\[\"'\\/bfnrt\n]"
)
"""Of JSON, Python and JavaScript; the octal ones also of Git, which quotes paths with them."""
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_BREAK = re.compile(r"<br\b[^<>]{0,200}>", re.IGNORECASE)
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+|(?:%u[0-9a-fA-F]{4})+")
_MAIL_BREAK = re.compile(r"=[ \t]*\r?\n")
_MAIL_BYTES = re.compile(r"(?:=[0-9a-fA-F]{2})+")
_LETTERS = str.maketrans(
    {
        **dict.fromkeys("\u0130\u0131", "i"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2039\u203a\u02b9\u02bb\u02bc", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    }
)
"""What folding of case leaves apart: the letters i of Turkish, and what typesetting makes of quotes and hyphens."""
_APART = re.compile(f"[{''.join(map(chr, _LETTERS))}]")
_ACUTE = "\u00b4"
"""Many keyboards write it for an apostrophe. Its compatible form is a space with an accent."""
_LAYERS = 3
_HIGHEST = 0x10FFFF


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One place in a text: what is before it, as it is found there, and what is after it."""

    before: str
    text: str
    after: str


class Folded:
    """A text to look for."""

    def __init__(self, text: str) -> None:
        # Its own escapes are read too, but not a plus sign: a telephone number is no form field.
        spelled = (text, _without_json(text), html.unescape(text), _percent_decoded(text), _mail_decoded(text))
        read = {_folded(_shown(form)) for form in spelled}
        self._wanted = sorted(form for form in read if form)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of it that could be looked for."""
        return not self._wanted

    def is_in(self, text: str) -> bool:
        """Whether the text is there, in whatever spelling."""
        return any(wanted in folded for folded in map(_folded, map(_shown, _forms(text))) for wanted in self._wanted)

    def is_in_bytes(self, content: bytes) -> bool:
        """The same for UTF-8, damaged or not."""
        return self.is_in(content.decode(errors="replace"))

    def occurrences(self, text: str, around: int) -> list[Occurrence]:
        """Each place where it is, with so many characters around it, escapes read."""
        for form in _forms(text):
            shown = _shown(form)
            folded = _folded(shown)
            for wanted in self._wanted:
                if wanted in folded:
                    return list(_places(shown, folded, wanted, around))
        return []


def _shown(text: str) -> str:
    """In one canonical form and with single spaces, none at the ends; upper and lower case as it is."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).replace(_ACUTE, "'"))
    return " ".join(text.split())


def _folded(shown: str) -> str:
    if shown.isascii():
        return shown.lower()
    # Folding takes some letters apart (\u0390), so what it gives is composed again.
    if _APART.search(shown):
        shown = shown.translate(_LETTERS)
    return unicodedata.normalize("NFKC", shown.casefold().replace("i\u0307", "i"))


def _places(shown: str, folded: str, wanted: str, around: int) -> Iterator[Occurrence]:
    starts: list[int] | range = range(len(shown))
    if not shown.isascii():
        # Parts fold to what their whole folds to, but for marks in an order that no keyboard writes.
        starts = [place for place, part in _clusters(shown) for _ in _folded(part)]
        starts = starts[: len(folded)] + [len(shown) - 1] * (len(folded) - len(starts))
    start = folded.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        first = starts[start]
        behind = next((place for place in starts[end:] if place > starts[end - 1]), len(shown))
        yield Occurrence(shown[max(0, first - around) : first], shown[first:behind], shown[behind : behind + around])
        start = folded.find(wanted, end)


def _clusters(shown: str) -> Iterator[tuple[int, str]]:
    """Each character with the marks that are combined with it, and where it begins."""
    start = 0
    for place in range(1, len(shown) + 1):
        if place == len(shown) or not unicodedata.combining(shown[place]):
            yield start, shown[start:place]
            start = place


def _forms(text: str) -> Iterator[str]:
    """The text in each form in which something is looked for."""
    yield from _escapes_read(text)
    # Not among the others: in `?q=Ada` two of its letters would be taken for a byte.
    if (mail := _mail_decoded(text)) != text:
        yield from _escapes_read(mail)


def _escapes_read(text: str) -> Iterator[str]:
    """The text as it is, with each kind of escape read, and with all kinds of them read, one inside another."""
    seen = {text}
    yield text
    readers = [reader for marks, reader in _READERS if any(mark in text for mark in marks)]
    for reader in readers:
        if (form := reader(text)) not in seen:
            seen.add(form)
            yield form
    # With a plus sign as itself, as in a telephone number, and as a space.
    for layered in (_READERS[:-1], _READERS) if "+" in text else (_READERS[:-1],):
        form = text
        for _ in range(_LAYERS if readers else 0):
            before = form
            for _, reader in layered:
                form = reader(form)
            if form == before:
                break
            if form not in seen:
                seen.add(form)
                yield form


def _without_json(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        escape = match[0]
        if escape[1] == "u" and escape[2] != "{":
            return _of_units(escape.replace("\\u", ""))
        if escape[1] == "x":
            return _decoded(bytes.fromhex(escape.replace("\\x", "")))
        if escape[1].isdigit():
            return _decoded(bytes(int(number, 8) for number in escape[1:].split("\\")))
        if escape[1] in "uU":
            number = int(escape[2:].strip("{}"), 16)
            return chr(number) if number <= _HIGHEST else escape
        return _SHORT.get(escape[1], escape[1])

    return _JSON.sub(character, text)


def _without_html(text: str) -> str:
    return html.unescape(_BREAK.sub(" ", text))


def _percent_decoded(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        if match[0].startswith("%u"):  # escape() of JavaScript
            return _of_units(match[0].replace("%u", ""))
        return _decoded(bytes.fromhex(match[0].replace("%", "")))

    return _PERCENT.sub(character, text)


def _mail_decoded(text: str) -> str:
    """Quoted-printable read (RFC 2045, 6.7)."""
    if "=" not in text:
        return text
    return _MAIL_BYTES.sub(lambda found: _decoded(bytes.fromhex(found[0].replace("=", ""))), _MAIL_BREAK.sub("", text))


def _of_units(digits: str) -> str:
    """What code units of UTF-16 in hex are."""
    return bytes.fromhex(digits).decode("utf-16-be", errors="replace")


def _decoded(escaped: bytes) -> str:
    """What escaped bytes are: UTF-8, or Latin-1, which old programs escape."""
    try:
        return escaped.decode()
    except UnicodeDecodeError:
        return escaped.decode("latin-1")


def _without_percent(text: str) -> str:
    return _percent_decoded(text.replace("+", " "))


_READERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("\\", _without_json),
    ("&<", _without_html),
    ("%", _percent_decoded),
    ("%+", _without_percent),
)
"""What each kind of escape begins with, and what reads it."""

SPELLINGS: tuple[str, ...] = (
    "canonical forms of Unicode (NFC, NFD, NFKC, NFKD), and without invisible characters",
    "upper and lower case; quotation marks and hyphens, typewritten or typeset",
    "white space of any kind and amount, line ends too",
    "escapes of JSON, HTML, URLs and e-mail (quoted-printable)",
)
"""What a search for a text ignores; every report says so."""

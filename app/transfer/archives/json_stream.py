"""A JSON object whose members come one after the other, in bounded memory: for files that somebody else wrote."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from app.contract.errors import InvalidRequest

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_KEY_CHARACTERS = 1_024


class JsonStream:
    """Reads `pieces` of UTF-8 to the end, value by value; no value may have more than the characters asked for."""

    def __init__(self, pieces: Iterable[bytes], file: str) -> None:
        """`file` is what the source is called in refusals."""
        self._pieces = iter(pieces)
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._is_ended = False

    def members(self, most: int) -> Iterator[str]:
        """The names of an object's members. Before the next, `value` or `items` must have read this one's value."""
        self._expect("{", "an object")
        if self._peek() == "}":
            self._at += 1
            return
        seen = set[str]()
        while True:
            name = self.value(_KEY_CHARACTERS)
            if not isinstance(name, str) or name in seen or len(seen) >= most:
                raise self._refusal("has a member without a name of its own")
            seen.add(name)
            self._expect(":", "a colon")
            yield name
            if not self._goes_on("}"):
                return

    def items(self, most: int) -> Iterator[Any]:
        """The items of a list, each of at most `most` characters."""
        self._expect("[", "a list")
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value(most)
            if not self._goes_on("]"):
                return

    def value(self, most: int) -> Any:
        """The next value, of at most `most` characters."""
        self._peek()
        self._fill(most)
        window = self._text[self._at : self._at + most]
        try:
            value, length = _DECODER.raw_decode(window)
        except (ValueError, RecursionError) as error:
            cut = " or too long" if len(window) == most else ""
            raise self._refusal(f"is no JSON{cut}: {str(error).partition(':')[0]}") from None
        self._at += length
        return value

    def end(self) -> None:
        """There must be nothing more."""
        if self._peek():
            raise self._refusal("goes on after its end")

    def _goes_on(self, end: str) -> bool:
        if self._peek() == end:
            self._at += 1
            return False
        self._expect(",", f"a comma or {end!r}")
        return True

    def _expect(self, character: str, called: str) -> None:
        if self._peek() != character:
            raise self._refusal(f"can't be read: {called} was expected")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no white space; none at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _fill(self, most: int) -> None:
        while len(self._text) - self._at < most and self._more():
            pass

    def _more(self) -> bool:
        if self._is_ended:
            return False
        piece = next(self._pieces, None)
        self._is_ended = piece is None
        try:
            text = self._utf8.decode(piece or b"", final=self._is_ended)
        except UnicodeDecodeError:
            raise self._refusal("is not UTF-8") from None
        self._text, self._at = self._text[self._at :] + text, 0
        return True

    def _refusal(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._file} {why}")

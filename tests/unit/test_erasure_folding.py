"""A text is found in every spelling that the page on forgetting names, and in no other text."""

import html
import json
import quopri
import unicodedata
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.erasure.folding import Folded

NAME = "José Müller"
SPELLINGS = {
    "NFC": unicodedata.normalize("NFC", NAME),
    "NFD": unicodedata.normalize("NFD", NAME),
    "full width": NAME.translate({ord("J"): "\uff2a", ord("M"): "\uff2d"}),
    "upper case": "JOSÉ MÜLLER",
    "lower case": "josé müller",
    "line break": "José\nMüller",
    "line break and indent": "José\r\n    Müller",
    "no-break space": "José\u00a0Müller",
    "soft hyphen": "José Mül\u00adler",
    "zero-width space": "José \u200bMüller",
    "JSON": json.dumps(NAME),
    "JSON of NFD": json.dumps(unicodedata.normalize("NFD", NAME)),
    "JSON line break": json.dumps("José\nMüller"),
    "JSON in JSON": json.dumps(json.dumps(NAME)),
    "upper-case hex": "Jos\\u00E9 M\\u00FCller",
    "Python": "Jos\\xe9 M\\U000000fcller",
    "JavaScript": "Jos\\u{e9} M\\u{fc}ller",
    "named entities": "Jos&eacute;&nbsp;M&uuml;ller",
    "decimal entities": "Jos&#233; M&#252;ller",
    "hexadecimal entities": "Jos&#xE9; M&#xfc;ller",
    "combining entity": "Jose&#769; Mu&#776;ller",
    "HTML line break": "José<br/>Müller",
    "HTML in JSON": json.dumps("Jos&eacute; M&uuml;ller"),
    "HTML line break with attributes": "José<br class='x'>Müller",
    "hard line break of Markdown": "José\\\nMüller",
    "variation selector": "José\U000e0100 Müller",
    "bytes of Python": repr(NAME.encode()),
    "octal, as Git quotes paths": "Jos\\303\\251 M\\303\\274ller",
    "escape() of JavaScript": "Jos%E9%20M%u00FCller",
    "URL in Latin-1": quote(NAME, encoding="latin-1"),
    "URL": quote(NAME),
    "form": quote_plus(NAME),
    "e-mail": quopri.encodestring(NAME.encode()).decode(),
    "e-mail with its lines broken": "Jos=C3=\r\n=A9 M=\n=C3=BCller",
    "e-mail in HTML": "Jos=C3=A9&nbsp;M=C3=BCl=\r\nler",
    "e-mail in Latin-1": "Jos=E9 M=FCller",
    "URL in JSON": json.dumps({"q": quote_plus(NAME)}),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("around", ["{}", "ask {} first", "C:\\new\\{} & 100%25 {{"])
def test_a_name_is_found_in_each_spelling(spelling: str, around: str) -> None:
    text = around.format(spelling)
    assert Folded(NAME).is_in(text)
    assert Folded(NAME).is_in_bytes(text.encode())
    assert Folded(NAME).occurrences(text, 100), "what is found is shown"


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_name_may_be_asked_for_in_another_spelling(spelling: str) -> None:
    if spelling.startswith(('"', "b'")) or any(mark in spelling for mark in ("<br", "+", "&nbsp;M=")):
        pytest.skip("somebody asks for a name, not for a document")
    assert Folded(spelling).is_in(f"says {NAME}.")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("İstanbul", "istanbul"), ("ISPARTA", "\u0131sparta"), ("O'Brien", "O\u2019Brien"), ("O'Brien", "O\\'Brien"),
        ("Smith-Jones", "Smith\u2011Jones"), ('"Bo" Li', "\u201cBo\u201d Li"), ("\u0390", "\u0399\u0308\u0301"),
        ("STRASSE", "stra\u1e9ee"), ("葛城", "葛\U000e0100城"), ("\u0391\u038a", "\u03b1\u03af"),
        ("O'Brien", "O\u00b4Brien"), ("O'Brien", "O\u2032Brien"), ("O\u02bbahu", "O'ahu"),
        ('"Bo" Li', "\u201eBo\u201c Li"), ('"Bo" Li', "\u00abBo\u00bb Li"), ("'Bo' Li", "\u201aBo\u2018 Li"),
    ],
)  # fmt: skip
def test_one_name_as_two_keyboards_write_it(one: str, other: str) -> None:
    for wanted, written in ((one, other), (other, one)):
        assert Folded(wanted).is_in(f"a {written} b")
        (found,) = Folded(wanted).occurrences(f"a {written} b", 2)
        assert (found.before, found.after) == ("a ", " b")


@pytest.mark.parametrize("text", ["tel:+49%20170", "q=%2B49+170", "+49&nbsp;170", '"\\u002b49 170"'])
def test_a_telephone_number_is_found_in_links_and_forms(text: str) -> None:
    assert Folded("+49 170").is_in(text)


@pytest.mark.parametrize("text", ["José Möller", "JoséMüller", "Jose Muller", "Müller, José", "", "\\u00zz & %zz &;"])
def test_another_text_is_another_text(text: str) -> None:
    assert not Folded(NAME).is_in(text)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("new", "C:\\new"), ("100%25", "is 100%25"), ("+49 170", "call +49 170"), ("C++", "C++ and C"),
        ("straße", "STRASSE 5"), ("ΟΔΟΣ", "οδος"), ("&amp;", "a &amp; b"), ("a\\nb", "a\\nb"), ("\\", "a\\b"),
        ("Adele", "?q=Adele"), ("=C3=A9", "is =C3=A9"), ("a=B0", "if a=B0"), ("Adele X", "?q=Adele%20X"),
    ],
)  # fmt: skip
def test_what_looks_like_an_escape_is_found_as_it_stands(wanted: str, text: str) -> None:
    assert Folded(wanted).is_in(text)


def test_a_telephone_number_is_not_found_in_a_longer_one() -> None:
    assert not Folded("+49 170").is_in("149 1701")


def test_what_was_found_is_shown_as_it_is_spelled_there_with_its_neighbours() -> None:
    (one,) = Folded("weiß").occurrences("Große WEISS-Straße", 100)
    assert (one.before, one.text, one.after) == ("Große ", "WEISS", "-Straße")
    (one,) = Folded("josé").occurrences("ßßß Jos&eacute; ßß", 100)
    assert (one.before, one.text, one.after) == ("ßßß ", "José", " ßß")


def test_nothing_to_look_for_is_known() -> None:
    assert Folded("").is_empty
    assert Folded("\u200b\u00ad").is_empty
    assert Folded(" \n").is_empty


@given(st.text(), st.text(min_size=1), st.text())
def test_a_text_is_found_in_whatever_it_is_a_part_of(before: str, wanted: str, after: str) -> None:
    # A character that joins with its neighbour is another one; a space keeps them apart.
    if Folded(wanted).is_empty:
        return
    whole = f"{before} | {wanted} | {after}"
    for spelled in (whole, json.dumps(whole), html.escape(whole), quote(whole.encode(errors="replace").decode())):
        if "\ufffd" not in spelled and not any("\ud800" <= c <= "\udfff" for c in whole):
            assert Folded(wanted).is_in(spelled)


@given(st.text(max_size=200), st.text(max_size=3))
def test_any_text_can_be_searched(text: str, wanted: str) -> None:
    found = Folded(wanted)
    assert bool(found.occurrences(text, 10)) == found.is_in(text)

"""A memory's content: bytes of UTF-8 as they came, their limit and their digest (contract, 1.8 and 2.1)."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import content
from app.contract.errors import InvalidRequest

HEX = hashlib.sha256(b"").hexdigest()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_kept_byte_for_byte_with_its_size_and_digest(text: str) -> None:
    checked = content.check(text)
    assert checked.data.decode() == text
    assert checked.size == len(text.encode())
    assert checked.sha256 == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize(
    "text", ["", "\0", "\r\n", "\ufeff", "e\u0301", "x" * 102_400, "ä" * 51_200, "\U0001f9e0" * 25_600]
)
def test_a_text_of_up_to_102400_bytes_is_accepted(text: str) -> None:
    assert content.check(text).data == text.encode()


@pytest.mark.parametrize("text", ["x" * 102_401, "ä" * 51_200 + "x", "\U0001f9e0" * 25_601])
def test_a_text_of_more_bytes_is_refused_though_it_has_fewer_characters(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"102,40\d bytes.*at most 102,400 bytes"):
        content.check(text)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^content: .*surrogates"):
        content.check(text)


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_in_lower_case_hexadecimal_is_read(digest: bytes) -> None:
    assert content.parse_sha256(digest.hex(), "field") == digest


@pytest.mark.parametrize(
    "text",
    ["", HEX[:-1], HEX + "0", HEX.upper(), HEX + "\n", " " + HEX[1:], "0x" + HEX[2:], "g" * 64, "٣" * 64, f'"{HEX}"'],
)
def test_anything_else_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^field: must be a SHA-256 digest as 64 lower-case hexadecimal"):
        content.parse_sha256(text, "field")

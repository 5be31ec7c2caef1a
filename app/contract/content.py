"""A memory's content: any UTF-8 text of at most 102,400 bytes, stored as it came (contract, 1.8 and 2.1)."""

import hashlib
import re
from dataclasses import dataclass

from app.contract.errors import InvalidRequest
from app.contract.limits import CONTENT_MAX_BYTES

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Content:
    """Checked content: its UTF-8 bytes and their SHA-256 digest (32 bytes)."""

    data: bytes
    sha256: bytes

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return len(self.data)


def check(text: str) -> Content:
    """Encode and digest a text.

    Raises:
        InvalidRequest: over 102,400 bytes, or not encodable (lone surrogates).

    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("content: must be valid Unicode text, without lone surrogates") from None
    if len(data) > CONTENT_MAX_BYTES:
        raise InvalidRequest(
            f"content: is {len(data):,} bytes of UTF-8; a memory holds at most {CONTENT_MAX_BYTES:,} bytes"
        )
    return Content(data, hashlib.sha256(data).digest())


def parse_sha256(text: str, field: str) -> bytes:
    """The 32 bytes behind 64 lower-case hexadecimal digits.

    Raises:
        InvalidRequest: anything else.

    """
    if not _SHA256_HEX.fullmatch(text):
        raise InvalidRequest(f"{field}: must be a SHA-256 digest as 64 lower-case hexadecimal characters")
    return bytes.fromhex(text)

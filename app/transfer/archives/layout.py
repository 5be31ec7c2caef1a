"""How an export is laid out, whether as an archive or as a directory.

    export.json        first: that this is an export, of which store, at which change number
    memories/<path>    every memory, as it is
    contents/<sha256>  with history: older contents; also a memory whose name the directory's file system can't hold
    versions.jsonl     with history: one line per version, oldest first
    manifest.json      last: what is in it, with digests; without it the export was cut off

Times are RFC 3339, sizes are bytes of UTF-8, digests SHA-256 in hexadecimal.
"""

from typing import Final

FORMAT: Final = "memstore-export"
FORMAT_VERSION: Final = 1

HEADER: Final = "export.json"
MEMORIES: Final = "memories"
CONTENTS: Final = "contents"
VERSIONS: Final = "versions.jsonl"
MANIFEST: Final = "manifest.json"


def memory_file(path: str) -> str:
    """Where the memory at a path is in the export."""
    return f"{MEMORIES}{path}"


def content_file(sha256: bytes) -> str:
    """Where a content is that no memory has at present."""
    return f"{CONTENTS}/{sha256.hex()}"

"""A page of memories as JSON, from the rows of the product's own query, with nothing in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPTIONS = orjson.OPT_UTC_Z


@dataclass(slots=True)
class Listing:
    """How a page is built. The query brings one row more than a page has, to show if another page follows."""

    limit: int
    blob_directory: str | None = None
    """With content, which is read from here and kept; None: the basic view."""
    prefix_length: int | None = None
    """With `depth=1`: a row whose path has a slash after so many characters stands for a directory."""
    _contents: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def body(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """The JSON text of one page."""
        page = {
            "data": [self._item(row) for row in rows[: self.limit]],
            "next_page": rows[self.limit - 1]["path"] if len(rows) > self.limit else None,
        }
        return orjson.dumps(page, option=_OPTIONS)

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        if self.prefix_length is not None:
            slash = row["path"].find("/", self.prefix_length)
            if slash >= 0:
                return {"type": "memory_prefix", "path": row["path"][: slash + 1]}
        sha256 = row["content_sha256"]
        return {
            "id": row["id"],
            "type": "memory",
            "memory_store_id": row["store_id"],
            "memory_version_id": row["version_id"],
            "path": row["path"],
            "content": None if self.blob_directory is None else self._content(row["store_id"], sha256),
            "content_size_bytes": row["content_size"],
            "content_sha256": sha256.hex(),
            "created_at": _EPOCH + timedelta(microseconds=row["created_at"]),
            "updated_at": _EPOCH + timedelta(microseconds=row["updated_at"]),
        }

    def _content(self, store_id: str, sha256: bytes) -> str:
        content = self._contents.get((store_id, sha256))
        if content is None:
            name = sha256.hex()
            file = Path(self.blob_directory or "", store_id, name[:2], name)
            content = self._contents[store_id, sha256] = file.read_text()
        return content

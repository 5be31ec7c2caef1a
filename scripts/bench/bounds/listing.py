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
    files: Mapping[str, str] | None = None
    """With content: the file of each digest, which is read once and kept. None: the basic view."""
    prefix_length: int | None = None
    """With `depth=1`: a row whose path has a slash after so many characters stands for a directory."""
    _contents: dict[str, str] = field(default_factory=dict)

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
        sha256 = row["content_sha256"].hex()
        return {
            "id": row["id"],
            "type": "memory",
            "memory_store_id": row["store_id"],
            "memory_version_id": row["version_id"],
            "path": row["path"],
            "content": None if self.files is None else self._content(self.files, sha256),
            "content_size_bytes": row["content_size"],
            "content_sha256": sha256,
            "created_at": _EPOCH + timedelta(microseconds=row["created_at"]),
            "updated_at": _EPOCH + timedelta(microseconds=row["updated_at"]),
        }

    def _content(self, files: Mapping[str, str], sha256: str) -> str:
        content = self._contents.get(sha256)
        if content is None:
            content = self._contents[sha256] = Path(files[sha256]).read_text()
        return content

"""What the pages for operators cost, which ask for no key (app.server.health)."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.server.health import Condition
from app.storage.storage import Storage


class CountingStorage:
    """A database and a blob store that answer at once, and count how often they are asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.database = SimpleNamespace(fetch_one=self._row, fetch_all=self._rows, require_writable=self._nothing)
        self.ownership = SimpleNamespace(check=self._nothing)

    async def _row(self, *_: Any) -> dict[str, Any]:
        self.asked += 1
        return {"number": 0, "oldest": None}

    async def _rows(self, *_: Any) -> list[dict[str, Any]]:
        self.asked += 1
        return []

    async def _nothing(self) -> None:
        self.asked += 1


@pytest.mark.parametrize("page", ["ready", "metrics"])
def test_who_hammers_a_page_that_needs_no_key_costs_database_and_blob_store_nothing(page: str) -> None:
    storage, now = CountingStorage(), [0.0]
    condition = Condition(cast("Storage", storage), lambda: now[0])

    async def hammer(times: int) -> int:
        before = storage.asked
        for _ in range(times):
            await getattr(condition, page)()
        return storage.asked - before

    once = asyncio.run(hammer(1))
    assert once > 0
    assert asyncio.run(hammer(1_000)) <= 20 * once
    now[0] += 1
    assert asyncio.run(hammer(1_000)) == 4 * once

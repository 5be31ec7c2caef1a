"""The report counts the readers that have not heard of the erasure yet, and counts them anew each time."""

import json
from typing import Any

import anthropic
import httpx2
import pytest

from app.erasure.report import report
from app.erasure.service import Erasures
from app.feed.readers import FeedReaders
from app.feed.service import Feed
from app.feed.snapshots import Snapshots
from app.feed.wire import change_event
from app.storage.rows.feed_readers import KEPT_MICROSECONDS, forget_old_readers
from tests.contract.conftest import bare_http
from tests.erasure.planting import session_with
from tests.erasure.steps import erase
from tests.storage.parts import Parts
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


class Reading:
    """A feed that writes down its readers at once, when a test asks for it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.feed = Feed(parts.storage, change_event)
        self.snapshots = Snapshots(parts.storage, self.feed.readers)

    async def page(self, store_id: str, after: int) -> None:
        await self.feed.page(self.parts.caller, store_id, after, 100)
        await self.feed.readers.close()

    async def snapshot(self, store_id: str, *, whole: bool) -> None:
        taken = await self.snapshots.take(self.parts.caller, store_id, with_content=True)
        async for _ in taken.pieces:
            if not whole:
                break
        await taken.pieces.aclose()
        await self.feed.readers.close()

    async def not_passed(self, made: dict[str, Any]) -> dict[str, int]:
        """The count as it is now."""
        row = await Erasures(self.parts.storage, None).find(made["erasure_id"])  # type: ignore[arg-type]
        counted: dict[str, int] = (await report(self.parts.storage.database, row))["feed_readers"]["not_passed"]
        return counted


def counted(*, keys: int = 0, tokens: int = 0, ended: int = 0) -> dict[str, int]:
    return {"session_tokens": tokens, "api_keys": keys, "ended": ended}


@pytest.fixture
def reading(parts: Parts) -> Reading:
    return Reading(parts)


async def test_a_reader_counts_until_it_has_passed_the_deletion(
    parts: Parts, erasures: Erasures, reading: Reading
) -> None:
    store_id = await parts.store()
    await parts.create(store_id, "Anna", "/a.md")
    await parts.create(store_id, "else", "/b.md")
    await reading.page(store_id, 2)
    made = await erase(parts, erasures, contains="Anna")
    assert made["feed_readers"]["not_passed"] == counted(keys=1)
    await reading.page(store_id, 2)
    assert await reading.not_passed(made) == counted(keys=1), "it got the deletion, and has not said so"
    await parts.create(store_id, "later", "/c.md")
    assert await reading.not_passed(made) == counted(keys=1)
    await reading.page(store_id, 3)
    assert await reading.not_passed(made) == counted()


async def test_a_snapshot_counts_from_its_first_piece_and_is_passed_with_its_last(
    parts: Parts, erasures: Erasures, reading: Reading
) -> None:
    store_id = await parts.store()
    await parts.create(store_id, "Anna", "/a.md")
    await parts.create(store_id, "else", "/b.md")
    await reading.snapshot(store_id, whole=False)
    made = await erase(parts, erasures, contains="Anna")
    assert made["feed_readers"]["not_passed"] == counted(keys=1)
    await reading.snapshot(store_id, whole=False)
    assert await reading.not_passed(made) == counted(keys=1)
    await reading.snapshot(store_id, whole=True)
    assert await reading.not_passed(made) == counted()


async def test_a_reader_of_a_store_that_went_whole_counts_until_it_is_told(
    parts: Parts, erasures: Erasures, reading: Reading
) -> None:
    store_id, other = await parts.store(), await parts.store()
    await parts.create(store_id, "Anna")
    for one in (store_id, other):
        await reading.page(one, 0)
    made = await erase(parts, erasures, store_ids=[store_id])
    assert made["feed_readers"]["not_passed"] == counted(keys=1)
    with pytest.raises(Exception, match="not found"):
        await reading.page(store_id, 1)
    await reading.feed.readers.close()
    assert await reading.not_passed(made) == counted()
    with pytest.raises(Exception, match="not found"):
        await reading.page("memstore_01never", 0)
    await reading.feed.readers.close()
    assert parts.outside.rows.count("feed_readers") == 2, "asking for what is not there adds no row"


async def test_who_has_not_read_for_thirty_days_is_neither_counted_nor_kept(
    parts: Parts, erasures: Erasures, reading: Reading
) -> None:
    store_id = await parts.store()
    await parts.create(store_id, "Anna")
    await reading.page(store_id, 0)
    made = await erase(parts, erasures, contains="Anna")
    await forget_old_readers(parts.storage.database)
    assert await reading.not_passed(made) == counted(keys=1)
    parts.outside.rows.execute(f"UPDATE feed_readers SET read_at = read_at - {KEPT_MICROSECONDS + 1}")
    assert await reading.not_passed(made) == counted()
    await forget_old_readers(parts.storage.database)
    assert parts.outside.rows.count("feed_readers") == 0


async def test_a_note_never_goes_back_whichever_process_writes_it(parts: Parts) -> None:
    store_id = await parts.store()
    for seq in (7, 3):
        readers = FeedReaders(parts.storage.database)
        readers.note(parts.caller, store_id, seq)
        await readers.close()
    assert parts.outside.rows.execute("SELECT seq FROM feed_readers") == [("7",)]


def follow(http: httpx2.Client, store_id: str, changes: int) -> None:
    """Read a stream until so many changes have come, and a heartbeat after them."""
    path = f"/v1/memory_stores/{store_id}/changes"
    with http.stream("GET", path, headers={"accept": "text/event-stream"}, timeout=60) as stream:
        seen = 0
        for line in stream.iter_lines():
            seen += line.startswith("event: change")
            if seen >= changes and line.startswith(": heartbeat"):
                return


@pytest.mark.any_backend
def test_a_token_that_follows_the_feed_passes_and_one_that_is_away_counts_until_it_is_revoked(
    own: Server, sdk: anthropic.Anthropic
) -> None:
    stores = sdk.beta.memory_stores
    store = stores.create(name="Notes")
    stores.memories.create(store.id, path="/anna.md", content="Anna")
    session = session_with(sdk, {"memory_store_id": store.id})
    tokens = [sdk.post(f"/v1/sessions/{session}/tokens", body={}, cast_to=dict[str, Any]) for _ in range(2)]
    for token in tokens:
        with bare_http(own, **{"x-api-key": token["token"]}) as http:
            http.get(f"/v1/memory_stores/{store.id}/changes?after=1").raise_for_status()

    def now() -> dict[str, int]:
        not_passed: dict[str, int] = json.loads(own.cli("forget", "report").stdout)["feed_readers"]["not_passed"]
        return not_passed

    own.cli("forget", "--contains", "Anna", "--yes")
    until(lambda: now() == counted(tokens=2), "both are written")
    with bare_http(own, **{"x-api-key": tokens[0]["token"]}) as http:
        follow(http, store.id, 2)
    until(lambda: now() == counted(tokens=1), "the one that followed has passed")
    sdk.delete(f"/v1/sessions/{session}/tokens/{tokens[1]['id']}", cast_to=dict[str, Any])
    assert now() == counted(ended=1)

"""Looking up secrets: what strangers can make it cost, and that they hold up nobody who is known."""

import asyncio
from typing import Any

import pytest

from app.contract.errors import AuthenticationFailed, Overloaded
from app.keys import queries, service
from app.keys.service import Authenticator, digest_of
from app.storage.rows.database import Database

GOOD = b"msk_good"


class OneKey:
    """A database with one key, which counts look-ups and holds them up while `open` is not set."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.under_way = 0
        self.most_under_way = 0
        self.revoked_at: int | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def fetch_one(self, statement: Any, parameters: Any) -> dict[str, Any] | None:
        assert statement is queries.FIND_KEY
        digest = parameters["secret_sha256"]
        self.asked.append(digest)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await (self.open.wait() if digest != digest_of(GOOD) else asyncio.sleep(0))
        finally:
            self.under_way -= 1
        if digest != digest_of(GOOD):
            return None
        return {"id": "apikey_1", "workspace_id": "wrkspc_1", "secret_sha256": digest, "revoked_at": self.revoked_at}


def authenticator(database: Any) -> Authenticator:
    stand_in: Database = database
    return Authenticator(stand_in, None)


async def refused(found: Authenticator, secret: bytes) -> str:
    with pytest.raises(AuthenticationFailed) as caught:
        await found.authenticate(secret)
    return caught.value.message


def test_an_unknown_secret_is_looked_up_once_in_a_while_however_often_it_comes() -> None:
    async def run() -> None:
        database = OneKey()
        found = authenticator(database)
        told = await asyncio.gather(*[refused(found, b"wrong") for _ in range(100)])
        assert set(told) == {"invalid x-api-key"}
        assert len(database.asked) <= service._STRANGERS_AT_ONCE
        before = len(database.asked)
        await asyncio.gather(*[refused(found, b"wrong") for _ in range(100)])
        assert len(database.asked) == before

    asyncio.run(run())


def test_what_is_remembered_of_unknown_secrets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_CACHE_ENTRIES", 10)

    async def run() -> None:
        found = authenticator(OneKey())
        await asyncio.gather(*[refused(found, b"%d" % number) for number in range(100)])
        assert len(found._refused) <= 10

    asyncio.run(run())


def test_strangers_take_few_look_ups_at_once_and_a_known_key_does_not_wait_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_CACHE_SECONDS", 0.0)  # the known key is looked up again each time

    async def run() -> None:
        database = OneKey()
        found = authenticator(database)
        caller = await found.authenticate(GOOD)
        database.open.clear()
        strangers = [asyncio.create_task(refused(found, b"%d" % number)) for number in range(200)]
        await asyncio.sleep(0)
        for _ in range(3):
            async with asyncio.timeout(30):
                assert await found.authenticate(GOOD) == caller
        assert database.most_under_way == service._STRANGERS_AT_ONCE + 1
        database.open.set()
        await asyncio.gather(*strangers)
        assert len(database.asked) == 204

    asyncio.run(run())


def test_a_stranger_that_waits_too_long_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_STRANGERS_WAIT_SECONDS", 0.01)

    async def run() -> None:
        database = OneKey()
        found = authenticator(database)
        database.open.clear()
        others = [asyncio.create_task(refused(found, b"%d" % number)) for number in range(service._STRANGERS_AT_ONCE)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await found.authenticate(GOOD)
        database.open.set()
        await asyncio.gather(*others)

    asyncio.run(run())


def test_a_stranger_that_leaves_gives_its_place_back() -> None:
    async def run() -> None:
        database = OneKey()
        found = authenticator(database)
        database.open.clear()
        leaving = [asyncio.create_task(refused(found, b"%d" % number)) for number in range(50)]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert (await found.authenticate(GOOD)).workspace_id == "wrkspc_1"

    asyncio.run(run())


def test_a_key_that_was_good_is_refused_once_it_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_CACHE_SECONDS", 0.0)

    async def run() -> None:
        database = OneKey()
        found = authenticator(database)
        await found.authenticate(GOOD)
        database.revoked_at = 1
        await refused(found, GOOD)
        await refused(found, GOOD)
        assert len(database.asked) == 2

    asyncio.run(run())

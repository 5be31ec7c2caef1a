"""The token buckets: what they hold, how they fill, and whom they tell to come when."""

import asyncio
from typing import Any

import pytest

from app.contract.actors import API_KEY, SESSION, Actor, Caller, SessionScope
from app.contract.errors import RateLimited
from app.server import rate_limits
from app.server.rate_limits import RateLimits

ONE = Caller("wrkspc_1", Actor(API_KEY, "apikey_1"))
OTHER = Caller("wrkspc_1", Actor(API_KEY, "apikey_2"))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(limits: RateLimits, caller: Caller = ONE) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limits.admit(caller)
    return caught.value


def test_a_minutes_worth_may_come_at_once_and_no_more(clock: Clock) -> None:
    limits = RateLimits(6, 0, clock)
    left = [limits.admit(ONE)["anthropic-ratelimit-requests-remaining"] for _ in range(6)]
    assert left == ["5", "4", "3", "2", "1", "0"]
    refusal = refused(limits)
    assert refusal.headers()["retry-after"] == "10"
    assert refusal.headers()["anthropic-ratelimit-requests-remaining"] == "0"
    assert refusal.headers()["anthropic-ratelimit-requests-limit"] == "6"


def test_who_comes_when_told_is_served(clock: Clock) -> None:
    limits = RateLimits(6, 0, clock)
    for _ in range(6):
        limits.admit(ONE)
    clock.now += int(refused(limits).headers()["retry-after"])
    limits.admit(ONE)
    refused(limits)


def test_those_who_are_refused_together_are_told_different_times_and_are_all_served_then(clock: Clock) -> None:
    limits = RateLimits(60, 0, clock)
    for _ in range(60):
        limits.admit(ONE)
    waits = [int(refused(limits).headers()["retry-after"]) for _ in range(3)]
    assert waits == [1, 2, 3]
    for _ in waits:
        clock.now += 1
        limits.admit(ONE)


def test_nobody_is_told_to_wait_longer_than_the_sdks_would(clock: Clock) -> None:
    limits = RateLimits(1, 0, clock)
    limits.admit(ONE)
    assert [refused(limits).headers()["retry-after"] for _ in range(3)] == ["60", "60", "60"]


def test_each_key_and_each_session_token_counts_for_itself(clock: Clock) -> None:
    session = Actor(SESSION, "sesn_1")
    tokens = [Caller("wrkspc_1", session, SessionScope("sesn_1", token, {})) for token in ("token_1", "token_2")]
    limits = RateLimits(1, 0, clock)
    for caller in (ONE, OTHER, *tokens):
        limits.admit(caller)
        refused(limits, caller)


def read(limits: RateLimits, caller: Caller, *chunks: bytes) -> None:
    """Read a body of these chunks as it comes in, whatever it said of its length."""
    coming = iter(chunks)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(coming), "more_body": True}

    async def run() -> None:
        counted = limits.counted(receive, caller)
        for chunk in chunks:
            assert (await counted())["body"] == chunk

    asyncio.run(run())


def test_written_bytes_are_counted_and_a_large_body_is_a_debt(clock: Clock) -> None:
    limits = RateLimits(0, 600, clock)
    assert limits.admit(ONE) == {}
    limits.admit_body(ONE)
    read(limits, ONE, b"x" * 400, b"", b"x" * 500)
    limits.admit_body(OTHER)
    with pytest.raises(RateLimited) as caught:
        limits.admit_body(ONE)
    assert caught.value.headers() == {"retry-after": "31"}  # 300 bytes of debt and one more byte, at 10 a second
    clock.now += 31
    limits.admit_body(ONE)


def test_buckets_that_are_full_again_are_let_go(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_SWEEP_AT", 3)
    limits = RateLimits(1, 0, clock)
    for number in range(3):
        limits.admit(Caller("wrkspc_1", Actor(API_KEY, f"apikey_{number}")))
    clock.now += 59
    limits.admit(Caller("wrkspc_1", Actor(API_KEY, "apikey_3")))
    clock.now += 1
    limits.admit(Caller("wrkspc_1", Actor(API_KEY, "apikey_4")))
    assert set(limits._request_buckets) == {"apikey_3", "apikey_4"}

"""How much one key may ask for in a minute: token buckets, one per API key and per session token, in this process.

A bucket holds a minute's worth, and fills evenly. A caller that empties it is refused with 429 until enough has
come in again;
those that are refused together are told different times to come back, so that they don't all come at once.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from app.contract.actors import Caller
from app.contract.errors import RateLimited
from app.http.asgi import Message, Receive

_SECONDS = 60.0
_LONGEST_WAIT_SECONDS = 60
"""The SDKs wait for as long as they are told only up to here; told more, they come back when they like."""
_SWEEP_AT = 10_000
"""Buckets above which the full ones are dropped: a full bucket says the same as a new one."""


class Bucket:
    """What one key has left of one limit. Times are in seconds of a monotonic clock."""

    __slots__ = ("_level", "_limit", "_promised", "_rate", "_time")

    def __init__(self, limit: int, now: float) -> None:
        """It is full. limit: what it holds, and what comes in within a minute."""
        self._limit = limit
        self._rate = limit / _SECONDS
        self._level = float(limit)
        self._time = now
        self._promised = now
        """Until when others were told to wait."""

    def has(self, amount: float, now: float) -> bool:
        """Whether so much is there."""
        self._level = min(self._limit, self._level + (now - self._time) * self._rate)
        self._time = now
        return self._level >= amount

    def take(self, amount: float) -> None:
        """Take it out, after a look with `has`; what is taken beyond the bottom has to come in first."""
        self._level -= amount

    def wait(self, amount: float, now: float) -> int:
        """In how many whole seconds somebody should come for what is not there, behind those told before."""
        missing = max(0.0, amount - self._level) / self._rate
        self._promised = max(self._promised, now + missing - amount / self._rate) + amount / self._rate
        return min(_LONGEST_WAIT_SECONDS, max(1, math.ceil(self._promised - now)))

    @property
    def left(self) -> int:
        """What is there, in whole numbers."""
        return max(0, int(self._level))

    def full_in(self) -> float:
        """Seconds until the bucket is full, if nobody takes anything."""
        return (self._limit - self._level) / self._rate


class RateLimits:
    """The limits of all keys. 0 is no limit."""

    def __init__(self, requests: int, written_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """requests, written_bytes: per minute and key. clock: seconds that only ever grow."""
        self._requests = requests
        self._bytes = written_bytes
        self._clock = clock
        self._request_buckets: dict[str, Bucket] = {}
        self._byte_buckets: dict[str, Bucket] = {}

    def admit(self, caller: Caller) -> dict[str, str]:
        """Count a request; the answer's headers that tell what is left.

        Raises:
            RateLimited: nothing is left; it has the same headers.
        """
        if not self._requests:
            return {}
        now = self._clock()
        bucket = self._bucket(self._request_buckets, _key(caller), self._requests, now)
        if not bucket.has(1, now):
            raise RateLimited(
                f"this key has sent more than {self._requests:,} requests within a minute",
                bucket.wait(1, now),
                self._headers(bucket),
            )
        bucket.take(1)
        return self._headers(bucket)

    def admit_body(self, caller: Caller) -> None:
        """See whether the key may write more, before its request's body is read.

        Raises:
            RateLimited: it has written its share.
        """
        if self._bytes:
            now = self._clock()
            bucket = self._bucket(self._byte_buckets, _key(caller), self._bytes, now)
            if not bucket.has(1, now):
                raise RateLimited(
                    f"this key has sent more than {self._bytes:,} bytes of request bodies within a minute",
                    bucket.wait(1, now),
                )

    def counted(self, receive: Receive, caller: Caller) -> Receive:
        """`receive` of an admitted request, which counts what it reads, whatever becomes of the request.

        A body that is larger than what is left is a debt, or it could never be sent.
        """
        if not self._bytes:
            return receive
        key = _key(caller)

        async def receive_and_count() -> Message:
            message = await receive()
            self._bucket(self._byte_buckets, key, self._bytes, self._clock()).take(len(message.get("body", b"")))
            return message

        return receive_and_count

    @staticmethod
    def _bucket(buckets: dict[str, Bucket], key: str, limit: int, now: float) -> Bucket:
        bucket = buckets.get(key)
        if bucket is None:
            if len(buckets) >= _SWEEP_AT:
                for full in [name for name, other in buckets.items() if other.has(limit, now)]:
                    del buckets[full]
            bucket = buckets[key] = Bucket(limit, now)
        return bucket

    def _headers(self, bucket: Bucket) -> dict[str, str]:
        # As the vendor has it: the time, in RFC 3339, when all of it is there again.
        reset = datetime.now(UTC) + timedelta(seconds=bucket.full_in())
        return {
            "anthropic-ratelimit-requests-limit": str(self._requests),
            "anthropic-ratelimit-requests-remaining": str(bucket.left),
            "anthropic-ratelimit-requests-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def _key(caller: Caller) -> str:
    return caller.actor.id if caller.session is None else caller.session.token_id

"""What a job is, and how one of a kind is done."""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Payload = Mapping[str, Any]
"""What a job is given, and what comes of it, as JSON: IDs, numbers and sentences of ours. Never content, paths, names
or other words of a person: a job is kept for a while after it is done."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as its worker sees it."""

    id: str
    kind: str
    payload: Mapping[str, Any]
    attempt: int
    """1 for the first."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How jobs of one kind are done. A job may run more than once, so `run` must bear repetition."""

    name: str
    run: Callable[[Job], Awaitable[Payload | None]]
    """Does a job and returns its result, which is kept for as long as the job is. An exception has the job tried again,
    unless it is a `GiveUp`."""
    attempts: int = 8
    """After so many that failed, or that ended with their process, the job is given up."""
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 300.0

    def pause(self, attempt: int) -> float:
        """Seconds until the next attempt: twice as long each time, and spread, so that what failed together parts."""
        longest: float = min(self.first_pause_seconds * 2 ** (attempt - 1), self.longest_pause_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - it spreads load, it hides nothing


class GiveUp(Exception):
    """Another attempt would fail in the same way. The text is the reason that an operator reads."""


class NotNow(Exception):
    """The job can't be done at this moment, through no fault of its own. This attempt does not count."""

    def __init__(self, seconds: float) -> None:
        """seconds: until the next attempt."""
        super().__init__(f"not before {seconds:g} seconds have passed")
        self.seconds = seconds

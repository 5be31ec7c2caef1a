"""Which paths to look at, and when."""

import heapq
import time

_SPIN_SECONDS = 0.001
_LONGEST_SPIN = 1.0


class Schedule:
    """Paths with the moment each is due, on the monotonic clock."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._again: dict[str, int] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._due

    def paths(self) -> list[str]:
        """All of them, in no order."""
        return list(self._due)

    def add(self, path: str, seconds: float = 0.0) -> None:
        """Look at the path in so many seconds, or earlier if that was planned."""
        at = time.monotonic() + seconds
        if at < self._due.get(path, float("inf")):
            self._due[path] = at
            heapq.heappush(self._heap, (at, path))

    def again(self, path: str, seconds: float | None) -> None:
        """After a look: the next one, if any. One that comes again and again at once slows down."""
        if seconds is None:
            self._again.pop(path, None)
            return
        tries = self._again[path] = self._again.get(path, -1) + 1
        self.add(path, max(seconds, min(_SPIN_SECONDS * 2**tries, _LONGEST_SPIN) if tries else 0.0))

    def replace(self, old: str, new: str) -> None:
        """Look at another path instead, now."""
        self._due.pop(old, None)
        self.add(new)

    def next(self) -> float:
        """When the first path is due; infinity if there is none."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else float("inf")

    def take(self, *, everything: bool = False) -> list[str]:
        """The paths that are due now, taken off the schedule in the order of their times.

        everything: also those that are due later.
        """
        until = float("inf") if everything else time.monotonic()
        taken: list[str] = []
        while self.next() <= until and self._heap:
            _, path = heapq.heappop(self._heap)
            del self._due[path]
            taken.append(path)
        return taken

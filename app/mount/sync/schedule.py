"""Which writes may go at the same time, and which must wait for earlier ones. No I/O, no threads."""

from collections.abc import Sequence

from app.contract import paths as contract_paths


class Schedule:
    """Writes by number. One waits for every earlier one that touches the same path, or one above or below it."""

    def __init__(self) -> None:
        self._at: dict[str, list[int]] = {}
        self._below: dict[str, set[int]] = {}
        self._paths: dict[int, Sequence[str]] = {}
        self._waiting_for: dict[int, set[int]] = {}
        self._followers: dict[int, list[int]] = {}
        self._barrier: int | None = None

    def add(self, number: int, paths: Sequence[str], *, is_barrier: bool = False) -> bool:
        """Whether it may go now. is_barrier: it waits for all earlier ones, and all later ones wait for it."""
        if is_barrier:
            blockers = set(self._paths)
        else:
            blockers = {number for path in paths for number in self._blockers(path)}
            if self._barrier in self._paths:
                assert self._barrier is not None
                blockers.add(self._barrier)
        self._paths[number] = paths
        if is_barrier:
            self._barrier = number
        for path in paths:
            self._at.setdefault(path, []).append(number)
            for directory in contract_paths.ancestors(path):
                self._below.setdefault(directory, set()).add(number)
        if blockers:
            self._waiting_for[number] = blockers
            for blocker in blockers:
                self._followers.setdefault(blocker, []).append(number)
        return not blockers

    def _blockers(self, path: str) -> set[int]:
        blockers = set(self._below.get(path, ()))
        for place in (path, *contract_paths.ancestors(path)):
            if place in self._at:
                blockers.add(self._at[place][-1])  # which itself waits for those before it
        return blockers

    def finish(self, number: int) -> list[int]:
        """The writes that may go now that this one is over, in order."""
        for path in set(self._paths.pop(number)):
            self._at[path] = [other for other in self._at[path] if other != number]
            if not self._at[path]:
                del self._at[path]
            for directory in contract_paths.ancestors(path):
                below = self._below.get(directory)
                if below is not None:
                    below.discard(number)
                    if not below:
                        del self._below[directory]
        ready = []
        for follower in self._followers.pop(number, ()):
            blockers = self._waiting_for[follower]
            blockers.discard(number)
            if not blockers:
                del self._waiting_for[follower]
                ready.append(follower)
        return sorted(ready)

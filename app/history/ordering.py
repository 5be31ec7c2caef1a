"""The order in which live memories go back to their places, so that no two are in each other's way in between.

Every change is seen by itself by who follows the store, and can be gone back to. So after each of them the paths must
be lawful: a memory moves only once its place is free. Memories that wait for each other in a circle never come to
that; of each circle one is taken out of the way first.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from app.contract import paths

Moves = Mapping[str, tuple[str, str]]
"""Old and new path by memory."""


class _Places:
    """Where memories are at the moment."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._at: dict[str, str] = {}
        self._below: defaultdict[str, set[str]] = defaultdict(set)
        for memory_id, path in places.items():
            self.put(memory_id, path)

    def put(self, memory_id: str, path: str) -> None:
        self._at[path] = memory_id
        for directory in paths.ancestors(path):
            self._below[directory].add(memory_id)

    def take(self, memory_id: str, path: str) -> None:
        del self._at[path]
        for directory in paths.ancestors(path):
            self._below[directory].discard(memory_id)

    def in_the_way(self, memory_id: str, path: str) -> str | None:
        """Some other memory at a path, above it or below it."""
        for place in (path, *paths.ancestors(path)):
            other = self._at.get(place)
            if other not in (None, memory_id):
                return other
        return next((other for other in self._below.get(path, ()) if other != memory_id), None)


def lawful_order(places: Mapping[str, str], moves: Moves) -> tuple[list[str], list[str]]:
    """The memories to be moved, in order; and those to be taken away beforehand, and put back in the end.

    places: the path of every memory that is there. In the end no two may be in each other's way.
    """
    now = _Places(places)
    waiting: defaultdict[str, list[str]] = defaultdict(list)
    moved: list[str] = []
    taken: list[str] = []
    done: set[str] = set()

    def go(memory_ids: Iterable[str]) -> None:
        ready = list(memory_ids)[::-1]
        while ready:
            memory_id = ready.pop()
            if memory_id in done:
                continue  # It was taken away while it waited.
            old, new = moves[memory_id]
            other = now.in_the_way(memory_id, new)
            if other is not None:
                waiting[other].append(memory_id)
                continue
            now.take(memory_id, old)
            now.put(memory_id, new)
            moved.append(memory_id)
            done.add(memory_id)
            ready += waiting.pop(memory_id, ())

    go(moves)
    left: Sequence[str] = [memory_id for memory_id in moves if memory_id not in done]
    for memory_id in left:
        if memory_id not in done:
            now.take(memory_id, moves[memory_id][0])
            taken.append(memory_id)
            done.add(memory_id)
            go(waiting.pop(memory_id, ()))
    return moved, taken

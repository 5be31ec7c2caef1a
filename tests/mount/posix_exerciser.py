"""`python -m tests.mount.posix_exerciser PATH SEED COUNT`: so many random operations on one file, each checked.

Reads, writes, truncates and maps, through descriptors that come and go, against a byte array. At the end it prints
the text that the file must have; a difference ends it with status 1 and the operations that led there.
"""

import contextlib
import mmap
import os
import random
import string
import sys
from collections.abc import Callable

LIMIT = 100_000
LETTERS = string.ascii_letters + "\n"


class Exerciser:
    """One file, and what it must hold. ASCII, so that any piece of it is text."""

    def __init__(self, path: str, seed: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.model = bytearray()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self.log: list[str] = []

    def run(self, count: int) -> None:
        operations: list[tuple[Callable[[], None], int]] = [
            (self.read, 8), (self.write, 8), (self.append, 3), (self.truncate, 3), (self.extend, 2), (self.reopen, 2),
            (self.sync, 1), (self.read_map, 3), (self.write_map, 4), (self.write_in_pieces, 1), (self.read_all, 1),
            (self.truncate_by_name, 1),
        ]  # fmt: skip
        calls, weights = zip(*operations, strict=True)
        for call in self.chance.choices(calls, weights, k=count):
            call()
            self.check("size", len(self.model), os.fstat(self.descriptor).st_size)
        os.close(self.descriptor)
        with open(self.path, "rb") as file:
            self.check("the whole", bytes(self.model), file.read())

    def check(self, what: str, expected: object, found: object) -> None:
        if expected != found:
            tail = "\n".join(self.log[-40:])
            sys.exit(f"{what} differs: {expected!r:.300} was written, {found!r:.300} is found, after\n{tail}")

    def note(self, what: str, *numbers: int) -> None:
        self.log.append(f"{what} {numbers}")

    def some(self, most: int) -> bytes:
        size = self.chance.choice([1, self.chance.randint(1, 64), self.chance.randint(1, 9000)])
        return "".join(self.chance.choices(LETTERS, k=max(1, min(size, most)))).encode()

    def span(self) -> tuple[int, int]:
        """A place in the file and a length that stays in it, at least 1; the file is not empty."""
        start = self.chance.randrange(len(self.model))
        return start, min(self.chance.choice([1, 100, 5000, 50_000]), len(self.model) - start)

    def put(self, start: int, data: bytes) -> None:
        self.model.extend(bytes(max(0, start + len(data) - len(self.model))))
        self.model[start : start + len(data)] = data

    def read(self) -> None:
        start = self.chance.randint(0, len(self.model) + 100)
        size = self.chance.randint(1, 20_000)
        self.note("read", start, size)
        self.check("what is read", bytes(self.model[start : start + size]), os.pread(self.descriptor, size, start))

    def read_all(self) -> None:
        self.note("read all")
        with open(self.path, "rb") as file:
            self.check("the whole", bytes(self.model), file.read())

    def write(self) -> None:
        start = self.chance.randint(0, min(len(self.model) + self.chance.choice([0, 0, 0, 5000]), LIMIT - 1))
        data = self.some(LIMIT - start)
        self.note("write", start, len(data))
        self.check("what was written", len(data), os.pwrite(self.descriptor, data, start))
        self.put(start, data)

    def write_in_pieces(self) -> None:
        start = self.chance.randint(0, min(len(self.model), LIMIT - 300))
        pieces = [self.some(100) for _ in range(3)]
        self.note("write in pieces", start, *map(len, pieces))
        os.pwritev(self.descriptor, pieces, start)
        self.put(start, b"".join(pieces))

    def append(self) -> None:
        if len(self.model) >= LIMIT:
            return
        data = self.some(LIMIT - len(self.model))
        self.note("append", len(data))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, data)
        os.close(descriptor)
        self.put(len(self.model), data)

    def truncate(self) -> None:
        size = self.chance.randint(0, len(self.model))
        self.note("truncate", size)
        os.ftruncate(self.descriptor, size)
        del self.model[size:]

    def extend(self) -> None:
        size = self.chance.randint(len(self.model), min(len(self.model) + 10_000, LIMIT))
        self.note("extend", size)
        os.ftruncate(self.descriptor, size)
        self.model.extend(bytes(size - len(self.model)))

    def truncate_by_name(self) -> None:
        size = self.chance.randint(0, len(self.model))
        self.note("truncate by name", size)
        os.truncate(self.path, size)
        del self.model[size:]

    def reopen(self) -> None:
        self.note("reopen")
        os.close(self.descriptor)
        self.descriptor = os.open(self.path, os.O_RDWR)

    def sync(self) -> None:
        self.note("sync")
        os.fsync(self.descriptor)

    def read_map(self) -> None:
        if not self.model:
            return
        start, size = self.span()
        self.note("read map", start, size)
        with mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ) as mapped:
            self.check("what is mapped", bytes(self.model[start : start + size]), mapped[start : start + size])

    def write_map(self) -> None:
        if not self.model:
            return
        start, size = self.span()
        data = "".join(self.chance.choices(LETTERS, k=size)).encode()
        is_synced = self.chance.random() < 0.5
        self.note("write map", start, size, is_synced)
        with mmap.mmap(self.descriptor, 0) as mapped:
            mapped[start : start + size] = data
            if is_synced:
                mapped.flush()
        self.model[start : start + size] = data


def main(path: str, seed: str, count: str) -> None:
    exerciser = Exerciser(path, int(seed))
    with contextlib.suppress(BrokenPipeError):
        exerciser.run(int(count))
        sys.stdout.write(exerciser.model.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])

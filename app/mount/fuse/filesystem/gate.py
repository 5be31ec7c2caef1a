"""Keeps saving and the renaming of directories apart."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Many may be in it, or one alone: a directory is renamed while nothing below it is saved."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """With others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """With nobody else."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def wait_until_empty(self, timeout: float | None) -> bool:
        """Whether nobody was inside at some moment within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._inside == 0 and not self._alone, timeout)

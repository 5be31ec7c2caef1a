"""Objects on any file system that fsspec knows, by its blocking calls in a few threads."""

import asyncio
import contextlib
import errno
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from app.storage.contents.objects.port import Listed

T = TypeVar("T")

_THREADS = 8


class ThreadedObjects:
    """`Objects` on one of fsspec's blocking file systems."""

    def __init__(self, filesystem: Any) -> None:
        protocol = filesystem.protocol
        self.system: str = protocol if isinstance(protocol, str) else protocol[0]
        self._fs = filesystem
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    async def write(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """See `Objects`. What one `pipe` writes, `disk` makes durable together."""
        await self._run(lambda: self._fs.pipe(dict(objects)))

    async def write_whole(self, path: str, content: bytes) -> None:
        """See `Objects`."""
        await self._run(lambda: self._write_whole(path, content))

    def _write_whole(self, path: str, content: bytes) -> None:
        try:
            self._fs.pipe_file(path, content)
            written = self._fs.cat_file(path)
        except Exception:
            with contextlib.suppress(Exception):
                self._fs.rm_file(path)
            raise
        if written != content:
            self._fs.rm_file(path)
            raise OSError(errno.EIO, "was cut short", path)

    async def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """See `Objects`."""
        return await self._run(lambda: [self._read_one(path) for path in paths])

    def _read_one(self, path: str) -> bytes | None:
        return _or_none(lambda: self._fs.cat_file(path))

    async def remove(self, paths: Sequence[str]) -> None:
        """See `Objects`."""
        await self._share(lambda path: _or_none(lambda: self._fs.rm_file(path)), paths)

    async def remove_below(self, path: str) -> None:
        """See `Objects`."""
        await self._run(lambda: _or_none(lambda: self._fs.rm(path, recursive=True)))

    async def list_below(self, paths: Sequence[str]) -> list[Listed]:
        """See `Objects`."""
        return await self._run(lambda: [listed for path in paths for listed in self._list_one(path)])

    def _list_one(self, path: str) -> Iterable[Listed]:
        found = self._fs.find(f"{path}/", detail=True)
        return [Listed(name, entry["size"], _modified(entry)) for name, entry in found.items()]

    async def names(self, path: str) -> list[str]:
        """See `Objects`."""
        entries = await self._run(lambda: _or_none(lambda: self._fs.ls(path, detail=False)))
        return [entry.rstrip("/").rpartition("/")[2] for entry in entries or ()]

    async def close(self) -> None:
        """Wait for the threads that still write."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _share(self, call: Callable[[str], T], paths: Sequence[str]) -> list[T]:
        """`call` on every path, in a few threads that each take a share: a hop costs more than a small file."""
        size = max(1, -(-len(paths) // _THREADS))
        shares = [paths[start : start + size] for start in range(0, len(paths), size)]

        def work(share: Sequence[str]) -> list[T]:
            return [call(path) for path in share]

        results = await asyncio.gather(
            *(self._run(lambda share=share: work(share)) for share in shares),  # type: ignore[misc]
            return_exceptions=True,  # every thread has ended when one's error is raised
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return list(itertools.chain.from_iterable(results))  # type: ignore[arg-type]


def _or_none(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except FileNotFoundError:
        return None


def _modified(entry: dict[str, Any]) -> float | None:
    moment = entry.get("mtime") or entry.get("last_modified") or entry.get("LastModified")
    if moment is None or isinstance(moment, int | float):
        return moment
    seconds: float = moment.timestamp()
    return seconds

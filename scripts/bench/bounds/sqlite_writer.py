"""The bound for updates on SQLite: one writer thread with group commit, the same statements, no HTTP.

`python -m scripts.bench.bounds.sqlite_writer PLAN` prints one JSON object. Submitters are tasks of an event
loop, which costs less than threads that wait for each other.
"""

import asyncio
import hashlib
import itertools
import json
import queue
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvloop

_GROUP = 256

Job = tuple[dict[str, Any], "asyncio.Future[None]"]


class Writer:
    """The thread: takes all jobs that wait, runs each in a savepoint, commits them together.

    A job reads the memory's row and the store's (the plan's `reads`), then runs the plan's `writes`.
    """

    def __init__(self, plan: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._file = plan["file"]
        self._reads = [(sql, tuple(names)) for sql, names in plan["reads"]]
        self._writes = [(sql, tuple(names)) for sql, names in plan["writes"]]
        self._loop = loop
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection = sqlite3.connect(self._file, isolation_level=None, cached_statements=512)
        connection.row_factory = sqlite3.Row
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "cache_size = -32768",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        last = False
        while not last:
            group: list[Job] = []
            job = self.jobs.get()
            while job is not None:
                group.append(job)
                if len(group) == _GROUP or self.jobs.empty():
                    break
                job = self.jobs.get_nowait()
            last = job is None
            if group:
                self._commit(connection, [values for values, _ in group])
                self._loop.call_soon_threadsafe(self._wake, [done for _, done in group])
        connection.close()

    def _commit(self, connection: sqlite3.Connection, group: list[dict[str, Any]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for values in group:
            connection.execute("SAVEPOINT job")
            memory, store = (
                connection.execute(sql, [values[name] for name in names]).fetchall()[0] for sql, names in self._reads
            )
            values["seq"] = store["last_seq"] + 1
            values["path"] = memory["path"]
            values["bytes_change"] = values["size"] - memory["content_size"]
            for sql, names in self._writes:
                connection.execute(sql, [values[name] for name in names])
            connection.execute("RELEASE job")
        connection.execute("COMMIT")

    @staticmethod
    def _wake(group: list["asyncio.Future[None]"]) -> None:
        for done in group:
            done.set_result(None)


async def _submit(plan: dict[str, Any], number: int, writer: Writer, until: float) -> int:
    loop = asyncio.get_running_loop()
    targets = itertools.cycle(plan["targets"][number :: plan["submitters"]])
    filler = b"x" * plan["content_bytes"]
    for count in itertools.count():
        if time.monotonic() >= until:
            return count
        head = f"{plan['mark']} {number:04d} {count:012d} ".encode()
        content = head + filler[len(head) :]
        store_id, memory_id = next(targets)
        values = {
            **plan["constants"],
            "store_id": store_id,
            "memory_id": memory_id,
            "version_id": f"memver_01{plan['mark']}{count:08d}{number:04d}",
            "content": content,
            "sha256": hashlib.sha256(content).digest(),
            "size": len(content),
            "now": time.time_ns() // 1_000,
        }
        done = loop.create_future()
        writer.jobs.put((values, done))
        await done
    raise AssertionError


async def _measure(plan: dict[str, Any]) -> dict[str, float]:
    writer = Writer(plan, asyncio.get_running_loop())
    writer.thread.start()
    began = time.monotonic()
    until = began + plan["seconds"]
    counts = await asyncio.gather(*(_submit(plan, number, writer, until) for number in range(plan["submitters"])))
    took = time.monotonic() - began
    writer.jobs.put(None)
    await asyncio.to_thread(writer.thread.join)
    return {"updates": sum(counts), "updates_per_second": sum(counts) / took}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_measure(json.loads(Path(sys.argv[1]).read_text())))))

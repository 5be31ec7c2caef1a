"""Programs that use the official SDK as it comes, retries included, and keep account of every answer."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator

import anthropic
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory as Memory

from tests.support.waiting import until

_MEMORIES_AT_MOST = 8


class Program:
    """Creates, updates, reads, lists and deletes memories of its own; whatever the SDK raises is a failure."""

    def __init__(self, client: anthropic.Anthropic, store_id: str, name: str) -> None:
        self.store_id = store_id
        self.name = name
        self.failures: list[str] = []
        self.acknowledged: dict[str, str] = {}
        """Content by version ID."""
        self.live: dict[str, Memory] = {}
        self.is_over = threading.Event()
        self._memories = client.beta.memory_stores.memories
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        turn = 0
        while not self.is_over.is_set():
            turn += 1
            try:
                self._turn(turn)
            except Exception as error:
                self.failures.append(f"{self.name}, turn {turn}: {type(error).__name__}: {error}")
                self.is_over.wait(0.05)

    def _turn(self, turn: int) -> None:
        text = f"{self.name}, turn {turn}: " + "words " * (turn % 5 * 50)
        if len(self.live) < _MEMORIES_AT_MOST:
            made = self._memories.create(self.store_id, path=f"/{self.name}/{turn}.md", content=text)
            self._note(made, text)
            return
        memory = list(self.live.values())[turn % len(self.live)]
        if turn % 7 == 0:
            self._memories.delete(memory.id, memory_store_id=self.store_id)
            del self.live[memory.id]
        elif turn % 3 == 0:
            read = self._memories.retrieve(memory.id, memory_store_id=self.store_id)
            assert read.content_sha256 == memory.content_sha256, "a read is older than an acknowledged write"
            listed = self._memories.list(self.store_id, path_prefix=f"/{self.name}/", limit=_MEMORIES_AT_MOST)
            assert {each.id for each in listed.data if each.type == "memory"} == set(self.live)
        else:
            updated = self._memories.update(
                memory.id,
                memory_store_id=self.store_id,
                content=text,
                precondition={"type": "content_sha256", "content_sha256": memory.content_sha256},
            )
            self._note(updated, text)

    def _note(self, memory: Memory, text: str) -> None:
        assert memory.content_sha256 == hashlib.sha256(text.encode()).hexdigest()
        self.live[memory.id] = memory
        self.acknowledged[memory.memory_version_id] = text


class SdkLoad:
    """Several programs on several stores."""

    def __init__(self, client: anthropic.Anthropic, *, programs: int, stores: int) -> None:
        self.store_ids = [client.beta.memory_stores.create(name="under load").id for _ in range(stores)]
        self.programs = [
            Program(client, self.store_ids[count % stores], f"program-{count}") for count in range(programs)
        ]

    def wait_for_acknowledged(self, number: int) -> None:
        """Return when every program had so many more writes acknowledged."""
        goals = [len(program.acknowledged) + number for program in self.programs]
        until(
            lambda: all(len(p.acknowledged) >= goal for p, goal in zip(self.programs, goals, strict=True)),
            f"every program has {number} more writes acknowledged",
        )

    def stop(self) -> None:
        """End every program; returns when the last call is over."""
        for program in self.programs:
            program.is_over.set()
        for program in self.programs:
            program.thread.join()

    @property
    def failures(self) -> list[str]:
        """Every call that the SDK could not bring to a good end."""
        return [failure for program in self.programs for failure in program.failures]

    def assert_nothing_is_lost(self, client: anthropic.Anthropic) -> None:
        """Every acknowledged text is in the history, and every live memory is as its program left it."""
        for store_id in self.store_ids:
            kept = {v.id: v.content for v in client.beta.memory_stores.memory_versions.list(store_id, view="full")}
            mine = [program for program in self.programs if program.store_id == store_id]
            for program in mine:
                assert {key: kept.get(key) for key in program.acknowledged} == program.acknowledged
            listed = client.beta.memory_stores.memories.list(store_id)
            found = {each.id: each.memory_version_id for each in listed if each.type == "memory"}
            assert found == {m.id: m.memory_version_id for program in mine for m in program.live.values()}


@contextlib.contextmanager
def sdk_load(client: anthropic.Anthropic, *, programs: int = 4, stores: int = 2) -> Iterator[SdkLoad]:
    """Use the service until the end of the context; then every program has ended."""
    running = SdkLoad(client, programs=programs, stores=stores)
    for program in running.programs:
        program.thread.start()
    try:
        yield running
    finally:
        running.stop()

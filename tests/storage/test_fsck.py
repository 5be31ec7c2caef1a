"""fsck finds each kind of damage, repairs what can be repaired, and raises no false alarm."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import anthropic
import pytest

from app.storage.upkeep.fsck import Finding, Fsck
from tests.storage.interrupted import InterruptedBlobs
from tests.storage.outside import digest, key, outside
from tests.storage.parts import Parts, Written, opened
from tests.support.backends import Backend
from tests.support.servers import Server, run_cli, serve
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

CLEAN = '{"ok": true, "findings": []}\n'


def kinds(findings: list[Finding]) -> list[str]:
    return sorted(finding.kind for finding in findings)


def home(version: Written) -> str:
    return key(version.store_id, version.sha256)


async def moved(parts: Parts, content: str = "content") -> Written:
    """A memory whose content is in the blob store."""
    memory = await parts.create(await parts.store(), content)
    await parts.move_all()
    return memory


async def test_a_sound_service_is_clean_with_staged_moved_condemned_and_erased_contents(parts: Parts) -> None:
    past = await parts.create_past("moved, then erased")
    await parts.move_all()
    await parts.redact(past)
    await parts.create(past.store_id, "staged", "/staged.md")
    deleted = await parts.create(past.store_id, "deleted", "/deleted.md")
    await parts.delete(deleted)
    gone = await moved(parts)
    await parts.stores.delete(parts.caller, gone.store_id)
    assert await parts.check() == []


async def test_a_store_whose_contents_are_all_staged_is_clean(parts: Parts) -> None:
    await parts.create(await parts.store(), "staged")
    assert await parts.check() == []


async def test_a_missing_blob_is_found_and_named(parts: Parts) -> None:
    memory = await moved(parts)
    parts.outside.blobs.remove(home(memory))
    (finding,) = await parts.check()
    assert (finding.kind, finding.store_id) == ("missing_content", memory.store_id)
    assert memory.version_id in finding.detail
    assert memory.sha256 in finding.detail


async def test_a_missing_blob_is_found_once_for_each_version_that_needs_it(parts: Parts) -> None:
    memory = await moved(parts)
    again = await parts.create(memory.store_id, memory.content, "/again.md")
    await parts.move_all()
    parts.outside.blobs.remove(home(memory))
    findings = await parts.check()
    assert kinds(findings) == ["missing_content", "missing_content"]
    named = " ".join(finding.detail for finding in findings)
    assert memory.version_id in named
    assert again.version_id in named


async def test_the_missing_blob_of_an_old_version_is_found(parts: Parts) -> None:
    past = await parts.create_past("past")
    await parts.move_all()
    parts.outside.blobs.remove(home(past))
    assert kinds(await parts.check()) == ["missing_content"]


@pytest.mark.parametrize("damaged", [b"Content", b"conten", b"content.", b""])
async def test_a_blob_with_other_bytes_is_found(parts: Parts, damaged: bytes) -> None:
    memory = await moved(parts)
    parts.outside.blobs.write(home(memory), damaged)
    (finding,) = await parts.check()
    assert (finding.kind, finding.store_id) == ("corrupt_blob", memory.store_id)


async def test_a_stage_row_with_other_bytes_is_found(parts: Parts) -> None:
    memory = await parts.create(await parts.store(), "content")
    parts.outside.rows.execute(f"UPDATE staged_contents SET content = {parts.outside.rows.literal('00ff')}")
    (finding,) = await parts.check()
    assert (finding.kind, finding.store_id) == ("corrupt_blob", memory.store_id)


async def test_an_orphaned_blob_is_found_and_removed_by_a_repair(parts: Parts) -> None:
    memory = await moved(parts)
    parts.outside.blobs.write(key(memory.store_id, digest("orphan")), b"orphan")
    assert kinds(await parts.check()) == ["orphaned_blob"]
    (finding,) = await parts.check(repair=True)
    assert finding.repaired
    assert parts.outside.blobs_of(memory.store_id) == {memory.sha256}
    assert await parts.check() == []


@pytest.mark.parametrize("counter", ["memory_count", "total_bytes"])
@pytest.mark.parametrize("drift", [1, -1])
async def test_a_stores_counter_that_drifted_is_found_and_counted_anew_by_a_repair(
    parts: Parts, counter: str, drift: int
) -> None:
    memory = await moved(parts)
    parts.outside.rows.execute(f"UPDATE memory_stores SET {counter} = {counter} + {drift}")
    (finding,) = await parts.check()
    assert (finding.kind, finding.store_id, finding.repaired) == ("wrong_counter", memory.store_id, False)
    assert counter in finding.detail
    (finding,) = await parts.check(repair=True)
    assert finding.repaired
    assert await parts.check() == []
    counters = parts.outside.rows.execute("SELECT memory_count, total_bytes FROM memory_stores")
    assert counters == [("1", str(len("content")))]


async def test_a_sequence_number_that_would_be_used_again_is_found_and_repaired(parts: Parts) -> None:
    memory = await moved(parts)
    parts.outside.rows.execute("UPDATE memory_stores SET last_seq = 0")
    assert kinds(await parts.check(repair=True)) == ["wrong_counter"]
    assert await parts.check() == []
    await parts.update(memory, "after the repair")


async def test_a_workspaces_counter_that_drifted_is_found_and_counted_anew_by_a_repair(parts: Parts) -> None:
    await parts.store()
    deleted = await parts.store()
    await parts.stores.delete(parts.caller, deleted)
    parts.outside.rows.execute("UPDATE workspaces SET store_count = store_count + 5")
    (finding,) = await parts.check()
    assert finding.kind == "wrong_counter"
    assert parts.caller.workspace_id in finding.detail
    (finding,) = await parts.check(repair=True)
    assert finding.repaired
    assert await parts.check() == []
    assert parts.outside.rows.execute("SELECT store_count FROM workspaces") == [("1",)]


HEADS: dict[str, Callable[[Parts, Written], str]] = {
    "head version is not there": lambda parts, memory: "UPDATE memories SET version_id = 'memver_gone'",
    "head has another path": lambda parts, memory: "UPDATE memories SET path = '/elsewhere.md'",
    "head has another digest": lambda parts, memory: (
        f"UPDATE memories SET content_sha256 = {parts.outside.rows.literal(digest('other'))}"
    ),
    "head has another size": lambda parts, memory: "UPDATE memory_versions SET content_size = content_size + 1",
    "head is of another memory": lambda parts, memory: "UPDATE memory_versions SET memory_id = 'mem_other'",
}


@pytest.mark.parametrize("damage", HEADS.values(), ids=HEADS)
async def test_a_broken_head_is_found_and_named(parts: Parts, damage: Callable[[Parts, Written], str]) -> None:
    memory = await moved(parts)
    parts.outside.rows.execute(damage(parts, memory))
    (finding,) = await parts.check()
    assert (finding.kind, finding.store_id) == ("broken_head", memory.store_id)
    assert memory.memory_id in finding.detail


async def test_what_a_repair_can_not_fix_it_does_not_call_repaired(parts: Parts) -> None:
    memory = await moved(parts)
    parts.outside.blobs.remove(home(memory))
    broken = await moved(parts, "broken")
    parts.outside.rows.execute(f"UPDATE memories SET path = '/x' WHERE id = '{broken.memory_id}'")
    for _ in range(2):
        findings = await parts.check(repair=True)
        assert kinds(findings) == ["broken_head", "missing_content"]
        assert not any(finding.repaired for finding in findings)


async def test_versions_erased_during_the_check_are_no_findings_even_when_more_are_erased_during_the_second_look(
    parts: Parts,
) -> None:
    one = await parts.create_past("one")
    other = await parts.create(one.store_id, "other", "/other.md")
    await parts.update(other, "after other")
    await parts.move_all()
    busy = InterruptedBlobs(parts.blobs)

    async def erase(version: Written) -> None:
        await parts.redact(version)
        await parts.collector().collect()

    async def erase_one_and_later_the_other() -> None:
        await erase(one)
        busy.before_get = lambda: erase(other)

    busy.before_get = erase_one_and_later_the_other
    assert await Fsck(parts.storage.database, busy).run(repair=False) == []


async def test_a_check_looks_at_the_last_of_many_versions_and_at_every_store(parts: Parts) -> None:
    crowded = await parts.create(await parts.store(), "0")
    for number in range(1, 520):
        crowded = await parts.update(crowded, str(number % 3))
    crowded = await parts.update(crowded, "last")
    alone = await parts.create(await parts.store(), "alone")
    await parts.move_all()
    for memory in (crowded, alone):
        parts.outside.blobs.remove(home(memory))
    assert kinds(await parts.check()) == ["missing_content", "missing_content"]


async def test_a_check_ends_although_stores_and_versions_keep_coming(parts: Parts) -> None:
    memory = await moved(parts)
    busy = InterruptedBlobs(parts.blobs)
    came = 0

    async def write_on() -> None:
        nonlocal came, memory
        came += 1
        if came < 50:
            busy.before_get = write_on
        memory = await parts.update(memory, f"version {came}")
        await parts.create(await parts.store(), f"store {came}")
        await parts.move_all()

    busy.before_get = write_on
    assert await Fsck(parts.storage.database, busy).run(repair=False) == []
    assert came < 50, "the check ran after what was written during the check"


class Busy(threading.Thread):
    """A client that writes, updates, redacts and deletes without a pause until it is told to stop."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self.turns = 0
        self.failure: BaseException | None = None
        self._server = server

    def run(self) -> None:
        try:
            with self._server.client(max_retries=0) as client:
                store = client.beta.memory_stores.create(name="busy")
                while not self.is_over.is_set():
                    self.turns += 1
                    self._turn(client, store.id)
        except BaseException as error:
            self.failure = error

    def _turn(self, client: anthropic.Anthropic, store_id: str) -> None:
        stores, memories = client.beta.memory_stores, client.beta.memory_stores.memories
        # Few contents, so that each comes back while it is being erased.
        memory = memories.create(store_id, path=f"/{self.turns}.md", content=f"first {self.turns % 5}")
        memories.update(memory.id, memory_store_id=store_id, content=f"second {self.turns % 7}")
        stores.memory_versions.redact(memory.memory_version_id, memory_store_id=store_id)
        if self.turns % 3:
            memories.delete(memory.id, memory_store_id=store_id)
        if self.turns % 8 == 0:
            short_lived = stores.create(name="short-lived")
            memories.create(short_lived.id, path="/memory.md", content=f"short-lived {self.turns}")
            stores.delete(short_lived.id)


def test_a_check_of_a_busy_service_reports_nothing_false(backend: Backend, tmp_path: Path) -> None:
    with serve(backend.environment(tmp_path)) as server:
        clients = [Busy(server) for _ in range(2)]
        for client in clients:
            client.start()
        until(lambda: all(client.turns > 10 for client in clients), "the service is busy")
        reports = [server.cli("fsck", "--json", check=False) for _ in range(2)]
        for client in clients:
            client.is_over.set()
        for client in clients:
            client.join()
        assert [client.failure for client in clients] == [None, None]
        for report in reports:
            assert report.stdout == CLEAN, report.stderr


def test_the_command_ends_with_1_when_it_found_something_and_prints_json(environment: dict[str, str]) -> None:
    def fsck(*options: str) -> tuple[int, str]:
        done = run_cli(environment, "fsck", *options, check=False)
        return done.returncode, done.stdout

    async def fill() -> Written:
        async with opened(environment) as parts:
            return await moved(parts)

    memory = asyncio.run(fill())
    assert fsck("--json") == (0, CLEAN)

    with outside(environment) as view:
        view.blobs.write(key(memory.store_id, digest("orphan")), b"orphan")
        view.rows.execute("UPDATE memory_stores SET total_bytes = 1")
        status, printed = fsck("--json")
        assert status == 1
        report = json.loads(printed)
        assert report["ok"] is False
        assert {finding["kind"] for finding in report["findings"]} == {"orphaned_blob", "wrong_counter"}
        for finding in report["findings"]:
            assert finding["store_id"] == memory.store_id
            assert finding["repaired"] is False

        status, printed = fsck("--repair")
        assert status == 1
        assert "total_bytes is 1, counted 7 (repaired)" in printed
        assert fsck("--json") == (0, CLEAN)

        view.blobs.remove(home(memory))
        status, printed = fsck("--repair")
        assert status == 1
        assert printed.startswith(f"missing_content  {memory.store_id}  ")
        assert "(repaired)" not in printed

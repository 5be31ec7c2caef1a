"""An erasure that died is finished by the next run, wherever it died."""

import asyncio
import dataclasses
import io
import subprocess
import threading
from pathlib import Path
from typing import IO

import pytest

from app.contract.errors import InvalidRequest
from app.erasure import service
from app.erasure.erasing import Erasing
from app.erasure.places import PLACES, Place
from app.erasure.service import Erasures, Occupied
from tests.docs.blocks import reader_environment
from tests.erasure.steps import checked, erase, finish, planned
from tests.storage.parts import Parts
from tests.support.forks import memstore
from tests.support.servers import run_cli

pytestmark = pytest.mark.anyio

MANY = 300


class Died(Exception):
    """The process is gone (planted by a test)."""


def dying(place: Place, *, after: bool) -> Place:
    """A place at which the erasing process dies, before it is emptied or right after."""

    async def erase(erasing: Erasing) -> list[str]:
        if after:
            await place.erase(erasing)
        raise Died

    return dataclasses.replace(place, erase=erase)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("index", range(len(PLACES)), ids=[place.name for place in PLACES])
async def test_a_run_that_died_at_any_place_is_finished_by_the_next(
    parts: Parts, erasures: Erasures, monkeypatch: pytest.MonkeyPatch, index: int, after: bool
) -> None:
    whole, shared = await parts.store(), await parts.store()
    for store_id in (whole, shared):
        gone = await parts.create(store_id, f"Anna in {store_id}", "/anna.md")
        await parts.update(gone, "Anna again")
        await parts.create(store_id, "somebody else", "/else.md")
    await parts.move_all()
    plan = await planned(parts, store_ids=[whole])
    part = await planned(parts, contains="Anna", store_ids=[shared])
    plan.memories, plan.touched = part.memories, part.touched
    erasure_id = await erasures.begin(plan)
    monkeypatch.setattr(service, "PLACES", (*PLACES[:index], dying(PLACES[index], after=after), *PLACES[index + 1 :]))
    with pytest.raises(Died):
        await finish(parts, erasures, erasure_id)
    monkeypatch.setattr(service, "PLACES", PLACES)
    unfinished = await erasures.unfinished()
    assert unfinished is not None
    with pytest.raises(InvalidRequest, match="--resume"):
        await erase(parts, erasures, store_ids=[shared])
    made = await finish(parts, erasures, unfinished["id"])
    assert made["counts"] == {"stores": 1, "memories": 3, "versions": 6, "stores_touched": 1, "texts": 0}
    verdict = await checked(parts, made, contains="Anna")
    assert verdict.nothing_left, verdict
    assert await parts.list_contents(shared) == ["somebody else"]
    assert await parts.check() == []
    assert await erasures.unfinished() is None


@pytest.mark.any_backend
async def test_a_run_that_stood_still_stops_and_says_how_it_goes_on(
    parts: Parts, erasures: Erasures, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stands_still(erasing: Erasing) -> list[str]:
        await asyncio.to_thread(parts.outside.rows.execute, "UPDATE leases SET holder = 'another'")
        async with asyncio.timeout(60):
            await asyncio.Event().wait()
        return []

    whole = await parts.store()
    await parts.create(whole, "Anna", "/anna.md")
    erasure_id = await erasures.begin(await planned(parts, store_ids=[whole]))
    with monkeypatch.context() as patched:
        patched.setattr(service, "_LEASE_SECONDS", 1.0)
        patched.setattr(service, "PLACES", (dataclasses.replace(PLACES[0], erase=stands_still), *PLACES[1:]))
        with pytest.raises(Occupied, match=r"stood still.*finish it with 'memstore forget --resume'"):
            await finish(parts, erasures, erasure_id)
    parts.outside.rows.execute("DELETE FROM leases")
    made = await finish(parts, erasures, erasure_id)
    assert (await checked(parts, made)).nothing_left


def read_until(stream: IO[str], text: str) -> list[str]:
    """The lines up to the one with the text."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines))


def killed_at(environment: dict[str, str], line: str, *arguments: str) -> None:
    """Run a command and kill it when it prints this."""
    process = memstore(
        arguments,
        environment=reader_environment(environment),
        directory=Path(environment["MEMSTORE_DATA_DIR"]),
        stderr=subprocess.PIPE,
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    assert process.stderr is not None
    with io.TextIOWrapper(process.stderr) as said:
        read_until(said, line)
        process.kill()
        process.wait()
    watchdog.cancel()


async def test_a_command_that_was_killed_is_resumed(parts: Parts, environment: dict[str, str], tmp_path: Path) -> None:
    store_id = await parts.store()
    for number in range(MANY):
        await parts.create(store_id, f"Anna {number}", f"/{number}.md")
    await parts.create(store_id, "somebody else", "/else.md")
    await parts.move_all()
    killed_at(environment, "rows: 100 of", "forget", "--contains", "Anna", "--yes")
    left = parts.outside.rows.count("memories", "path <> '/else.md'")
    assert 0 < left < MANY
    again = run_cli(environment, "forget", "--contains", "Anna", "--yes", check=False)
    assert again.returncode == 2
    assert "memstore forget --resume" in again.stderr
    report = tmp_path / "erased.json"
    run_cli(environment, "forget", "--resume", "--report", str(report))
    run_cli(environment, "forget", "verify", str(report), "--contains", "Anna")
    assert await parts.list_contents(store_id) == ["somebody else"]
    assert run_cli(environment, "forget", "--resume", check=False).returncode == 2

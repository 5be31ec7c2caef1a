"""Steps of tests that erase inside the test's own process."""

from typing import Any

from app.erasure.plan import Plan, Planner
from app.erasure.report import report
from app.erasure.selection import Selection
from app.erasure.service import Erasures
from app.erasure.verification import Verdict, verify
from app.storage.rows.tables import metadata
from tests.storage.parts import Parts


async def planned(parts: Parts, **selected: Any) -> Plan:
    """What a selection means."""
    return await Planner(parts.storage).plan(Selection(**selected))


async def erase(parts: Parts, erasures: Erasures, **selected: Any) -> dict[str, Any]:
    """Erase what is selected, to the end; the report."""
    erasure_id = await erasures.begin(await planned(parts, **selected))
    return await finish(parts, erasures, erasure_id)


async def finish(parts: Parts, erasures: Erasures, erasure_id: str) -> dict[str, Any]:
    """Run an erasure to its end; the report."""
    return await report(parts.storage.database, await erasures.run(erasure_id, silent))


async def checked(parts: Parts, made: dict[str, Any], contains: str | None = None) -> Verdict:
    """What the verification says of a report."""
    return await verify(parts.storage, made, contains)


def silent(line: str) -> None:
    """Nobody waits."""


def rows(parts: Parts) -> dict[str, list[tuple[str, ...]]]:
    """Everything in the database."""
    return {
        table.name: sorted(parts.outside.rows.execute(f"SELECT * FROM {table.name}"))
        for table in metadata.sorted_tables
        if table.name != "leases"
    }

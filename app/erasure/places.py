"""The one list of the places where content, paths and names can live: how each is emptied, and looked at afterwards.

A new place where the service keeps text belongs into `PLACES`.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from app.contract import clock
from app.erasure import objects, queries, rows
from app.erasure.erasing import Erasing, Finding, Search
from app.erasure.watch import FORGOTTEN_SECONDS, Answer, wait_until_forgotten
from app.storage.rows.database import Transaction

_DIGESTS_OF_CONTENTS = "condemned_contents"
"""No text, but what is left of its rows tells whether a text that somebody guesses was there."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place. `erase` says what it could not reach; `find`, where there is something to look at, what is left."""

    name: str
    erase: Callable[[Erasing], Awaitable[list[str]]]
    find: Callable[[Search], AsyncIterator[Finding]] | None
    columns: tuple[str, ...] = ()
    """The columns of the database that it is, as `table.column`."""


async def _wait_for_caches(erasing: Erasing) -> list[str]:
    """Wait until every server has dropped what it had in memory (`app.erasure.watch`), if one runs."""
    database, mark = erasing.storage.database, clock.now()
    erasing.progress["rows_gone"] = mark
    progress = json.dumps(erasing.progress)

    async def work(transaction: Transaction) -> None:
        await transaction.execute(queries.SET_PROGRESS, {"erasure_id": erasing.id, "progress": progress})

    await database.transact(work)
    answer = await wait_until_forgotten(database, erasing.id, mark, erasing.rows_gone + FORGOTTEN_SECONDS)
    if answer is Answer.MOVING:
        return [
            "a server is still putting contents into a slow blob store; it takes back what was erased, and "
            "'memstore forget verify' tells when it has"
        ]
    if answer is Answer.SILENT:
        erasing.note("server caches: a server did not answer; by now it has dropped everything, or was killed")
    return []


def _tables() -> list[str]:
    """Those in which an erasure leaves bytes behind."""
    return sorted({column.partition(".")[0] for place in PLACES for column in place.columns} | {_DIGESTS_OF_CONTENTS})


async def _scrub(erasing: Erasing) -> list[str]:
    """Make the database remove the bytes of deleted rows."""
    scrubbed, elsewhere = await erasing.storage.database.scrub(_tables())
    erasing.kept_elsewhere += elsewhere
    return [f"{one.name}: {one.why_not}" for one in scrubbed if one.why_not is not None]


PLACES: tuple[Place, ...] = (
    Place(
        "memories and versions", rows.erase_rows, rows.find_rows,
        ("memories.path", "memory_versions.path"),
    ),
    Place(
        "session details", rows.erase_session_details, rows.find_session_details,
        tuple(f"session_resources.{name}" for name in ("instructions", "name", "description", "mount_path")),
    ),
    Place(
        "stores", rows.erase_stores, rows.find_stores,
        ("memory_stores.name", "memory_stores.description", "memory_stores.metadata"),
    ),
    Place(
        "texts of sessions, agents, environments, keys and erasures", rows.name_kept_texts, None,
        (
            "sessions.title", "sessions.metadata", "sessions.agent", "agent_versions.definition", "environments.name",
            "environments.description", "environments.config", "environments.metadata", "api_keys.name",
            "memory_versions.actor_id", "memory_versions.redacted_by_id", "erasures.reference",
        ),
    ),
    Place("jobs", rows.erase_jobs, rows.find_jobs),
    Place("stage", rows.erase_stage, rows.find_staged, ("staged_contents.content",)),
    Place("server caches", _wait_for_caches, None),
    # After the wait, since what a server was moving to the blob store when its row went is there by now.
    Place("blobs", objects.erase_blobs, objects.find_blobs),
    Place("object versions", objects.erase_object_versions, objects.find_object_versions),
    Place("database leftovers", _scrub, None),
)  # fmt: skip
"""In the order in which they are emptied."""

OUT_OF_REACH: tuple[str, ...] = (
    "backups and snapshots of the database, the blob store and their disks: expire them",
    "freed blocks of disks, until they are overwritten",
    "freed memory of servers: it can hold what they answered until it is used again or they are restarted",
    "other spellings of a text than those named, such as without accents, shortened, misspelled, in base64 or "
    "encrypted",
    "what clients took before: answers, exports, copies",
    "mounts: one that runs empties its own when it hears of the deletion; texts that it could not save stay on its "
    "host until somebody takes or discards them there ('memstore kept'), and what a killed one has left until it is "
    "removed (docs/mount.md)",
    "what 'memstore pull' has read and not finished, in pulls/ of the data directory",
    "names of accounts that ran commands, in the audit log; names of workspaces; reasons of legal holds",
)
"""What no erasure of ours reaches; every report says so."""

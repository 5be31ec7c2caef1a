"""The report of an erasure: what went, when, by whom, and what could not be reached; never content, paths or names.

It is made from the erasure's record alone, so it can be made again, and is then the same, but for the count of those
who may still hold a copy: that is as it is when the report is made.
"""

import json
from collections.abc import Mapping
from typing import Any

from app.contract import actors, clock
from app.contract.errors import InvalidRequest
from app.erasure import digests, queries, readers, signing
from app.erasure.folding import SPELLINGS
from app.storage.rows.database import Database, Row

TYPE = "memstore_erasure_report"
_VERSION = 1
_NAMES = {
    digests.STORE: "stores", digests.MEMORY: "memories", digests.VERSION: "versions", digests.WITHIN: "stores_touched",
    digests.TEXT: "texts",
}  # fmt: skip

_LATER = frozenset({"texts"})
"""What reports of earlier releases do not have."""


async def report(database: Database, erasure: Row) -> dict[str, Any]:
    """The signed report of a finished erasure.

    Raises:
        InvalidRequest: it is not finished.

    """
    if erasure["finished_at"] is None:
        raise InvalidRequest(f"erasure {erasure['id']} is not finished; finish it with 'memstore forget --resume'")
    found: dict[str, list[str]] = {name: [] for name in _NAMES.values()}
    for row in await database.fetch_all(queries.DIGESTS, {"erasure_id": erasure["id"]}):
        found[_NAMES[row["kind"]]].append(row["digest"])
    progress = json.loads(erasure["progress"])
    needed = progress.get("readers", {})
    deployment = await signing.deployment(database)
    return deployment.sign(
        {
            "type": TYPE,
            "version": _VERSION,
            "erasure_id": erasure["id"],
            "deployment_id": deployment.id,
            "workspace_id": erasure["workspace_id"],
            **({"reference": erasure["reference"]} if erasure["reference"] else {}),
            "started_at": clock.rfc3339(erasure["started_at"]),
            "finished_at": clock.rfc3339(erasure["finished_at"]),
            "actor": actors.wire(erasure["actor_type"], erasure["actor_id"]),
            "counts": {name: len(values) for name, values in found.items()},
            "digests": {"algorithm": "sha256(salt + id)", "salt": bytes(erasure["salt"]).hex(), **found},
            "places": progress["places"],
            "same_text": list(SPELLINGS),
            "out_of_reach": progress["out_of_reach"],
            "feed_readers": {
                "not_passed": await readers.not_passed(database, bytes(erasure["salt"]), needed),
                "counted_at": clock.rfc3339(clock.now()),
            },
            "audit": progress["audit"],
            "public_key": deployment.public_key,
        }
    )


def is_report(value: object) -> bool:
    """Whether a JSON value has the form of a report, whatever it says."""
    if not isinstance(value, Mapping) or value.get("type") != TYPE or value.get("version") != _VERSION:
        return False
    listed = value.get("digests")
    if not isinstance(listed, Mapping) or not isinstance(listed.get("salt"), str):
        return False
    try:
        bytes.fromhex(listed["salt"])
    except ValueError:
        return False
    lists = [listed.get(name) for name in _NAMES.values() if name in listed or name not in _LATER]
    audit = value.get("audit")
    return (
        all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists)
        and isinstance(audit, Mapping)
        and isinstance(audit.get("seq"), int)
        and isinstance(audit.get("sha256"), str)
        and all(isinstance(value.get(name), str) for name in ("public_key", "signature"))
    )

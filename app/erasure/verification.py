"""Checking a report against the live system: is it ours, is it as it was signed, and is nothing left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.erasure import everywhere, queries, signing
from app.erasure.erasing import Finding, Search
from app.erasure.places import PLACES
from app.storage.contents.object_versions import VersionsOutOfReach
from app.storage.storage import Storage
from app.storage.upkeep.installation import SharedBlobStore


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with the report itself, what was found that should be gone, and where nobody could look."""

    problems: list[str]
    findings: list[Finding]
    not_searched: list[str]

    @property
    def nothing_left(self) -> bool:
        """Whether the report is good, everything was searched, and nothing was found."""
        return not self.problems and not self.findings and not self.not_searched

    def as_json(self, *, most: int | None = None) -> dict[str, Any]:
        """The verdict for a reader. `most`: findings that are named at most."""
        return {
            "nothing_left": self.nothing_left,
            "problems": self.problems,
            "findings": [{"place": finding.place, "what": finding.what} for finding in self.findings[:most]],
            "not_searched": self.not_searched,
        }


async def verify(storage: Storage, report: Mapping[str, Any], contains: str | None) -> Verdict:
    """Check a report of the right form (`report.is_report`). `contains`: also look for this text everywhere."""
    listed = report["digests"]
    search = Search(
        storage=storage,
        salt=bytes.fromhex(listed["salt"]),
        stores=frozenset(listed["stores"]),
        memories=frozenset(listed["memories"]),
        versions=frozenset(listed["versions"]),
        within=frozenset(listed["stores_touched"]),
    )
    findings: list[Finding] = []
    not_searched: list[str] = []
    for place in PLACES:
        if place.find is None:
            continue
        try:
            findings += [finding async for finding in place.find(search)]
        except (SharedBlobStore, VersionsOutOfReach) as error:
            not_searched.append(f"{place.name}: {error}")
    if contains is not None:
        try:
            findings += [finding async for finding in everywhere.find(storage, contains)]
        except VersionsOutOfReach as error:
            not_searched.append(f"object versions: {error}")
    return Verdict(await _problems(storage, report), findings, not_searched)


async def _problems(storage: Storage, report: Mapping[str, Any]) -> list[str]:
    deployment = await signing.deployment(storage.database)
    problems = []
    if report["public_key"] != deployment.public_key or report.get("deployment_id") != deployment.id:
        problems.append("the report is of another deployment, or its key was exchanged")
    if not signing.is_signed_by(report, deployment.public_key):
        problems.append("the signature does not match: the report was changed, or another key signed it")
    entry = await storage.database.fetch_one(queries.AUDIT_ENTRY, {"seq": report["audit"]["seq"]})
    if entry is None or bytes(entry["sha256"]).hex() != report["audit"]["sha256"]:
        problems.append("the audit log does not have the entry that the report names")
    return problems

"""A report proves what it says: a changed one, a stranger's one, and anything that is left, all show."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.erasure import signing
from app.erasure.report import is_report, report
from app.erasure.service import Erasures
from app.storage.rows.tables import DELETED
from tests.erasure.planting import bucket_of, endpoint_of
from tests.erasure.steps import checked, erase
from tests.storage.parts import Parts, Written
from tests.support.backends import POSTGRES_S3, Backend
from tests.support.servers import run_cli

pytestmark = pytest.mark.anyio


@dataclass
class Erased:
    """A store that went whole, and a memory that went alone, each with its report."""

    parts: Parts
    whole: Written
    store_report: dict[str, Any]
    single: Written
    memory_report: dict[str, Any]


@pytest.fixture
async def erased(parts: Parts, erasures: Erasures) -> Erased:
    whole = await parts.create(await parts.store(), "Anna", "/anna.md")
    shared = await parts.store()
    single = await parts.create(shared, "Anna, too", "/anna.md")
    await parts.create(shared, "else", "/else.md")
    await parts.move_all()
    return Erased(
        parts,
        whole,
        await erase(parts, erasures, store_ids=[whole.store_id]),
        single,
        await erase(parts, erasures, contains="Anna"),
    )


async def test_a_report_names_who_when_and_how_many_and_nothing_that_tells_what_it_was(erased: Erased) -> None:
    made = erased.memory_report
    assert made["actor"] == {"type": "user_actor", "user_id": "cli:somebody"}
    assert made["started_at"] <= made["finished_at"]
    assert made["counts"] == {"stores": 0, "memories": 1, "versions": 2, "stores_touched": 1, "texts": 0}
    text = json.dumps(made)
    for told in ("Anna, too", "anna.md", erased.single.store_id, erased.single.memory_id, erased.single.version_id):
        assert told not in text
    assert made["digests"]["salt"] != erased.store_report["digests"]["salt"], "no two reports can be joined"
    assert (await checked(erased.parts, made)).nothing_left
    assert (await checked(erased.parts, erased.store_report, contains="Anna")).nothing_left


async def test_a_report_can_be_made_again(erased: Erased) -> None:
    row = await Erasures(erased.parts.storage, None).find(erased.store_report["erasure_id"])  # type: ignore[arg-type]
    again = await report(erased.parts.storage.database, row)
    counted_anew = {"feed_readers", "signature"}
    assert set(again) >= counted_anew
    assert {name: again[name] for name in set(again) - counted_anew} == {
        name: erased.store_report[name] for name in set(erased.store_report) - counted_anew
    }
    assert (await checked(erased.parts, again)).nothing_left


async def test_the_database_keeps_no_list_of_what_was_erased(erased: Erased) -> None:
    assert erased.parts.outside.rows.count("erasure_subjects") == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made["counts"].update(memories=7),
        lambda made: made["digests"]["memories"].clear(),
        lambda made: made.update(finished_at="2020-01-01T00:00:00.000000Z"),
        lambda made: made["out_of_reach"].clear(),
        lambda made: made.update(signature="00" * 64),
        lambda made: made.update(signature="no hex"),
    ],
    ids=["counts", "digests", "time", "out-of-reach", "signature", "no-signature"],
)
async def test_a_changed_report_is_refused(erased: Erased, change: Callable[[dict[str, Any]], None]) -> None:
    made = json.loads(json.dumps(erased.memory_report))
    change(made)
    verdict = await checked(erased.parts, made)
    assert not verdict.nothing_left
    assert any("signature" in problem for problem in verdict.problems)


async def test_a_report_signed_by_another_key_is_refused(erased: Erased) -> None:
    stranger = signing.Deployment(erased.memory_report["deployment_id"], Ed25519PrivateKey.generate())
    made = stranger.sign({**erased.memory_report, "public_key": stranger.public_key})
    assert signing.is_signed_by(made, stranger.public_key)
    problems = (await checked(erased.parts, made)).problems
    assert any("another deployment" in problem for problem in problems)


async def test_a_log_that_was_written_anew_shows(erased: Erased) -> None:
    deployment = await signing.deployment(erased.parts.storage.database)
    audit = erased.memory_report["audit"]
    for named in ({**audit, "sha256": "00" * 32}, {**audit, "seq": audit["seq"] + 1_000}):
        made = deployment.sign({**erased.memory_report, "audit": named})
        problems = (await checked(erased.parts, made)).problems
        assert problems == ["the audit log does not have the entry that the report names"]


def bring_back_the_store(erased: Erased) -> None:
    erased.parts.outside.rows.execute(
        "INSERT INTO memory_stores (id, workspace_id, name, description, metadata, created_at, updated_at, last_seq, "
        f"memory_count, total_bytes) VALUES ('{erased.whole.store_id}', '{erased.parts.caller.workspace_id}', 'Anna', "
        "'', '{}', 1, 1, 1, 0, 0)"
    )


def bring_back_a_version(erased: Erased) -> None:
    erased.parts.outside.rows.execute(
        f"UPDATE memory_versions SET path = '/anna.md' WHERE id = '{erased.single.version_id}'"
    )


def bring_back_a_memory(erased: Erased) -> None:
    written, rows = erased.single, erased.parts.outside.rows
    rows.execute(
        "INSERT INTO memories (id, store_id, path, content_sha256, content_size, version_id, created_at, updated_at) "
        f"VALUES ('{written.memory_id}', '{written.store_id}', '/anna.md', {rows.literal(written.sha256)}, 4, "
        f"'{written.version_id}', 1, 1)"
    )


def bring_back_a_tombstone(erased: Erased) -> None:
    written = erased.single
    where = f"memory_id = '{written.memory_id}' AND operation = {DELETED}"
    assert erased.parts.outside.rows.count("memory_versions", where) == 1
    erased.parts.outside.rows.execute(f"UPDATE memory_versions SET path = '/anna.md' WHERE {where}")


def bring_back_a_staged_content(erased: Erased) -> None:
    written, rows = erased.single, erased.parts.outside.rows
    rows.execute(
        "INSERT INTO staged_contents (version_id, store_id, content_sha256, content, staged_at) VALUES "
        f"('{written.version_id}', '{written.store_id}', {rows.literal(written.sha256)}, "
        f"{rows.literal(written.content.encode().hex())}, 1)"
    )


def bring_back_a_blob(erased: Erased) -> None:
    written = erased.single
    erased.parts.outside.blobs.write(f"{written.store_id}/{written.sha256}", written.content.encode())


def bring_back_a_store_s_blob(erased: Erased) -> None:
    written = erased.whole
    erased.parts.outside.blobs.write(f"{written.store_id}/{written.sha256}", written.content.encode())


@pytest.mark.parametrize(
    ("bring_back", "place", "of_store"),
    [
        (bring_back_the_store, "stores", True),
        (bring_back_a_version, "versions", False),
        (bring_back_a_memory, "memories", False),
        (bring_back_a_tombstone, "versions", False),
        (bring_back_a_staged_content, "stage", False),
        (bring_back_a_blob, "blobs", False),
        (bring_back_a_store_s_blob, "blobs", True),
    ],
)
async def test_whatever_comes_back_is_found(
    erased: Erased, bring_back: Callable[[Erased], None], place: str, of_store: bool
) -> None:
    bring_back(erased)
    verdict = await checked(erased.parts, erased.store_report if of_store else erased.memory_report)
    assert place in {finding.place for finding in verdict.findings}, verdict
    assert not verdict.problems


async def test_an_old_object_version_is_found(erased: Erased, environment: dict[str, str], backend: Backend) -> None:
    if backend.name != POSTGRES_S3:
        pytest.skip("only S3 keeps versions of objects")
    bucket = bucket_of(environment)
    with endpoint_of(environment).client() as s3:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        try:
            bring_back_a_blob(erased)
            erased.parts.outside.blobs.remove(f"{erased.single.store_id}/{erased.single.sha256}")
            verdict = await checked(erased.parts, erased.memory_report, contains="Anna, too")
        finally:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert {finding.place for finding in verdict.findings} == {"object versions"}
    assert len(verdict.findings) == 3, "the version, the delete marker, and the version again by its text"


async def test_a_text_that_is_left_anywhere_is_found(erased: Erased) -> None:
    parts = erased.parts
    parts.outside.rows.execute(
        "INSERT INTO environments (id, workspace_id, name, config, metadata, created_at, updated_at) VALUES "
        f"('env_1', '{parts.caller.workspace_id}', 'Zöe''s', '{{}}', '{{}}', 1, 1)"
    )
    kept = await parts.create(await parts.store(), "of Zöe's cat", "/Zöe.md")
    await parts.move_all()
    verdict = await checked(parts, erased.memory_report, contains="Zöe's")
    assert {(finding.place, finding.what.partition(":")[0]) for finding in verdict.findings} == {
        ("database", "environments.name"),
        ("blobs", f"{kept.store_id}/{kept.sha256}"),
    }


async def test_the_command_says_by_its_status_whether_something_is_left(
    erased: Erased, environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(erased.memory_report), encoding="utf-8")
    for directory in (Path(environment["MEMSTORE_DATA_DIR"]), tmp_path / "blobs"):
        if directory.exists():
            directory.chmod(0o700)  # else the command closes it, and says so
    good = run_cli(environment, "forget", "verify", str(file), check=False)
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("Signature good. Nothing is left of")
    bring_back_a_blob(erased)
    left = run_cli(environment, "forget", "verify", str(file), "--json", check=False)
    assert left.returncode == 1
    assert [finding["place"] for finding in json.loads(left.stdout)["findings"]] == ["blobs"]
    for text in ("no JSON", "[]", '{"type": "memstore_erasure_report", "version": 1}'):
        file.write_text(text, encoding="utf-8")
        unreadable = run_cli(environment, "forget", "verify", str(file), check=False)
        assert unreadable.returncode == 2
        assert str(file) in unreadable.stderr


def test_whatever_is_no_report_is_told_from_one() -> None:
    values: list[object] = [None, [], {}, {"type": "memstore_erasure_report"}, "memstore_erasure_report"]
    for value in values:
        assert not is_report(value)

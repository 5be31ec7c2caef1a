"""Out and in again: what comes back is what went out, on both back ends."""

import io
import json
import tempfile
import tracemalloc
from collections.abc import Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import anyio.from_thread
import anyio.to_thread
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit import log
from app.contract.errors import InvalidRequest, NotFound, PathConflict
from app.storage.rows.database import Transaction
from app.stores.quota import Limits
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import archive_entries, directory_entries
from app.transfer.archives.spool import Spool
from app.transfer.archives.writers import FORMATS, ArchiveFormat
from app.transfer.exporting import Exported, Exports
from app.transfer.importing import Imported, Imports
from app.transfer.outcome import Outcomes
from app.transfer.sources import plan_of
from app.transfer.staging import Staging
from app.versions.service import VersionFilters
from tests.storage.parts import Parts
from tests.transfer.archives import tar_of, zip_of

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


async def exported(
    parts: Parts, store_id: str, archive_format: ArchiveFormat = "tar", *, history: bool = False
) -> bytes:
    exporter = await Exports(parts.storage).begin(parts.caller, store_id, history=history, form=archive_format)
    async with aclosing(exporter.pieces(archive_format)) as pieces:
        return b"".join([piece async for piece in pieces])


async def exported_to(parts: Parts, store_id: str, directory: Path, *, history: bool = False) -> Exported:
    exporter = await Exports(parts.storage).begin(parts.caller, store_id, history=history, form="directory")
    await exporter.into_directory(directory)
    return exporter.result


def imports(parts: Parts, **limits: int) -> Imports:
    limit = Limits(limits.get("memories", 10_000), limits.get("bytes", 100_000_000))
    return Imports(parts.storage, limit, max_stores=0)


async def imported(parts: Parts, data: bytes | Path, **options: Any) -> Imported:
    with Spool() as spool:
        if isinstance(data, Path):
            plan = plan_of(directory_entries(data, Bounds()), spool, default_name="directory")
        else:
            plan = plan_of(archive_entries(io.BytesIO(data), Bounds()), spool, default_name="archive")
        service = imports(parts, **options.pop("limits", {}))
        return await service.run(parts.caller, plan, spool, **options)


async def new_store(parts: Parts, data: bytes | Path) -> str:
    done = await imported(parts, data)
    assert done.refused == []
    assert done.memory_store_id is not None
    return done.memory_store_id


def files_of(data: bytes) -> dict[str, bytes]:
    return {entry.name: entry.read(2**31) for entry in archive_entries(io.BytesIO(data), Bounds())}


IDS_AND_TIMES = {"id", "version_id", "memory_id", "memory_store_id", "created_at", "updated_at", "exported_at"}


def comparable(data: bytes, *, times: bool = False) -> Json:
    """An export without what may differ: IDs, and the times of what was written anew."""
    files = files_of(data)
    apart = {name for name in IDS_AND_TIMES if not times or not name.endswith("ated_at")}
    manifest = json.loads(files.pop("manifest.json"))
    files.pop("export.json")
    numbers: dict[str, int] = {}
    lines = []
    for line in files.pop("versions.jsonl", b"").splitlines():
        version = orjson.loads(line)
        lines.append(_without(version, apart) | {"memory": numbers.setdefault(version["memory_id"], len(numbers))})
    if manifest["history"] is not None:
        manifest["history"].pop("sha256")
    return {"manifest": _without(manifest, apart), "versions": lines, "files": files}


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner, names) for key, inner in value.items() if key not in names}
    if isinstance(value, list):
        return [_without(inner, names) for inner in value]
    return value


async def lively_store(parts: Parts) -> str:
    """Creations, changes, renames, a deletion and redactions; some contents moved, some staged."""
    store = await parts.stores.create(parts.caller, "Lively \u00fc", "What it is for", {"team": "a", "x": ""})
    store_id: str = store["id"]
    first = await parts.create(store_id, "one", "/notes/one.md")
    secret = await parts.create(store_id, "a secret", "/notes/secret.md")
    twin = await parts.create(store_id, "one", "/twin.md")
    await parts.update(first, "one, changed\r\n")
    await parts.update(secret, "no secret")
    await parts.move_all()
    await parts.rename(twin, "/elsewhere/twin \U0001f600.md")
    gone = await parts.create(store_id, "", "/gone.md")
    await parts.delete(gone)
    await parts.redact(secret)
    await parts.create(store_id, "nul \0 and bom \ufeff", "/.hidden/.git")
    return store_id


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("archive_format", FORMATS)
async def test_a_store_comes_back_as_it_went(parts: Parts, archive_format: ArchiveFormat, history: bool) -> None:
    store_id = await lively_store(parts)
    before = await exported(parts, store_id, archive_format, history=history)
    copy = await new_store(parts, before)
    after = await exported(parts, copy, archive_format, history=history)
    expected, found = comparable(before, times=history), comparable(after, times=history)
    if not history:
        # Without its history, a store begins anew: one change for each memory.
        expected["manifest"]["seq"] = found["manifest"]["seq"]
        assert found["manifest"]["seq"] == len(found["manifest"]["memories"])
    assert found == expected
    assert await parts.check() == []
    assert await parts.move_all() > 0
    assert await parts.check() == []


async def test_a_history_keeps_order_operations_authors_and_redactions(parts: Parts) -> None:
    store_id = await lively_store(parts)
    lines = files_of(await exported(parts, store_id, history=True))["versions.jsonl"].splitlines()
    copy = await new_store(parts, await exported(parts, store_id, history=True))
    versions = [orjson.loads(line) for line in lines]
    redacted = [version for version in versions if version["redacted_at"] is not None]
    assert len(redacted) == 1
    page, _ = await parts.versions.list_page(
        parts.caller, copy, VersionFilters(), with_content=False, limit=100, page=None
    )
    rows = [found.row for found in page][::-1]
    assert [row["seq"] for row in rows] == [version["seq"] for version in versions]
    assert {row["actor_id"] for row in rows} == {parts.caller.actor.id}
    assert [row["path"] for row in rows] == [version["path"] for version in versions]
    assert sum(row["redacted_at"] is not None for row in rows) == 1
    assert not {row["id"] for row in rows} & {version["version_id"] for version in versions}


async def test_a_redacted_text_is_in_no_export(parts: Parts) -> None:
    store_id = await lively_store(parts)
    assert b"a secret" not in await exported(parts, store_id, history=True)


async def test_a_directory_comes_back_as_it_went(parts: Parts, tmp_path: Path) -> None:
    store_id = await lively_store(parts)
    long_name = "/" + "n" * 300 + ".md"
    await parts.create(store_id, "under a long name", long_name)
    result = await exported_to(parts, store_id, tmp_path / "out", history=True)
    assert result.renamed == [long_name]
    assert (tmp_path / "out" / "memories" / "notes" / "one.md").read_bytes() == b"one, changed\r\n"
    copy = await new_store(parts, tmp_path / "out")
    before, after = await exported(parts, store_id, history=True), await exported(parts, copy, history=True)
    assert comparable(after, times=True) == comparable(before, times=True)


SEGMENTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1, max_size=6
)
TREES = st.dictionaries(
    st.lists(SEGMENTS, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names)),
    st.text(st.characters(codec="utf-8"), max_size=40),
    min_size=1,
    max_size=6,
)


async def test_any_tree_of_texts_comes_back(parts: Parts) -> None:
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(TREES, st.sampled_from(FORMATS))
    def examine(tree: dict[str, str], archive_format: ArchiveFormat) -> None:
        anyio.from_thread.run(_check_tree, parts, tree, archive_format)

    await anyio.to_thread.run_sync(examine)


async def _check_tree(parts: Parts, tree: Mapping[str, str], archive_format: ArchiveFormat) -> None:
    store_id, kept = await parts.store(), dict[str, str]()
    for path, text in tree.items():
        # What is no path, or clashes with another, is not what this is about.
        with suppress(InvalidRequest, PathConflict):
            await parts.create(store_id, text, path)
            kept[path] = text
    before = await exported(parts, store_id, archive_format, history=True)
    copy = await new_store(parts, before)
    after = await exported(parts, copy, archive_format, history=True)
    assert comparable(after, times=True) == comparable(before, times=True)
    assert sorted(await parts.list_contents(copy)) == sorted(kept.values())
    files = {name: data.decode() for name, data in files_of(after).items() if name.startswith("memories/")}
    # A backslash separates in a zip: what has one in its path lies below contents/ there.
    as_named = {path: text for path, text in kept.items() if archive_format != "zip" or "\\" not in path}
    assert {name.removeprefix("memories"): text for name, text in files.items()} == as_named
    with tempfile.TemporaryDirectory() as directory:
        await exported_to(parts, store_id, Path(directory) / "out", history=True)
        again = await new_store(parts, Path(directory) / "out")
    last = comparable(await exported(parts, again, archive_format, history=True), times=True)
    assert last["files"] == comparable(before)["files"]


# What is refused


async def test_nothing_is_imported_when_something_is_refused_unless_partial(parts: Parts) -> None:
    data = tar_of({"good.md": b"good", "bad.md": b"\xff"})
    stores = parts.outside.rows.count("memory_stores", "1 = 1")
    done = await imported(parts, data)
    assert (done.memory_store_id, done.created) == (None, 0)
    assert parts.outside.rows.count("memory_stores", "1 = 1") == stores
    assert parts.outside.rows.count("staged_contents", "1 = 1") == 0
    done = await imported(parts, data, partial=True)
    assert done.created == 1
    assert [refusal.path for refusal in done.refused] == ["/bad.md"]
    assert await parts.list_contents(done.memory_store_id or "") == ["good"]


async def test_a_changed_export_is_refused(parts: Parts) -> None:
    files = files_of(await exported(parts, await lively_store(parts), history=True))
    changed = await imported(parts, tar_of({**files, "memories/notes/one.md": b"forged"}))
    assert changed.memory_store_id is None
    assert "digest" in changed.refused[0].reason
    missing = {name: content for name, content in files.items() if name != "memories/notes/one.md"}
    assert "is not in the export" in (await imported(parts, zip_of(missing))).refused[0].reason
    added = await imported(parts, tar_of({**files, "memories/new.md": b"new"}))
    assert "not in the manifest" in added.refused[0].reason
    with pytest.raises(InvalidRequest, match="cut off"):
        await imported(parts, tar_of({name: files[name] for name in files if name != "manifest.json"}))
    with pytest.raises(InvalidRequest, match=r"versions\.jsonl .* digest is wrong"):
        await imported(parts, tar_of({**files, "versions.jsonl": files["versions.jsonl"] + b"{}"}))


async def test_into_a_store_only_what_is_new_and_fits(parts: Parts) -> None:
    store_id = await parts.store()
    same = await parts.create(store_id, "same", "/same.md")
    await parts.create(store_id, "other", "/other.md")
    await parts.create(store_id, "x", "/dir/x.md")
    tree = {"same.md": b"same", "new.md": b"new"}
    done = await imported(parts, tar_of(tree), into=store_id)
    assert (done.memory_store_id, done.created) == (store_id, 1)
    assert [(skip.path, skip.reason) for skip in done.skipped] == [
        ("/same.md", "is in the store already, with the same content")
    ]
    assert await parts.read(same) == "same"
    clashing = tar_of({"other.md": b"1", "dir": b"2", "same.md/below.md": b"3", "fine.md": b"4"})
    refused = await imported(parts, clashing, into=store_id)
    assert sorted(refusal.path for refusal in refused.refused) == ["/dir", "/other.md", "/same.md/below.md"]
    assert refused.created == 0
    assert (await imported(parts, clashing, into=store_id, partial=True)).created == 1
    assert await parts.check() == []


async def test_a_store_is_never_over_its_quota(parts: Parts) -> None:
    data = tar_of({f"{number}.md": b"0123456789" for number in range(5)})
    with pytest.raises(InvalidRequest, match="would hold 5 memories; at most 4"):
        await imported(parts, data, limits={"memories": 4})
    with pytest.raises(InvalidRequest, match="would be 50 bytes together; at most 49"):
        await imported(parts, data, limits={"bytes": 49})
    assert parts.outside.rows.count("staged_contents", "1 = 1") == 0
    assert parts.outside.rows.count("memory_stores", "1 = 1") == 0


async def test_an_unknown_or_archived_store_takes_nothing(parts: Parts) -> None:
    data = tar_of({"a.md": b"a"})
    with pytest.raises(NotFound):
        await imported(parts, data, into="memstore_011111111111111111111111")
    store_id = await parts.store()
    await parts.stores.archive(parts.caller, store_id)
    with pytest.raises(InvalidRequest, match="archived"):
        await imported(parts, data, into=store_id)


async def _nothing(self: Imports, *arguments: Any, **named: Any) -> None:
    """In place of a step that a crash may prevent."""


async def test_contents_taken_from_the_stage_meanwhile_are_staged_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure, or a mover and a collector that are faster than the import, remove what went ahead."""
    stage_ahead = Staging.ahead

    async def and_lose_it(self: Staging, *arguments: Any) -> None:
        await stage_ahead(self, *arguments)
        assert parts.outside.rows.count("staged_contents", "1 = 1") == 2
        parts.outside.rows.execute("DELETE FROM staged_contents")

    monkeypatch.setattr(Staging, "ahead", and_lose_it)
    monkeypatch.setattr(Staging, "home", _nothing)  # It may never come to that.
    store_id = await new_store(parts, tar_of({"a.md": b"a", "b.md": b"b"}))
    assert await parts.list_contents(store_id) == ["a", "b"]
    assert await parts.check() == []


async def test_a_failure_at_the_last_moment_leaves_nothing(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(transaction: Transaction, *entries: log.Entry) -> None:
        raise InvalidRequest("the last statement failed")

    monkeypatch.setattr(log, "append", fail)
    with pytest.raises(InvalidRequest, match="the last statement failed"):
        await imported(parts, tar_of({"a.md": b"a"}))
    for table in ("memory_stores", "memories", "memory_versions", "staged_contents"):
        assert parts.outside.rows.count(table, "1 = 1") == 0


async def test_what_goes_out_and_in_is_in_the_audit_log(parts: Parts) -> None:
    store_id = await parts.store()
    copy = await new_store(parts, await exported(parts, store_id))
    for action, subject in (("store.exported", store_id), ("store.imported", copy)):
        assert parts.outside.rows.count("audit_entries", f"action = '{action}' AND subject = '{subject}'") == 1


async def test_what_a_killed_import_leaves_is_swept(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after SIGKILL between the contents that go ahead and the transaction: nobody cleans up behind it."""

    async def die(self: Imports, *arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Imports, "_write", die)
        patched.setattr(Outcomes, "was_written", _nothing)
        with pytest.raises(KeyboardInterrupt):
            await imported(parts, tar_of({"a.md": b"a", "b.md": b"b"}))
    for table in ("memory_stores", "memories", "memory_versions"):
        assert parts.outside.rows.count(table, "1 = 1") == 0
    assert parts.outside.rows.count("staged_contents", "1 = 1") == 2
    assert await parts.move_all() == 0, "they are kept for the import for a while"
    parts.outside.rows.execute("UPDATE staged_contents SET staged_at = 0")
    assert await parts.move_all() == 2
    assert await parts.orphans(0).condemn_all() == 2
    assert await parts.collector().collect() == 2
    assert parts.outside.blobs.all_keys() == set()
    assert parts.outside.rows.count("condemned_contents", "1 = 1") == 0


async def test_an_export_needs_little_memory(parts: Parts) -> None:
    one = 100_000
    store_id = await new_store(
        parts, tar_of({f"{number}.md": b"%07d\n" % number * (one // 8) for number in range(300)})
    )
    for archive_format in FORMATS:
        exporter = await Exports(parts.storage).begin(parts.caller, store_id, history=True, form=archive_format)
        tracemalloc.start()
        async with aclosing(exporter.pieces(archive_format)) as pieces:
            async for _ in pieces:
                pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert exporter.result.memories == 300
        # The contents are 30 MB together; a page of versions has at most 50 of them.
        assert peak < 100 * one, f"{archive_format} took {peak:,} bytes"

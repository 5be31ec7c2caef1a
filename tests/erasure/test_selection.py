"""What a selection means, what it never means, and that looking changes nothing."""

import json
from typing import Any

import pytest

from app.contract.actors import API_KEY, Actor, Caller
from app.contract.errors import InvalidRequest, NotFound, UnderLegalHold
from app.erasure.selection import Selection, parse_where
from app.erasure.service import Erasures
from app.keys.service import Keys
from app.stores.holds import Holds
from tests.erasure.steps import checked, erase, planned, rows
from tests.storage.parts import Parts
from tests.support.servers import run_cli

pytestmark = pytest.mark.anyio


async def make_store(parts: Parts, name: str, caller: Caller | None = None, **metadata: str) -> str:
    row = await parts.stores.create(caller or parts.caller, name, "", metadata)
    store_id: str = row["id"]
    return store_id


async def other_workspace(parts: Parts) -> Caller:
    key = await Keys(parts.storage.database).create("elsewhere")
    return Caller(key.workspace_id, Actor(API_KEY, key.id))


async def test_stores_are_found_by_all_their_pairs_in_every_workspace(parts: Parts) -> None:
    elsewhere = await other_workspace(parts)
    mine = await make_store(parts, "mine", user="u_1", kind="notes")
    theirs = await make_store(parts, "theirs", elsewhere, user="u_1")
    await make_store(parts, "another", user="u_12")
    await make_store(parts, "no metadata")
    found = await planned(parts, where={"user": "u_1"})
    assert [store.id for store in found.stores] == sorted([mine, theirs])
    both = await planned(parts, where={"user": "u_1", "kind": "notes"})
    assert [store.id for store in both.stores] == [mine]
    confined = await planned(parts, where={"user": "u_1"}, workspace="elsewhere")
    assert [store.id for store in confined.stores] == [theirs]
    assert (await planned(parts, where={"user": "nobody"})).is_empty


async def test_a_path_takes_what_is_at_it_and_below_it_and_no_namesake(parts: Parts) -> None:
    store_id = await parts.store()
    at = await parts.create(store_id, "1", "/people/anna")
    moved = await parts.create(store_id, "2", "/people/bob/old.md")
    await parts.rename(moved, "/elsewhere.md")
    await parts.create(store_id, "3", "/people/annabel.md")
    other = await parts.create(await parts.store(), "4", "/people/anna/b.md")
    found = await planned(parts, path_prefix="/people/anna")
    assert {memory.id for memory in found.memories} == {at.memory_id, other.memory_id}
    below = await planned(parts, path_prefix="/people/bob/", store_ids=[store_id])
    assert [(memory.id, memory.path) for memory in below.memories] == [(moved.memory_id, "/elsewhere.md")]
    assert not found.stores


async def test_a_text_is_found_in_old_versions_deleted_memories_and_paths_and_shown_in_context(parts: Parts) -> None:
    store_id = await parts.store()
    old = await parts.create(store_id, "the first time we met Ulrike was\nin June, I think so", "/a.md")
    await parts.update(old, "nothing")
    deleted = await parts.create(store_id, "Ulrike", "/b.md")
    await parts.delete(deleted)
    by_path = await parts.create(store_id, "x", "/Ulrike/c.md")
    await parts.create(store_id, "Ulrich, her brother", "/d.md")
    await parts.move_all()
    late = await parts.create(store_id, "Ulrike is still in the stage", "/e.md")
    found = await planned(parts, contains="Ulrike")
    wanted = {old.memory_id, deleted.memory_id, by_path.memory_id, late.memory_id}
    assert {memory.id for memory in found.memories} == wanted
    assert {memory.id for memory in found.memories if not memory.live} == {deleted.memory_id}
    hits = {(hit.path, hit.place, hit.before, hit.after) for hit in found.hits}
    assert hits == {
        ("/a.md", "content", "the first time we met ", " was in June, I think so"),
        ("/b.md", "content", "", ""),
        ("/Ulrike/c.md", "path", "/", "/c.md"),
        ("/e.md", "content", "", " is still in the stage"),
    }
    both = await planned(parts, contains="Ulrike", path_prefix="/a.md")
    assert [memory.id for memory in both.memories] == [old.memory_id]


@pytest.mark.parametrize(
    "selected",
    [
        {},
        {"workspace": "default"},
        {"contains": ""},
        {"path_prefix": "people"},
        {"where": {f"k{n}": "v" for n in range(17)}},
    ],
)
async def test_a_selection_of_everything_or_nothing_is_refused(parts: Parts, selected: dict[str, Any]) -> None:
    await parts.store()
    with pytest.raises(InvalidRequest, match="--"):
        await planned(parts, **selected)


async def test_what_is_not_there_is_refused_by_name(parts: Parts) -> None:
    for selected in ({"store_ids": ["memstore_01nowhere"]}, {"where": {"a": "b"}, "workspace": "nowhere"}):
        with pytest.raises(NotFound, match="nowhere"):
            await planned(parts, **selected)
    with pytest.raises(InvalidRequest, match="key=value"):
        parse_where(["user"])
    with pytest.raises(InvalidRequest, match="two values"):
        parse_where(["user=a", "user=b"])
    assert parse_where(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert Selection(path_prefix="/").matches_path("/anything")


async def test_a_store_that_was_deleted_before_is_forgotten_by_its_traces(parts: Parts, erasures: Erasures) -> None:
    store_id = await parts.store()
    parts.outside.rows.execute(
        "INSERT INTO sessions (id, workspace_id, agent_id, agent_version, agent, environment_id, metadata, "
        f"created_at, updated_at) VALUES ('sesn_1', '{parts.caller.workspace_id}', 'a', 1, '{{}}', 'e', '{{}}', 1, 1)"
    )
    parts.outside.rows.execute(
        "INSERT INTO session_resources (session_id, position, store_id, access, instructions, name, description, "
        f"mount_path) VALUES ('sesn_1', 0, '{store_id}', 'read_only', 'of Anna', 'Anna', 'Anna', '/mnt/memory/anna')"
    )
    await parts.stores.delete(parts.caller, store_id)
    await parts.purger().purge()
    assert parts.outside.rows.count("memory_stores", f"id = '{store_id}'") == 0
    found = await planned(parts, store_ids=[store_id])
    assert [(store.name, store.sessions) for store in found.stores] == [(None, 1)]
    await erase(parts, erasures, store_ids=[store_id])
    columns = "name, description, coalesce(instructions, 'none'), mount_path"
    ((name, description, instructions, mount_path),) = parts.outside.rows.execute(
        f"SELECT {columns} FROM session_resources"
    )
    assert (name, description, instructions) == ("Erased memory store", "", "none")
    assert mount_path == f"/mnt/memory/{store_id.lower().replace('_', '-')}"


async def test_a_dry_run_changes_nothing(parts: Parts, environment: dict[str, str]) -> None:
    store_id = await make_store(parts, "Notes on Anna", user="u_1")
    await parts.create(store_id, "Anna likes tea")
    await parts.move_all()
    before, blobs = rows(parts), parts.outside.blobs.all_keys()
    whole = run_cli(environment, "forget", "--where", "user=u_1")
    assert store_id in whole.stdout
    assert "Notes on Anna" in whole.stdout
    found = run_cli(environment, "forget", "--contains", "likes", "--store", store_id)
    assert "…Anna [likes] tea…" in found.stdout
    as_json = json.loads(run_cli(environment, "forget", "--contains", "likes", "--json").stdout)
    assert [hit["after"] for hit in as_json["hits"]] == [" tea"]
    assert rows(parts) == before
    assert parts.outside.blobs.all_keys() == blobs
    nothing = run_cli(environment, "forget", check=False)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "nothing is selected" in nothing.stderr


def _refusals(parts: Parts) -> int:
    """How often the audit log tells of an erasure that was refused."""
    return parts.outside.rows.count("audit_entries", "action = 'erasure.refused'")


async def test_one_store_under_hold_refuses_the_whole_run(parts: Parts, erasures: Erasures) -> None:
    free = await make_store(parts, "free", user="u_1")
    held = await make_store(parts, "held", user="u_1")
    for store_id in (free, held):
        await parts.create(store_id, "Anna")
    await Holds(parts.storage).place(parts.caller, held, "a lawsuit")
    before, refused_before = rows(parts), _refusals(parts)
    for selected in ({"where": {"user": "u_1"}}, {"contains": "Anna"}):
        plan = await planned(parts, **selected)
        with pytest.raises(UnderLegalHold, match=held):
            await erasures.begin(plan)
    after = rows(parts)
    for table in ("audit_entries", "audit_head"):
        assert after.pop(table) != before.pop(table)
    assert after == before
    assert _refusals(parts) == refused_before + 2
    await Holds(parts.storage).place(parts.caller, free, "another one")
    with pytest.raises(InvalidRequest, match="under legal hold") as refusal:
        await erasures.begin(plan)
    assert free in str(refusal.value)
    assert held in str(refusal.value)


async def test_a_hold_that_comes_while_an_erasure_runs_stops_it(parts: Parts, erasures: Erasures) -> None:
    store_id = await make_store(parts, "held")
    memory = await parts.create(store_id, "Anna")
    erasure_id = await erasures.begin(await planned(parts, store_ids=[store_id]))
    await Holds(parts.storage).place(parts.caller, store_id, None)
    refused_before = _refusals(parts)
    with pytest.raises(UnderLegalHold):
        await erasures.run(erasure_id, lambda line: None)
    assert await parts.read(memory) == "Anna"
    assert _refusals(parts) == refused_before + 1
    await Holds(parts.storage).release(parts.caller, store_id)
    await erasures.run(erasure_id, lambda line: None)
    assert parts.outside.rows.count("memory_stores", f"id = '{store_id}'") == 0


@pytest.mark.parametrize(
    "spelled", [r'{"n": "Jos\u00e9\nM\u00fcller"}', "JOSE\u0301 MU\u0308LLER", "Jos&eacute;&nbsp;M&uuml;ller"]
)
async def test_search_and_proof_find_a_text_in_whatever_spelling(
    parts: Parts, erasures: Erasures, spelled: str
) -> None:
    store_id = await parts.store()
    memory = await parts.create(store_id, f"says {spelled} today", "/a.md")
    await parts.create(store_id, "Jos\u00e9 M\u00f6ller", "/b.md")
    by_path = await parts.create(store_id, "x", "/jos\u00e9 m\u00fcller/c.md")
    await parts.move_all()
    staged = await parts.create(store_id, f"{spelled}, again", "/d.md")
    name = "Jos\u00e9 M\u00fcller"
    found = await planned(parts, contains=name)
    assert {one.id for one in found.memories} == {memory.memory_id, by_path.memory_id, staged.memory_id}
    other = await parts.create(await parts.store(), "nothing")
    made = await erase(parts, erasures, store_ids=[other.store_id])
    left = {finding.what for finding in (await checked(parts, made, name)).findings}
    assert f"{store_id}/{memory.sha256}" in left
    assert {what for what in left if what.startswith(("memories.path", "staged_contents"))} == {
        "memories.path: 1 rows", "staged_contents.content: 1 rows",
    }  # fmt: skip
    made = await erase(parts, erasures, contains=name)
    assert (await checked(parts, made, name)).nothing_left
    assert await parts.list_contents(store_id) == ["Jos\u00e9 M\u00f6ller"]


async def test_stores_are_found_by_metadata_in_any_canonical_form_and_else_exactly(parts: Parts) -> None:
    mine = await make_store(parts, "mine", who="Jose\u0301 M\u00fcller")
    for other in ("JOS\u00c9 M\u00dcLLER", "Jos\u00e9  M\u00fcller", "Jos\u00e9 M\u00f6ller"):
        await make_store(parts, "other", who=other)
    found = await planned(parts, where={"who": "Jos\u00e9 M\u00fcller"})
    assert (await planned(parts, where={"Who": "Jos\u00e9 M\u00fcller"})).is_empty
    assert [store.id for store in found.stores] == [mine]


async def test_a_store_with_a_key_in_both_canonical_forms_is_found_by_each_of_its_values(parts: Parts) -> None:
    held = {"us\u00e9r": "u_1", "use\u0301r": "u_2"}
    store_id = await make_store(parts, "both", None, **held)
    for value in ("u_1", "u_2"):
        assert [store.id for store in (await planned(parts, where={"us\u00e9r": value})).stores] == [store_id]

"""What people wrote around the memories: found by a text, replaced by something neutral, and counted."""

import json
from typing import Any

import pytest

from app.contract.errors import UnderLegalHold
from app.erasure.service import Erasures
from app.erasure.written import ERASED
from app.keys.service import Keys
from app.stores.holds import Holds
from tests.erasure.steps import checked, erase, planned, rows
from tests.storage.parts import Parts
from tests.support.servers import run_cli

pytestmark = pytest.mark.anyio

NAME = "Jos\u00e9 M\u00fcller"
SPELLED = "JOSE\u0301\u00a0MU\u0308LLER"
"""The same name as another keyboard writes it."""


def agent(text: str) -> dict[str, Any]:
    """A definition with a text in every part."""
    return {
        "name": f"{text}'s agent", "description": None, "model": {"id": "claude-opus-5-5"}, "system": f"Ask {text}",
        "tools": [{"type": "custom", "name": "f", "description": f"of {text}", "input_schema": {"type": "object"}}],
        "mcp_servers": [], "skills": [], "multiagent": None, "metadata": {"who": text, "team": "green"},
    }  # fmt: skip


class Planted:
    """A session, an agent with two versions, an environment and a key that have a text; the same without it."""

    def __init__(self, parts: Parts, text: str, *, archived: bool) -> None:
        self.parts, self.rows = parts, parts.outside.rows
        self.workspace_id = parts.caller.workspace_id
        self.tag = "old" if archived else "live"
        ended = "2" if archived else "NULL"
        held = json.dumps({"who": text, "team": "green"}).replace("'", "''")
        definition = json.dumps(agent(text)).replace("'", "''")
        self._insert("agents", id=self.id("agent"), version=2, archived_at=ended)
        for version in (1, 2):
            self.rows.execute(f"INSERT INTO agent_versions VALUES ('{self.id('agent')}', {version}, '{definition}', 1)")
        self._insert(
            "environments", id=self.id("env"), name=f"{text} {self.tag}", description=f"for {text}", metadata=held,
            config=json.dumps({"networking": {"allowed_hosts": [text]}}), archived_at=ended,
        )  # fmt: skip
        self._insert(
            "sessions", id=self.id("sesn"), agent_id=self.id("agent"), agent_version=1, agent=definition,
            environment_id=self.id("env"), title=f"About {text}", metadata=held, archived_at=ended,
        )  # fmt: skip

    def id(self, tag: str) -> str:
        return f"{tag}_01{self.tag.ljust(22, '1').replace('l', 'L')}"

    def _insert(self, table: str, **values: object) -> None:
        values |= {"workspace_id": self.workspace_id, "created_at": 1}
        values |= {"updated_at": 1}
        shown = ("NULL" if value == "NULL" else f"'{value}'" for value in values.values())
        self.rows.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(shown)})")

    def attach(self, store_id: str, text: str) -> None:
        self.rows.execute(
            "INSERT INTO session_resources (session_id, position, store_id, access, instructions, name, description, "
            f"mount_path) VALUES ('{self.id('sesn')}', 0, '{store_id}', 'read_only', 'ask {text}', '{text}', "
            f"'of {text}', '/mnt/memory/jos-m-ller')"
        )

    def column(self, table: str, name: str, where: str) -> Any:
        ((value,),) = self.rows.execute(f"SELECT coalesce({name}, 'null') FROM {table} WHERE {where}")
        return json.loads(value) if value.startswith("{") else value


async def test_titles_names_and_prompts_are_found_in_any_spelling_replaced_and_counted(
    parts: Parts, erasures: Erasures
) -> None:
    live, old = Planted(parts, SPELLED, archived=False), Planted(parts, SPELLED, archived=True)
    store_id = await parts.store()
    kept = await parts.create(store_id, "nothing of anybody")
    for planted in (live, old):
        planted.attach(store_id, SPELLED)
    key = await Keys(parts.storage.database).create("elsewhere", SPELLED)
    plan = await planned(parts, contains=NAME)
    in_use = [
        {"kind": "session", "id": live.id("sesn"), "kept": ["agent.system", "agent.tools"]},
        {"kind": "agent", "id": live.id("agent"), "kept": ["system", "tools"]},
        {"kind": "environment", "id": live.id("env"), "kept": ["config"]},
    ]
    assert plan.kept_texts == in_use
    made = await erase(parts, erasures, contains=NAME)
    assert made["counts"] == {"stores": 0, "memories": 0, "versions": 0, "stores_touched": 0, "texts": 7}
    (place,) = (one for one in made["places"] if one["place"].startswith("texts"))
    assert [all(named in line for named in (one["kind"], one["id"], *one["kept"])) for one, line in zip(
        in_use, place["not_reached"], strict=True
    )] == [True] * 3  # fmt: skip

    labels = {"who": ERASED, "team": "green"}
    for planted in (live, old):
        session, env, of_agent = (planted.id(tag) for tag in ("sesn", "env", "agent"))
        assert planted.column("sessions", "title", f"id = '{session}'") == "null"
        assert planted.column("sessions", "metadata", f"id = '{session}'") == labels
        assert planted.column("environments", "name", f"id = '{env}'") == f"{ERASED} {env}"
        assert planted.column("environments", "metadata", f"id = '{env}'") == labels
        assert planted.column("session_resources", "name", f"session_id = '{session}'") == "Erased memory store"
        assert "jos" not in planted.column("session_resources", "mount_path", f"session_id = '{session}'")
        is_old = planted is old
        in_version = [
            planted.column("agent_versions", "definition", f"agent_id = '{of_agent}' AND version = {version}")
            for version in (1, 2)
        ]
        in_session = planted.column("sessions", "agent", f"id = '{session}'")
        assert [one["name"] for one in (*in_version, in_session)] == [ERASED] * 3
        assert [one["system"] == ERASED for one in (*in_version, in_session)] == [True, is_old, is_old]
        assert [one["tools"][0]["name"] for one in in_version] == ["f", "f"]
    assert parts.outside.rows.count("api_keys", f"id = '{key.id}' AND name = '{ERASED}'") == 1
    assert await parts.read(kept) == "nothing of anybody"

    left = {finding.what for finding in (await checked(parts, made, NAME)).findings}
    assert left == {"agent_versions.definition: 1 rows", "environments.config: 1 rows", "sessions.agent: 1 rows"}
    for table in ("sessions", "agents", "environments"):
        parts.outside.rows.execute(f"UPDATE {table} SET archived_at = 2")
    made = await erase(parts, erasures, contains=NAME)
    assert (await checked(parts, made, NAME)).nothing_left


async def test_looking_for_a_text_changes_nothing_and_says_where_it_is(
    parts: Parts, environment: dict[str, str]
) -> None:
    planted = Planted(parts, "Anna", archived=False)
    store = await parts.stores.create(parts.caller, "x", "of Anna", {})
    before = rows(parts)
    shown = run_cli(environment, "forget", "--contains", "Anna").stdout
    assert rows(parts) == before
    for said in (
        "title, metadata, agent",
        f"Stays, since it is in use: agent {planted.id('agent')}: system, tools",
        store["id"],
        "description",
        "1 store, whole; texts of 3 other records",
    ):
        assert said in shown, shown


async def test_a_text_chooses_the_stores_that_have_it_in_name_description_or_metadata(
    parts: Parts, erasures: Erasures
) -> None:
    chosen = {
        (await parts.stores.create(parts.caller, name, description, metadata))["id"]: found
        for name, description, metadata, found in (
            (SPELLED, "", {}, ("name",)),
            ("a", f"of {SPELLED}", {}, ("description",)),
            ("b", "", {"who": SPELLED}, ("metadata",)),
        )
    }  # fmt: skip
    store_id = await parts.store()
    memory = await parts.create(store_id, f"says {SPELLED}")
    inside = await parts.create(next(iter(chosen)), f"says {SPELLED}")
    plan = await planned(parts, contains=NAME)
    assert {store.id: store.found_in for store in plan.stores} == chosen
    assert [one.id for one in plan.memories] == [memory.memory_id]
    confined = await planned(parts, contains=NAME, path_prefix="/")
    assert not confined.stores
    assert {one.id for one in confined.memories} == {memory.memory_id, inside.memory_id}
    assert (await planned(parts, contains=NAME, store_ids=[store_id])).stores == []
    made = await erase(parts, erasures, contains=NAME)
    assert made["counts"]["stores"] == 3
    assert (await checked(parts, made, NAME)).nothing_left


async def test_authors_of_imported_versions_are_replaced_and_kept_under_hold(parts: Parts, erasures: Erasures) -> None:
    memory, held = await parts.create(await parts.store(), "a"), await parts.create(await parts.store(), "b")
    parts.outside.rows.execute(f"UPDATE memory_versions SET actor_type = 'user_actor', actor_id = '{SPELLED}'")
    await Holds(parts.storage).place(parts.caller, held.store_id, f"asked for by {NAME}")
    plan = await planned(parts, contains=NAME)
    assert plan.kept_texts == [
        {"kind": "memory store", "id": held.store_id, "kept": ["reason of its legal hold", "authors, under legal hold"]}
    ]
    await erase(parts, erasures, contains=NAME)
    authors = parts.outside.rows.execute("SELECT store_id, actor_id FROM memory_versions")
    assert sorted(authors) == sorted([(memory.store_id, ERASED), (held.store_id, SPELLED)])


async def test_what_a_hold_refuses_changes_no_title(parts: Parts, erasures: Erasures) -> None:
    Planted(parts, "Anna", archived=True)
    store = await parts.stores.create(parts.caller, "Anna", "", {})
    await Holds(parts.storage).place(parts.caller, store["id"], None)
    plan, before = await planned(parts, contains="Anna"), rows(parts)
    with pytest.raises(UnderLegalHold):
        await erasures.begin(plan)
    after = rows(parts)
    assert {name for name in after if after[name] != before[name]} == {"audit_entries", "audit_head"}


async def test_texts_of_another_workspace_stay_where_one_is_named(parts: Parts, erasures: Erasures) -> None:
    planted = Planted(parts, "Anna", archived=True)
    await Keys(parts.storage.database).create("elsewhere", "Anna's key")
    plan = await planned(parts, contains="Anna", workspace="elsewhere")
    assert [(one.kind, one.fields) for one in plan.texts] == [("API key", ("name",))]
    await erase(parts, erasures, contains="Anna", workspace="elsewhere")
    assert planted.column("sessions", "title", "true") == "About Anna"

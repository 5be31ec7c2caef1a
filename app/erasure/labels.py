"""What people wrote around the memories: titles, names, descriptions, metadata, instructions, prompts, authors.

A search for a text finds them, and the erasure puts something neutral in their place, in the transaction that begins
it: the text itself is kept nowhere, so nothing could go on with it later. What an agent or a session that is in use
works with (prompts, tools, hosts) is not changed behind its owner's back: it is named in the report, and goes once a
newer version or another agent has taken its place, or the session or environment is archived.
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, Integer, String

from app.contract import slugs
from app.contract.actors import SERVICE_ACCOUNT, USER
from app.erasure.columns import is_in_column
from app.erasure.folding import Folded
from app.erasure.written import ERASED, NEUTRAL_NAME, blanked
from app.storage.rows.database import Database, Row, Transaction
from app.storage.rows.statements import Statement
from app.storage.rows.tables import metadata

_BATCH = 200

_PEOPLE = f"('{USER}', '{SERVICE_ACCOUNT}')"

Values = dict[str, Any]


def neutral_mount_path(store_id: str) -> str:
    """The mount path that a session keeps of an erased store."""
    return slugs.mount_path(slugs.slug("", store_id))


@dataclass(frozen=True, slots=True)
class PlannedText:
    """A record that has the text. `kind` and `id` say which, as `session` and its ID.

    `fields` go; `kept` hold the text and stay, since the record is in use.
    """

    kind: str
    id: str
    workspace_id: str | None
    fields: tuple[str, ...]
    kept: tuple[str, ...]
    keys: Values
    labelled: "Labelled | Authors"


@dataclass(slots=True)
class _Rewritten:
    """What becomes of a row: the new values of its columns, and what is kept."""

    values: Values = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Labelled:
    """The texts of one table."""

    kind: str
    table: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    """Those that can be rewritten."""
    rewrite: Callable[[Row, Folded], _Rewritten]
    source: str
    """What follows FROM, the table as `t`."""
    workspace: str
    more: tuple[str, ...] = ()
    """What else `rewrite` needs to know."""

    def _select(self, condition: str) -> str:
        shown = [*(f"t.{name}" for name in (*self.keys, *self.columns)), *self.more]
        return f"SELECT {', '.join(shown)}, {self.workspace} AS workspace_id FROM {self.source} WHERE {condition}"  # noqa: S608

    def _statement(self, sql: str) -> Statement:
        columns = metadata.tables[self.table].columns
        types: dict[str, Any] = {name: columns[name].type for name in (*self.keys, *self.columns)}
        return Statement(sql, {**types, "workspace": String(), "page_limit": Integer(), "now": BigInteger()})

    async def find(self, database: Database, wanted: Folded, workspace_id: str | None) -> AsyncIterator[PlannedText]:
        """The records that have the text, in one workspace or all."""
        keys, named = ", ".join(f"t.{key}" for key in self.keys), ", ".join(f":{key}" for key in self.keys)
        page = self._statement(
            self._select(f"({keys}) > ({named}) AND (:workspace IS NULL OR {self.workspace} = :workspace)")
            + f" ORDER BY {keys} LIMIT :page_limit"
        )
        columns = metadata.tables[self.table].columns
        after: Values = {key: "" if columns[key].type.python_type is str else -1 for key in self.keys}
        while rows := await database.fetch_all(page, {**after, "workspace": workspace_id, "page_limit": _BATCH}):
            after = {key: rows[-1][key] for key in self.keys}
            for row in rows:
                found = self.rewrite(row, wanted)
                if found.values or found.kept:
                    yield PlannedText(
                        self.kind, row[self.keys[0]], row["workspace_id"], tuple(found.values), tuple(found.kept),
                        {key: row[key] for key in self.keys}, self,
                    )  # fmt: skip

    async def erase(self, transaction: Transaction, planned: PlannedText, wanted: Folded) -> None:
        """Put something neutral in the place of the text, in a record as it is now."""
        condition = " AND ".join(f"t.{key} = :{key}" for key in self.keys)
        row = await transaction.fetch_one(self._statement(self._select(condition) + " FOR UPDATE OF t"), planned.keys)
        if row is None or not (values := self.rewrite(row, wanted).values):
            return
        await transaction.execute(
            self._statement(
                f"UPDATE {self.table} SET {', '.join(f'{name} = :{name}' for name in values)} WHERE "  # noqa: S608
                + " AND ".join(f"{key} = :{key}" for key in self.keys)
            ),
            {**planned.keys, **values},
        )


def _text(table: str, row: Row, column: str, wanted: Folded, neutral: object, found: _Rewritten) -> None:
    """Replace a whole text."""
    if row[column] is not None and is_in_column(f"{table}.{column}", row[column], wanted):
        found.values[column] = neutral


def _json(row: Row, column: str, wanted: Folded, found: _Rewritten, *, is_free: bool = True) -> None:
    """Replace the texts inside a JSON object."""
    held = json.loads(row[column])
    rest = blanked(held, wanted, is_free=is_free)
    if rest != held:
        found.values[column] = json.dumps(rest)


def _definition(row: Row, column: str, wanted: Folded, found: _Rewritten, *, is_in_use: bool) -> None:
    """The same for an agent. What it works with stays while it is in use."""
    held = json.loads(row[column])
    rest = blanked(held, wanted)
    if is_in_use:
        kept = [name for name in held if name not in _LABELS and rest.get(name) != held[name]]
        found.kept += [f"{column}.{name}" if column != "definition" else name for name in kept]
        rest = {name: held[name] if name in kept else rest[name] for name in held}
    if rest != held:
        found.values[column] = json.dumps(rest)


_LABELS = ("name", "description", "metadata")


def _session(row: Row, wanted: Folded) -> _Rewritten:
    found = _Rewritten()
    _text("sessions", row, "title", wanted, None, found)
    _json(row, "metadata", wanted, found)
    _definition(row, "agent", wanted, found, is_in_use=row["archived_at"] is None)
    return found


def _attachment(row: Row, wanted: Folded) -> _Rewritten:
    found = _Rewritten()
    neutral_path = neutral_mount_path(row["store_id"])
    for column, neutral in (
        ("instructions", None), ("name", NEUTRAL_NAME), ("description", ""), ("mount_path", neutral_path),
    ):  # fmt: skip
        _text("session_resources", row, column, wanted, neutral, found)
    if "name" in found.values:
        found.values["mount_path"] = neutral_path
    return found


def _agent_version(row: Row, wanted: Folded) -> _Rewritten:
    found = _Rewritten()
    is_in_use = row["newest"] == row["version"] and row["archived_at"] is None
    _definition(row, "definition", wanted, found, is_in_use=is_in_use)
    return found


def _environment(row: Row, wanted: Folded) -> _Rewritten:
    found = _Rewritten()
    # The names of a workspace's environments are different.
    _text("environments", row, "name", wanted, f"{ERASED} {row['id']}", found)
    _text("environments", row, "description", wanted, None, found)
    _json(row, "metadata", wanted, found)
    _json(row, "config", wanted, found, is_free=False)
    if row["archived_at"] is None and found.values.pop("config", None):
        found.kept.append("config")
    return found


def _key(row: Row, wanted: Folded) -> _Rewritten:
    found = _Rewritten()
    _text("api_keys", row, "name", wanted, ERASED, found)
    return found


def _workspace(row: Row, wanted: Folded) -> _Rewritten:
    return _Rewritten(kept=["name"] if wanted.is_in(row["name"]) else [])


def _hold(row: Row, wanted: Folded) -> _Rewritten:
    return _Rewritten(kept=["reason of its legal hold"] if wanted.is_in(row["hold_reason"] or "") else [])


def _erasure(row: Row, wanted: Folded) -> _Rewritten:
    found = _Rewritten()
    _text("erasures", row, "reference", wanted, None, found)
    return found


class Authors:
    """The authors of versions that were imported with their authors, or written by a command: names of accounts."""

    _FIND = Statement(
        f"""
        SELECT s.id, s.workspace_id, s.held_at, a.actor_id FROM memory_stores s
          JOIN (SELECT store_id, actor_id FROM memory_versions WHERE actor_type IN {_PEOPLE}
                 UNION SELECT store_id, redacted_by_id FROM memory_versions WHERE redacted_by_type IN {_PEOPLE}) a
            ON a.store_id = s.id
         WHERE :workspace_id IS NULL OR s.workspace_id = :workspace_id
         ORDER BY s.id
        """  # noqa: S608
    )
    _ERASE: Sequence[Statement] = tuple(
        Statement(
            f"""
            UPDATE memory_versions SET {who}_id = :neutral
             WHERE store_id = :store_id AND {who}_type IN {_PEOPLE} AND {who}_id = :author
               AND EXISTS (SELECT 1 FROM memory_stores s WHERE s.id = :store_id AND s.held_at IS NULL)
            """,  # noqa: S608
            {"neutral": String(), "store_id": String(), "author": String()},
        )
        for who in ("actor", "redacted_by")
    )

    async def find(self, database: Database, wanted: Folded, workspace_id: str | None) -> AsyncIterator[PlannedText]:
        """The stores in which one has the text in their name."""
        for row in await database.fetch_all(self._FIND, {"workspace_id": workspace_id}):
            if is_in_column("memory_versions.actor_id", row["actor_id"], wanted):
                keys = {"store_id": row["id"], "author": row["actor_id"]}
                is_held = row["held_at"] is not None
                fields, kept = ((), ("authors, under legal hold",)) if is_held else (("authors",), ())
                yield PlannedText("memory store", row["id"], row["workspace_id"], fields, kept, keys, self)

    async def erase(self, transaction: Transaction, planned: PlannedText, wanted: Folded) -> None:
        """Put something neutral in the place of the name, unless the store is under hold by now."""
        for statement in self._ERASE:
            await transaction.execute(statement, {**planned.keys, "neutral": ERASED})


LABELLED: Sequence[Labelled | Authors] = (
    Labelled(
        "session", "sessions", ("id",), ("title", "metadata", "agent"), _session, "sessions t", "t.workspace_id",
        ("t.archived_at",),
    ),
    Labelled(
        "session", "session_resources", ("session_id", "position"),
        ("instructions", "name", "description", "mount_path"), _attachment,
        "session_resources t JOIN sessions s ON s.id = t.session_id", "s.workspace_id", ("t.store_id",),
    ),
    Labelled(
        "agent", "agent_versions", ("agent_id", "version"), ("definition",), _agent_version,
        "agent_versions t JOIN agents a ON a.id = t.agent_id", "a.workspace_id",
        ("a.archived_at", "a.version AS newest"),
    ),
    Labelled(
        "environment", "environments", ("id",), ("name", "description", "config", "metadata"), _environment,
        "environments t", "t.workspace_id", ("t.archived_at",),
    ),
    Labelled("API key", "api_keys", ("id",), ("name",), _key, "api_keys t", "t.workspace_id"),
    Labelled("erasure", "erasures", ("id",), ("reference",), _erasure, "erasures t", "t.workspace_id"),
    Labelled("workspace", "workspaces", ("id",), ("name",), _workspace, "workspaces t", "t.id"),
    Labelled("memory store", "memory_stores", ("id",), ("hold_reason",), _hold, "memory_stores t", "t.workspace_id"),
    Authors(),
)  # fmt: skip

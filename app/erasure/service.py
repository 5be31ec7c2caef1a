"""The one owner of erasure: it plans, records, empties every place in turn, and signs what it did.

What is selected is fixed when an erasure begins, as IDs; the text or path that was looked for is kept nowhere. From
then on the erasure is a record in the database, and every step can be done again: a run that was killed is resumed by
doing all of them, of which the rows alone remember how far they were.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from app.audit import log as audit
from app.contract import clock, ids
from app.contract.actors import Actor, Caller
from app.contract.errors import InvalidRequest, NotFound, Overloaded, Unavailable, UnderLegalHold
from app.erasure import digests, queries, readers
from app.erasure.erasing import Erasing
from app.erasure.folding import Folded
from app.erasure.names import ERASE, VERIFY
from app.erasure.places import OUT_OF_REACH, PLACES
from app.erasure.plan import Plan
from app.erasure.rows import KEPT_TEXTS, insert_digests
from app.jobs.service import Jobs
from app.storage.rows.database import Row, Transaction
from app.storage.rows.leases import Lease, LeaseLost
from app.storage.storage import Storage

_LEASE = "erasure"
_LEASE_SECONDS = 10.0
_LEASE_WAIT_SECONDS = 15.0
"""How long a resumed run waits for a lease that a killed one still holds."""
_LEASE_LOOK_SECONDS = 0.5

_TAKE_OVER_SECONDS = 30.0
"""After which a server takes an erasure over that its beginner wanted to run, unless that still runs it."""

Note = Callable[[str], None]


class Occupied(InvalidRequest):
    """Another process is erasing, or may be."""

    def __init__(self, why: str = "another process is erasing just now; wait until it is done") -> None:
        super().__init__(why)


class Unfinished(InvalidRequest):
    """An earlier erasure has not come to its end."""

    def __init__(self, earlier: Row) -> None:
        super().__init__(unfinished_text(earlier))
        self.earlier = earlier


class Erasures:
    """Erasures of one deployment."""

    def __init__(self, storage: Storage, actor: Actor, jobs: Jobs | None = None) -> None:
        """`jobs`: those of this process, if it has a worker."""
        self._storage = storage
        self._database = storage.database
        self._actor = actor
        self._jobs = jobs or Jobs(storage.database)

    async def unfinished(self, workspace_id: str | None = None) -> Row | None:
        """The oldest erasure that has not come to its end: one that runs elsewhere, was killed, or waits for a hold.

        workspace_id: of those that touch this workspace. Its row has `is_held`: a legal hold came after it began and
        keeps it from its end. Such a one comes last, and keeps no other from beginning.
        """
        return await self._database.fetch_one(queries.UNFINISHED, {"workspace_id": workspace_id, "erasure_id": ""})

    async def begin(self, plan: Plan, *, reference: str | None = None, runs_here: bool = True) -> str:
        """Record what is to be erased, with the job that does it; the erasure's ID.

        Only the texts around the memories go with it at once.
        reference: what the operator calls it, for the report (`app.contract.text.check_reference`).
        runs_here: the caller calls `run` at once, and the job is only for the case that it is killed.

        Raises:
            InvalidRequest: the reference has the very text that is to be erased.
            UnderLegalHold: a store is under hold; all that are, are named.
            Unfinished: an earlier erasure, of one of these workspaces, is not finished.

        """
        if reference and plan.text and Folded(plan.text).is_in(reference):
            raise InvalidRequest(
                "the reference has the text that is to be erased, and is kept with the report; take a number instead"
            )
        erasure_id, salt = ids.new(ids.ERASURE), digests.new_salt()
        workspaces = plan.workspace_ids
        progress = {KEPT_TEXTS: plan.kept_texts} if plan.kept_texts else {}
        scope = workspaces[0] if len(workspaces) == 1 else None
        _refuse_beside(await self.unfinished(scope))
        subjects = [(store.id, "") for store in plan.stores] + [(one.store_id, one.id) for one in plan.memories]
        entries = self._entries("erasure.started", erasure_id, plan)

        async def work(transaction: Transaction) -> None:
            now = clock.now()
            rows = await transaction.fetch_all(queries.LOCK_STORES, {"store_ids": plan.store_ids})
            _refuse_held([row for row in rows if row["held_at"] is not None])
            await transaction.execute(
                queries.INSERT,
                {
                    "erasure_id": erasure_id, "workspace_id": scope, "actor_type": self._actor.type,
                    "actor_id": self._actor.id, "now": now, "salt": salt, "progress": json.dumps(progress),
                    "reference": reference,
                },
            )  # fmt: skip
            await transaction.execute_many(
                queries.INSERT_SUBJECT,
                [
                    {"erasure_id": erasure_id, "store_id": store_id, "memory_id": memory_id}
                    for store_id, memory_id in subjects
                ],
            )
            whole = [store.id for store in plan.stores]
            await insert_digests(transaction, erasure_id, salt, digests.STORE, whole)
            await insert_digests(transaction, erasure_id, salt, digests.WITHIN, plan.touched)
            for one in plan.texts:
                await one.labelled.erase(transaction, one, Folded(plan.text))
            await insert_digests(
                transaction, erasure_id, salt, digests.TEXT, (one.id for one in plan.texts if one.fields)
            )
            after = _TAKE_OVER_SECONDS if runs_here else 0
            payload = {"erasure_id": erasure_id}
            await self._jobs.enqueue(transaction, ERASE, payload, subject=erasure_id, after=after)
            await audit.append(transaction, *entries)
            # From the append on nobody else can begin, so what began since the first look is seen here.
            asked = {"workspace_id": scope, "erasure_id": erasure_id}
            _refuse_beside(await transaction.fetch_one(queries.UNFINISHED, asked))

        try:
            await self._database.transact(work)
        except _Held as held:
            await self._note_refusal(plan)
            raise held.refusal from None
        self._jobs.wake()
        return erasure_id

    async def _note_refusal(self, plan: Plan) -> None:
        """Write a refused erasure into the audit log, in the log of each workspace."""
        await self._append(*(replace(entry, subject=None) for entry in self._entries("erasure.refused", "", plan)))

    async def _append(self, *entries: audit.Entry) -> None:
        async def work(transaction: Transaction) -> None:
            await audit.append(transaction, *entries)

        await self._database.transact(work)

    def _entry(self, action: str, erasure: Row, detail: dict[str, Any]) -> audit.Entry:
        entry = audit.entry(Caller("", self._actor), action, subject=erasure["id"], detail=detail)
        return replace(entry, workspace_id=erasure["workspace_id"])

    async def run(self, erasure_id: str, note: Note, *, patience_seconds: float = _LEASE_WAIT_SECONDS) -> Row:
        """Empty every place, and close the record; its row. Can be called again until it comes to its end.

        patience_seconds: how long to wait for another process that is erasing.

        Raises:
            Occupied: another process is erasing.
            UnderLegalHold: a store was put under hold meanwhile; what is erased by then stays erased.
            Unavailable: the database or the blob store does not answer; the rest waits to be resumed.

        """
        async with self._alone(note, patience_seconds):
            erasure = await self.find(erasure_id)
            if erasure["finished_at"] is not None:
                return erasure
            erasing = await self._erasing(erasure, note)
            results = []
            for place in PLACES:
                note(f"{place.name} …")
                try:
                    unreached = await place.erase(erasing)
                except UnderLegalHold:
                    await self._append(self._entry("erasure.refused", erasure, {"place": place.name}))
                    raise
                results.append({"place": place.name, "complete": not unreached, "not_reached": unreached})
            await self._finish(erasure, results, [*erasing.kept_elsewhere, *OUT_OF_REACH])
            return await self.find(erasure_id)

    async def find(self, erasure_id: str | None) -> Row:
        """The row of one erasure; of the one that was finished last, without an ID.

        Raises:
            NotFound: there is none.

        """
        if erasure_id is None:
            row = await self._database.fetch_one(queries.NEWEST_FINISHED, {})
        else:
            row = await self._database.fetch_one(queries.FIND, {"erasure_id": erasure_id})
        if row is None:
            raise NotFound(f"erasure {erasure_id!r} was not found" if erasure_id else "no erasure was ever finished")
        return row

    async def _erasing(self, erasure: Row, note: Note) -> Erasing:
        subjects = await self._database.fetch_all(queries.SUBJECTS, {"erasure_id": erasure["id"]})
        stores = sorted(row["store_id"] for row in subjects if not row["memory_id"])
        open_memories: dict[str, list[str]] = {}
        for row in subjects:
            if row["memory_id"] and row["done_at"] is None:
                open_memories.setdefault(row["store_id"], []).append(row["memory_id"])
        return Erasing(
            storage=self._storage,
            id=erasure["id"],
            actor=Actor(erasure["actor_type"], erasure["actor_id"]),
            salt=bytes(erasure["salt"]),
            stores=stores,
            within=sorted({row["store_id"] for row in subjects if row["memory_id"]}),
            open_stores=[row["store_id"] for row in subjects if not row["memory_id"] and row["done_at"] is None],
            open_memories={store_id: sorted(found) for store_id, found in sorted(open_memories.items())},
            note=note,
            progress=json.loads(erasure["progress"]),
        )

    async def _finish(self, erasure: Row, results: list[dict[str, Any]], elsewhere: list[str]) -> None:
        asked = {"erasure_id": erasure["id"]}
        rows = await self._database.fetch_all(queries.DIGESTS, asked)
        counts = {kind: sum(1 for row in rows if row["kind"] == kind) for kind in digests.KINDS}
        entry = self._entry("erasure.finished", erasure, counts)

        async def work(transaction: Transaction) -> None:
            subjects = await transaction.fetch_all(queries.SUBJECTS, asked)
            needed = await readers.numbers(transaction, bytes(erasure["salt"]), subjects)
            await transaction.execute(queries.DELETE_SUBJECTS, asked)
            # The job of a run that was begun at once has nothing left to do.
            await transaction.execute(queries.DELETE_JOB, {**asked, "kind": ERASE})
            payload = {"erasure_id": erasure["id"]}
            await self._jobs.enqueue(transaction, VERIFY, payload, subject=erasure["id"])
            await audit.append(transaction, entry)
            head = await transaction.fetch_one(queries.AUDIT_HEAD, {})
            assert head is not None
            progress = {
                "places": results,
                "out_of_reach": elsewhere,
                "readers": needed,
                "audit": {"seq": head["seq"], "sha256": bytes(head["sha256"]).hex()},
            }
            await transaction.execute(queries.FINISH, {**asked, "now": clock.now(), "progress": json.dumps(progress)})

        await self._database.transact(work)
        self._jobs.wake()

    def _entries(self, action: str, erasure_id: str, plan: Plan) -> list[audit.Entry]:
        """One entry for each workspace that loses something, so that its own log tells of it."""
        entries = []
        workspaces: list[str | None] = [*plan.workspace_ids]
        for workspace_id in workspaces or [None]:
            of_stores = {store.id for store in plan.stores if store.workspace_id == workspace_id}
            within = {row["id"] for row in plan.touched.values() if row["workspace_id"] == workspace_id}
            detail = {
                "stores": len(of_stores),
                "memories": sum(1 for memory in plan.memories if memory.store_id in within),
                "texts": len({one.id for one in plan.texts if one.fields and one.workspace_id == workspace_id}),
            }
            entry = audit.entry(Caller("", self._actor), action, subject=erasure_id, detail=detail)
            entries.append(replace(entry, workspace_id=workspace_id))
        return entries

    @asynccontextmanager
    async def _alone(self, note: Note, patience_seconds: float) -> AsyncIterator[None]:
        """Hold the lease that lets one process erase at a time."""
        lease = Lease(self._database, _LEASE, _LEASE_SECONDS)
        waited = 0.0
        while not await lease.take():
            if waited >= patience_seconds:
                raise Occupied
            note("waiting for another process that is erasing, or was killed a moment ago")
            await asyncio.sleep(_LEASE_LOOK_SECONDS)
            waited += _LEASE_LOOK_SECONDS
        try:
            async with lease.kept():
                yield
        except LeaseLost:
            raise Occupied(
                "this process stood still, or the database was away, for so long that another process may go on with "
                "the erasure; finish it with 'memstore forget --resume'"
            ) from None
        finally:
            with contextlib.suppress(Unavailable, Overloaded):  # It runs out by itself.
                await lease.release()


def unfinished_text(erasure: Row) -> str:
    """What to say of an erasure that has not come to its end; its row is that of `Erasures.unfinished`."""
    when = "when the legal hold on a store of it is released, " if erasure["is_held"] else ""
    return (
        f"erasure {erasure['id']} of {clock.rfc3339(erasure['started_at'])} is not finished; "
        f"{when}finish it with 'memstore forget --resume'"
    )


def waits_text(erasure: Row, workspace_id: str) -> str:
    """The same for somebody of one workspace."""
    told = f"erasure {erasure['id']}" if erasure["workspace_id"] == workspace_id else "an operator's erasure"
    return f"{told} is not finished; begin another one when it is"


class _Held(Exception):
    """What was selected is under hold. `refusal` is what the caller is told."""

    def __init__(self, refusal: InvalidRequest) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _refuse_beside(earlier: Row | None) -> None:
    """One erasure of a workspace after the other; but a hold may last for years, and is no reason to keep others."""
    if earlier is not None and not earlier["is_held"]:
        raise Unfinished(earlier)


def _refuse_held(held: list[Row]) -> None:
    if not held:
        return
    if len(held) == 1:
        raise _Held(UnderLegalHold(held[0]["id"], clock.rfc3339(held[0]["held_at"])))
    named = ", ".join(f"{row['id']} since {clock.rfc3339(row['held_at'])}" for row in held)
    raise _Held(InvalidRequest(f"{len(held)} of the memory stores are under legal hold, so nothing is erased: {named}"))

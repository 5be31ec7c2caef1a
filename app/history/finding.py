"""What a person at a terminal names: a memory by its path, a version by its number or the beginning of its ID."""

from typing import Any

from app.contract import ids
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, NotFound
from app.history import queries
from app.storage.storage import Storage

_NUMBER_DIGITS = 18


class Finding:
    """Finds memories and versions of the stores of a caller's workspace."""

    def __init__(self, storage: Storage) -> None:
        self._database = storage.database

    async def memory_at(self, caller: Caller, store_id: str, path: str) -> str:
        """The ID of the memory at a path, or else of the one that was there last. The leading `/` may be left out.

        Raises:
            NotFound: none is, and none was as far as its versions are left.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        parameters = {**scope, "path": path if path.startswith("/") else f"/{path}"}
        row = await self._database.fetch_one(queries.MEMORY_AT_PATH, parameters)
        if row is not None:
            return str(row["id"])
        row = await self._database.fetch_one(queries.LAST_AT_PATH, parameters)
        if row is None:
            raise NotFound(
                f"no memory is at {parameters['path']!r} in memory store {store_id!r}, and no version of one is left"
            )
        return str(row["memory_id"])

    async def version(self, caller: Caller, store_id: str, name: str) -> str:
        """The ID of a version, from an ID, the beginning of one, or a number such as `12` or `@12`.

        Raises:
            NotFound: there is none.
            InvalidRequest: several IDs begin so.

        """
        scope: dict[str, Any] = {"store_id": store_id, "workspace_id": caller.workspace_id}
        number = name.removeprefix("@")
        if number.isascii() and number.isdecimal() and len(number) <= _NUMBER_DIGITS:
            row = await self._database.fetch_one(queries.VERSION_BY_SEQ, {**scope, "seq": int(number)})
            found = [] if row is None else [row]
        elif name.isascii() and name.isprintable() and name.startswith(f"{ids.VERSION}_"):
            # `~` follows every character of an ID.
            part = {"start": name, "end": f"{name}~", "limit": 2}
            found = list(await self._database.fetch_all(queries.VERSIONS_BY_ID, {**scope, **part}))
        else:
            raise InvalidRequest(
                f"{name!r} is no version: give an ID (memver_…), the beginning of one, or a number such as @12"
            )
        if not found:
            raise NotFound(f"memory version {name!r} was not found in memory store {store_id!r}")
        if len(found) > 1:
            raise InvalidRequest(f"several memory versions begin with {name!r}; give more of the ID, or a number")
        return str(found[0]["id"])

"""What people call the authors of changes: an API key by its name, a session by its title."""

from collections.abc import Iterable, Mapping

from app.contract import ids
from app.contract.actors import API_KEY, SESSION
from app.history import queries
from app.storage.rows.database import Database, Row

_BOOTSTRAP_NAME = "bootstrap"
_AT_ONCE = 500


async def names_of(database: Database, rows: Iterable[Row]) -> Mapping[str, str]:
    """Names by the IDs of these rows' authors (`actor_type`, `actor_id`); authors without a name are left out.

    A key that an administrator removed, a session that was deleted, and authors that an import or a pull brought from
    another deployment have none.
    """
    authors = {(row["actor_type"], row["actor_id"]) for row in rows}
    found = {ids.BOOTSTRAP_API_KEY_ID: _BOOTSTRAP_NAME}
    for kind, statement, parameter in (
        (API_KEY, queries.KEY_NAMES, "key_ids"),
        (SESSION, queries.SESSION_TITLES, "session_ids"),
    ):
        wanted = sorted(actor_id for actor_type, actor_id in authors if actor_type == kind)
        for start in range(0, len(wanted), _AT_ONCE):
            named = await database.fetch_all(statement, {parameter: wanted[start : start + _AT_ONCE]})
            found |= {row["id"]: row["name"] for row in named if row["name"]}
    return found

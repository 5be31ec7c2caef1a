"""The first API key of an embedded service: made once, kept in a file, and never printed to a log."""

import secrets
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from app import regular_files
from app.cli.operator import actor
from app.keys.service import DEFAULT_WORKSPACE, Keys
from app.settings import BadSettings
from app.storage.contents.whole_files import write_whole
from app.storage.rows.database import Database

_NAME = "first start"
_LONGEST, _FILE_BYTES = 1_024, 65_536


class State(Enum):
    """How it is with the key in the file."""

    MADE = "it was made just now"
    KEPT = "it is there and good"
    REVOKED = "it was revoked"
    GONE = "it was made before, and its file is gone"


@dataclass(frozen=True, slots=True)
class FirstKey:
    """What a start can say of it. `secret` is empty where there is no file."""

    file: Path
    state: State
    secret: str


async def ensure(database: Database, directory: Path) -> FirstKey:
    """The key in `api_key` of the data directory; made once: if its file is gone, there is no second one.

    A secret in the file that the database does not know becomes a key: the database may be a new one.

    Raises:
        BadSettings: the file holds something that is no key.

    """
    file, keys = directory / "api_key", Keys(database)
    if secret := read(file):
        return await _known(keys, file, secret)
    if any(row["name"] == _NAME for row in await keys.list_all()):
        return FirstKey(file, State.GONE, "")
    secret = f"msk_{secrets.token_urlsafe(32)}"
    try:
        # The file first: after a crash in between, the next start makes the key that it holds.
        write_whole(file, f"{secret}\n".encode(), replace=file.exists())
    except FileExistsError:  # Another first start was faster.
        return await _known(keys, file, read(file))
    await keys.create(DEFAULT_WORKSPACE, _NAME, actor=actor(), secret=secret)
    return FirstKey(file, State.MADE, secret)


async def _known(keys: Keys, file: Path, secret: str) -> FirstKey:
    revoked = await keys.is_revoked(secret)
    if revoked is None:
        await keys.create(DEFAULT_WORKSPACE, _NAME, actor=actor(), secret=secret)
    return FirstKey(file, State.REVOKED if revoked else State.KEPT, secret)


def read(file: Path) -> str:
    """The secret in a key file; empty if there is no file, or nothing in it.

    Raises:
        BadSettings: as of `ensure`.

    """
    try:
        written = regular_files.read(file, _FILE_BYTES)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise BadSettings(
            f"the API key can't be read: {error}. Put the key's file back, or remove what is there and make a key "
            "with 'memstore keys create'"
        ) from error
    text = written.strip(b" \t\r\n\x00").decode("ascii", "replace")
    if len(text) > _LONGEST or any(not "!" <= character <= "~" for character in text):
        raise BadSettings(
            f"{file} holds no API key: one line of printable ASCII without spaces, at most {_LONGEST:,} bytes. "
            "Put the key back, or remove the file and make one with 'memstore keys create'"
        )
    return text

"""Running a coroutine of a command on the opened database or storage."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import make_url

from app.cli import deployment, places, terminal
from app.cli.unknown_settings import warn_of_unknown_settings
from app.settings import BadSettings, Settings, load, storage_options
from app.storage.rows import migrations
from app.storage.rows.database import Database
from app.storage.storage import Storage, make_database

T = TypeVar("T")


@contextmanager
def blamed_on(setting: str, value: object) -> Iterator[None]:
    """Say the setting's name when what it points to can't be used."""
    try:
        yield
    except OSError as error:
        raise BadSettings(f"{setting}: {value} can't be used: {error.strerror or error}") from error
    except (ValueError, ImportError) as error:
        raise BadSettings(f"{setting}: {error}") from error


@contextmanager
def told_when_interrupted(state: str) -> Iterator[None]:
    """Say after Ctrl-C what has become of the work, and what to do."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*([state] if state else [])) from None


def require_deployment(settings: Settings) -> None:
    """Refuse to work where no deployment is: an answer from an empty one that was just made would be wrong.

    Raises:
        BadSettings: the embedded database is not there.
    """
    file = Path(make_url(settings.database_url).database or "") if settings.is_embedded else None
    if file is not None and not file.exists():
        setting = "MEMSTORE_DATA_DIR" if file.parent == settings.data_dir else "MEMSTORE_DATABASE_URL"
        raise BadSettings(
            f"there is no deployment in {file.parent} ({setting}): {file.name} is not there; run this where the "
            "server's settings are, or make a deployment with 'memstore serve' or 'memstore migrate'"
        )


def prepare(settings: Settings, *, may_make: bool = False) -> None:
    """Keep what is on this host from other users, and bring the embedded database up to date.

    Another database is brought up to date by 'memstore migrate'. may_make: where no deployment is, make one.

    Raises:
        BadSettings: there is none, or its places can't be used.

    """
    places.refuse_others(settings)
    if not may_make:
        require_deployment(settings)
    places.make_private(settings)
    if settings.is_embedded:
        if may_make:
            with blamed_on("MEMSTORE_DATA_DIR", settings.data_dir):
                settings.data_dir.mkdir(parents=True, exist_ok=True)
        with blamed_on("MEMSTORE_DATABASE_URL", settings.database_url):
            migrations.upgrade(settings.database_url)


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Open the database of the settings, say which it is, run `work`, close it. See `prepare` for what comes first."""
    warn_of_unknown_settings()
    settings = load()
    prepare(settings)

    async def run() -> T:
        database = make_database(settings.database_url, 1)
        await database.open()
        try:
            await migrations.require_current(database)
            await deployment.tell(database, settings)
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def with_storage(
    work: Callable[[Storage], Awaitable[T]],
    *,
    may_make: bool = False,
    is_told: bool = True,
    doing: str = "",
    interrupted: str = "",
) -> T:
    """The same with database and blob store, without background work.

    may_make: where no deployment is, make one. is_told: say which deployment it is. doing: what takes
    long, to be shown on a terminal meanwhile. interrupted: what is the case after Ctrl-C, and what to do then.
    """
    warn_of_unknown_settings()
    settings = load()
    prepare(settings, may_make=may_make)

    async def run() -> T:
        storage = Storage(storage_options(settings))
        await storage.open(in_background=False)
        try:
            await migrations.require_current(storage.database)
            if is_told:
                await deployment.tell(storage.database, settings)
            with terminal.working(doing) if doing else nullcontext():
                return await work(storage)
        finally:
            await storage.close()

    with told_when_interrupted(interrupted):
        return asyncio.run(run())

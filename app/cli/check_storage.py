"""The doctor's look at the server's side: settings, data directory, disk, database, schema, blob store."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy.engine import make_url

from app.cli import places as where
from app.cli.findings import Findings
from app.cli.unknown_settings import unknown_settings
from app.jobs.service import Jobs
from app.settings import BadSettings, Settings, load
from app.storage.contents.blobs import BlobStore, DamagedMark, open_blob_store
from app.storage.rows import migrations
from app.storage.rows.database import Database
from app.storage.rows.statements import Statement
from app.storage.storage import make_database

_MB, _GB = 1_000_000, 1_000_000_000
_DISK_FAILED, _DISK_WARNING = 100 * _MB, _GB
_SKEW_WARNING_SECONDS, _SKEW_FAILED_SECONDS = 30.0, 600.0
"""S3 refuses what is signed more than fifteen minutes off."""
_CONNECT_SECONDS, _READ_SECONDS = 3, 5

_OVERDUE_SECONDS = 600.0

_SQLITE_VERSION = Statement("SELECT sqlite_version() AS version")
_POSTGRES_VERSION = Statement("SELECT current_setting('server_version') AS version")
_INSTALLATION = Statement("SELECT id FROM installation")


def check_settings(findings: Findings) -> Settings | None:
    """The settings, if they can be read."""
    try:
        settings = load()
    except BadSettings as error:
        for line in str(error).splitlines():
            findings.failed(
                "settings", line, "correct it in the environment or in .env; see docs/reference/settings.md"
            )
        return None
    for sentence in unknown_settings():
        findings.warning("settings", sentence, "correct the name, or remove it")
    database = "SQLite" if settings.is_embedded else "PostgreSQL"
    findings.ok("settings", f"{database}, contents in {urlsplit(settings.blob_url).scheme}://")
    return settings


def check_places(findings: Findings, settings: Settings) -> None:
    """The directories that the settings name, and the room on their disks."""
    places = {"MEMSTORE_DATA_DIR": settings.data_dir}
    if settings.is_embedded:
        places["MEMSTORE_DATABASE_URL"] = Path(make_url(settings.database_url).database or "").absolute().parent
    if urlsplit(settings.blob_url).scheme == "file":
        places["MEMSTORE_BLOB_URL"] = Path(urlsplit(settings.blob_url).path)
    if not settings.is_embedded and "MEMSTORE_BLOB_URL" not in places:
        return  # Nothing of the server's is on this disk.
    looked_at: set[Path] = set()
    disks: set[int] = set()
    for name, directory in places.items():
        if directory in looked_at:
            continue
        looked_at.add(directory)
        if not _check_private(findings, settings, name, directory):
            continue
        nearest = _nearest(directory)
        if _check_writable(findings, name, directory, nearest) and nearest.stat().st_dev not in disks:
            disks.add(nearest.stat().st_dev)
            _check_room(findings, nearest)


def _check_private(findings: Findings, settings: Settings, name: str, directory: Path) -> bool:
    """Whether the directory may be used at all; a warning where other users of this host can look into it."""
    place = next((place for place in where.of(settings) if place.directory == directory), None)
    if place is None:
        return True
    if (why := where.refusal(place)) is not None:
        findings.failed("directory", f"{name}: {directory} {why}", "nobody else may own or open it")
        return False
    if (whose := where.at_the_mercy_of(directory)) is not None:
        findings.warning(
            "directory", f"{directory} can be taken away by somebody else: {whose}",
            "keep it below directories that only this user or root can write in, such as /var/lib",
        )  # fmt: skip
    if (mode := where.open_to_others(place)) is not None:
        findings.warning(
            "directory", f"other users of this host may look into {directory} ({mode:04o})",
            f"'memstore serve' closes it when it starts and nothing of others is in it; by hand: chmod go= {directory}",
        )  # fmt: skip
    return True


def _nearest(directory: Path) -> Path:
    """The directory, or the first one above it that is there."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory


def _check_writable(findings: Findings, name: str, directory: Path, nearest: Path) -> bool:
    advice = f"let {name} name a directory that this user may write to, or give it to the user"
    if not nearest.is_dir():
        findings.failed("directory", f"{name}: {nearest} is no directory", advice)
        return False
    try:
        if nearest == directory:
            with tempfile.TemporaryFile(dir=nearest) as file:
                file.write(b"x")
        elif not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(13, "permission denied")
    except OSError as error:
        findings.failed("directory", f"{name}: can't write in {nearest}: {error.strerror or error}", advice)
        return False
    there = "can be written to" if nearest == directory else f"will be made in {nearest}"
    findings.ok("directory", f"{directory} {there}")
    return True


def _check_room(findings: Findings, directory: Path) -> None:
    usage = shutil.disk_usage(directory)
    text = f"{usage.free / _GB:,.1f} GB of {usage.total / _GB:,.1f} GB are free at {directory}"
    if usage.free < _DISK_FAILED:
        findings.failed("disk", text, "make room now: writes are refused when it is full")
    elif usage.free < _DISK_WARNING:
        findings.warning("disk", text, "make room, or move the data to a larger disk")
    else:
        findings.ok("disk", text)


async def check_database(findings: Findings, settings: Settings) -> str | None:
    """Whether it answers, its version, and its schema; the installation's ID if all that is well."""
    if settings.is_embedded and not os.path.exists(make_url(settings.database_url).database or ""):  # noqa: ASYNC240
        findings.warning("database", "there is no database yet", "'memstore serve' makes it when it first starts")
        return None
    database = make_database(settings.database_url, 1)
    installation = None
    with findings.guarding("database", "see that it runs, and that MEMSTORE_DATABASE_URL names it", _with_cause):
        await database.open()
        try:
            installation = await _check_opened(findings, database, settings)
        finally:
            await database.close()
    return installation


async def _check_opened(findings: Findings, database: Database, settings: Settings) -> str | None:
    statement = _SQLITE_VERSION if settings.is_embedded else _POSTGRES_VERSION
    await database.fetch_one(statement, {})  # The first one connects.
    started = time.perf_counter()
    row = await database.fetch_one(statement, {})
    assert row is not None
    milliseconds = (time.perf_counter() - started) * 1_000
    name = "SQLite" if settings.is_embedded else "PostgreSQL"
    findings.ok("database", f"{name} {row['version']} answers in {milliseconds:.2f} ms")
    try:
        await migrations.require_current(database)
    except migrations.SchemaOutOfDate as error:
        if settings.is_embedded:
            findings.warning("migrations", str(error), "'memstore serve' does that by itself when it starts")
        else:
            findings.failed("migrations", str(error), "run 'memstore migrate' once, then start the servers")
        return None
    findings.ok("migrations", f"the schema is that of revision {migrations.head_revision()}")
    await _check_jobs(findings, database)
    installation = await database.fetch_one(_INSTALLATION, {})
    return None if installation is None else str(installation["id"])


async def _check_jobs(findings: Findings, database: Database) -> None:
    """Whether jobs were given up, or wait for a server that takes them up."""
    jobs = Jobs(database)
    given_up, overdue = (await jobs.counts())["given_up"], await jobs.overdue(_OVERDUE_SECONDS)
    if given_up:
        findings.warning(
            "jobs", f"given up: {given_up:,}",
            "'memstore jobs list --state given_up' says why; then 'memstore jobs retry ID' or 'discard ID'",
        )  # fmt: skip
    if overdue:
        findings.warning(
            "jobs", f"due for more than {_OVERDUE_SECONDS / 60:.0f} minutes, and nobody does them: {overdue:,}",
            "start a server of this version: servers do the jobs",
        )  # fmt: skip
    if not given_up + overdue:
        findings.ok("jobs", "none was given up, none is late")


async def check_blob_store(findings: Findings, settings: Settings, installation: str | None) -> None:
    """Put, read, list and remove a blob; see whose place it is, and how far its clock is off."""
    advice = "see that MEMSTORE_BLOB_URL names a place that is there, and that its credentials may read, write and list"
    parts = urlsplit(settings.blob_url)
    if parts.scheme == "file" and not os.path.exists(parts.path):  # noqa: ASYNC240
        findings.ok("blob store", f"{parts.path} is not there yet: the first content makes it")
        return
    if parts.scheme == "s3":
        await asyncio.to_thread(_check_clock, findings, parts.netloc, settings.s3_endpoint_url)
    with findings.guarding("blob store", advice, _with_cause):
        blobs = open_blob_store(settings.blob_url, settings.s3_endpoint_url)
        try:
            if await _round_trip(findings, blobs):
                await _check_owner(findings, blobs, installation)
        finally:
            await blobs.close()


async def _round_trip(findings: Findings, blobs: BlobStore) -> bool:
    """Whether a blob goes in and out again. Its name begins with a dot, which no memory store's has."""
    store_id, content = f".memstore-doctor-{secrets.token_hex(8)}", secrets.token_bytes(64)
    sha256 = hashlib.sha256(content).digest()
    times: dict[str, float] = {}

    async def step(name: str, call: object) -> object:
        started = time.perf_counter()
        try:
            return await call  # type: ignore[misc]
        except Exception as error:
            raise _StepFailed(f"{name}: {_with_cause(error)}") from None
        finally:
            times[name] = (time.perf_counter() - started) * 1_000

    wrong = ""
    try:
        await step("put", blobs.put_many([(store_id, sha256, content)]))
        if await step("get", blobs.get_many([(store_id, sha256)])) != [content]:
            wrong = "what was put can't be read again"
        listed = await step("list", blobs.list_store(store_id))
        if not (isinstance(listed, list) and [blob.sha256 for blob in listed] == [sha256]):
            wrong = wrong or "what was put is not listed"
    except _StepFailed:
        with contextlib.suppress(Exception):  # The first failure is the one to tell.
            await blobs.remove_store(store_id)
        raise
    await step("remove", blobs.remove_store(store_id))
    if await blobs.get_many([(store_id, sha256)]) != [None]:
        wrong = wrong or "what was removed can still be read"
    if wrong:
        findings.failed("blob store", wrong, "use a blob store that shows at once what was written and removed")
        return False
    findings.ok("blob store", ", ".join(f"{name} {spent:.1f} ms" for name, spent in times.items()))
    return True


class _StepFailed(Exception):
    """A step of the round trip, and why."""


async def _check_owner(findings: Findings, blobs: BlobStore, installation: str | None) -> None:
    try:
        owner = await blobs.marked_owner()
    except DamagedMark as error:
        findings.failed("blob store's owner", str(error), "remove it if no other installation uses this place")
        return
    if owner is None or installation is None:
        return
    if owner == installation:
        findings.ok("blob store's owner", "it belongs to this database")
    else:
        findings.failed(
            "blob store's owner",
            "it belongs to another installation than the database",
            "give each installation a bucket, prefix or directory of its own; orphaned blobs are not removed meanwhile",
        )


def _check_clock(findings: Findings, bucket: str, endpoint_url: str | None) -> None:
    """How far this host's clock is off the blob store's; every answer tells its time, even a refusal."""
    config = Config(
        connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"max_attempts": 0},
        s3={"addressing_style": "path" if endpoint_url else "auto"},
    )  # fmt: skip
    before = time.time()
    try:
        session = boto3.Session()
        client = session.client(
            "s3", endpoint_url=endpoint_url, config=config, region_name=session.region_name or "us-east-1"
        )
        try:
            answer = client.head_bucket(Bucket=bucket)
        except ClientError as error:
            answer = error.response
    except (BotoCoreError, ValueError):
        return  # The round trip tells what is wrong.
    now = (before + time.time()) / 2
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is not None:
        tell_skew(findings, "blob store's clock", parsedate_to_datetime(date).timestamp() - now)


def tell_skew(findings: Findings, check: str, seconds: float) -> None:
    """seconds: how far another clock is ahead of this host's; the header that tells it knows whole seconds."""
    if abs(seconds) < _SKEW_WARNING_SECONDS:
        findings.ok(check, f"within {max(1, round(abs(seconds)))} s of this host's")
        return
    text = f"{abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'} this host's"
    advice = "set both by NTP (timedatectl, chrony)"
    if abs(seconds) < _SKEW_FAILED_SECONDS:
        findings.warning(check, text, advice)
    else:
        findings.failed(check, text, f"{advice}: S3 refuses requests whose time is more than 15 minutes off")


def _with_cause(error: Exception) -> str:
    """What a person needs to know: the service's own sentence, and what the library below said."""
    cause = error.__cause__
    return str(error) if cause is None or str(cause) in str(error) else f"{error} ({str(cause)[:500]})"

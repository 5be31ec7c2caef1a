"""Where a deployment's data lies on this host: for its own user alone, and in nobody else's directory."""

import logging
import os
import pwd
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

from app import regular_files
from app.settings import BadSettings, Settings

_log = logging.getLogger(__name__)

_OPEN = 0o077
"""What other users may do."""
DATA = re.compile(r"memstore\.db(-\w+)?|\.?api_key(\..*)?|blobs|pulls|lost\+found|\.nfs.*|\.snapshots?")
_BLOBS = re.compile(r"memstore_\w+|\.memstore-.*|\.\.memstore-.*|lost\+found|\.nfs.*|\.snapshots?")
_OF_SQLITE = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that holds what is in the stores, and what of Memstore's can be in it."""

    setting: str
    directory: Path
    names: re.Pattern[str]


def of(settings: Settings) -> list[Place]:
    """The directories on this host that these settings name; none on PostgreSQL and S3."""
    found = []
    blobs = urlsplit(settings.blob_url)
    if settings.is_embedded:
        found.append(Place("MEMSTORE_DATA_DIR", settings.data_dir, DATA))
    if blobs.scheme == "file":
        found.append(Place("MEMSTORE_BLOB_URL", Path(blobs.path), _BLOBS))
    return found


def make_private(settings: Settings) -> None:
    """Refuse places of somebody else; close those of ours that are open to other users, and say so.

    Directories that are not there yet are left to those that make them: a command's umask keeps them private.

    Raises:
        BadSettings: with the setting, what is wrong and what would be right.

    """
    refuse_others(settings)
    for place in of(settings):
        make_place_private(place)
    for part in _database_files(settings):
        _close(part)


def refuse_others(settings: Settings) -> None:
    """The first half of `make_private`, which changes nothing."""
    for part in _database_files(settings):
        _refuse_a_file_of_others(part)
    for place in of(settings):
        _refuse(place)


def make_place_private(place: Place) -> None:
    """The same for one directory."""
    _refuse(place)
    if not place.directory.exists():
        return
    mode = stat.S_IMODE(place.directory.stat().st_mode)
    if mode & _OPEN and _may_be_closed(place):
        with suppress(OSError):
            place.directory.chmod(mode & ~_OPEN)
        _tell(place.directory, mode)
    for name in ("api_key", "blobs", "pulls"):
        _close(place.directory / name)


def refusal(place: Place) -> str | None:
    """Why a directory can't be used for what nobody else may see; None if it can."""
    try:
        link, found = place.directory.lstat(), place.directory.stat()
    except FileNotFoundError:
        return None if not place.directory.is_symlink() else "is a link that leads nowhere"
    except OSError as error:
        return f"can't be used: {error.strerror or error}"
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory"
    for kind, owner in (("link", link.st_uid), ("directory", found.st_uid)):
        if not _is_trusted(owner, place.directory):
            return (
                f"is a {kind} of {_named(owner)}, and this is {_named(os.geteuid())}: name another place, or run this "
                f"as its owner (setpriv --reuid {owner} --regid {found.st_gid} --clear-groups memstore …)"
            )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & _OPEN or _may_be_closed(place) or _holds_ours(place):
        return None
    if mode & stat.S_IWOTH:
        return f"is open to everybody ({mode:04o}): name a directory of its own, such as {place.directory / 'memstore'}"
    if found.st_uid == os.geteuid():
        return (
            f"holds other things than Memstore's and is open to other users ({mode:04o}): name a directory of its own, "
            f"such as {place.directory / 'memstore'}, or close it (chmod go= {place.directory})"
        )
    return None


def at_the_mercy_of(directory: Path) -> str | None:
    """Those that can put another directory in the place of this one, since one above it is theirs; None: nobody can.

    What is ours stays unreadable for them, and the next start refuses a directory of theirs; but a running server
    loses its files, and keeps what is new where they can remove it. That is said, and no reason to refuse: a volume of
    a container and the checkout of another user are such places.
    """
    for chain in (directory.absolute(), directory.resolve()):
        for entry, above in pairwise((chain, *chain.parents)):
            try:
                found = above.stat()
            except OSError:
                continue
            if not _is_ours(found.st_uid):
                return f"{_named(found.st_uid)} owns {above}"
            with suppress(OSError):
                if found.st_mode & stat.S_ISVTX and _is_ours(entry.lstat().st_uid):
                    continue
            if found.st_mode & stat.S_IWOTH:
                return f"everybody may write in {above} ({stat.S_IMODE(found.st_mode):04o})"
    return None


def _is_ours(owner: int) -> bool:
    """Whether a directory of this owner is as good as ours. In a user namespace, strangers have one number for all."""
    if owner in (os.geteuid(), 0):
        return True
    with suppress(OSError, ValueError):
        everybody_has_a_number = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
        return not everybody_has_a_number and owner == int(Path("/proc/sys/kernel/overflowuid").read_text())
    return False


def open_to_others(place: Place) -> int | None:
    """The mode of a directory that other users may look into; None if they may not, or it is not there."""
    with suppress(OSError):
        mode = stat.S_IMODE(place.directory.stat().st_mode)
        return mode if mode & _OPEN else None
    return None


def _is_trusted(owner: int, directory: Path) -> bool:
    """Whether a file of this owner is ours.

    Root can read everything anyway, and owns the volumes that it hands to containers. Some file systems show every
    file as one user's (NFS with all_squash, CIFS, those of virtual machines): there, what we make looks the same.
    """
    if owner in (os.geteuid(), 0):
        return True
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            return os.fstat(probe.fileno()).st_uid == owner
    except OSError:
        return False


def _named(uid: int) -> str:
    try:
        return f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"user {uid}"


def _entries(place: Place) -> Iterator[str]:
    with suppress(OSError), os.scandir(place.directory) as entries:
        for entry in entries:
            yield entry.name


def _holds_ours(place: Place) -> bool:
    """Whether there is a deployment already: one that is upgraded goes on where it is."""
    return any(place.names.fullmatch(name) and name != "lost+found" for name in _entries(place))


def _may_be_closed(place: Place) -> bool:
    """Whether the directory is ours and nobody else's things are in it. `/tmp` or a home are not to be closed."""
    if place.directory.stat().st_uid != os.geteuid() or place.directory.resolve() == Path("/"):
        return False
    return all(place.names.fullmatch(name) for name in _entries(place))


def _close(path: Path) -> None:
    """Take other users' rights from something of ours; a link, and what is somebody else's, is left alone."""
    with suppress(OSError):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
            return
        mode = stat.S_IMODE(found.st_mode)
        if mode & _OPEN:
            path.chmod(mode & ~_OPEN)


def _tell(directory: Path, before: int) -> None:
    now = stat.S_IMODE(directory.stat().st_mode)
    if now & _OPEN:
        _log.warning("%s is open to other users (%04o), and this file system can't close it", directory, now)
    else:
        _log.warning("%s was open to other users of this host (%04o) and is closed now (%04o)", directory, before, now)


def _refuse(place: Place) -> None:
    if (why := refusal(place)) is not None:
        raise BadSettings(f"{place.setting}: {place.directory} {why}")


def _database_files(settings: Settings) -> list[Path]:
    """Those of SQLite, whether they are there or not."""
    if not settings.is_embedded:
        return []
    file = Path(make_url(settings.database_url).database or "")
    return [file.with_name(file.name + suffix) for suffix in _OF_SQLITE]


def _refuse_a_file_of_others(file: Path) -> None:
    try:
        owners = {file.lstat().st_uid, file.stat().st_uid}
        regular_files.require(file)
    except regular_files.NotRegular as error:
        raise BadSettings(f"MEMSTORE_DATABASE_URL: {error}") from error
    except OSError:
        return  # It is not there; whatever else is wrong, opening it says.
    for owner in owners:
        if not _is_trusted(owner, file.parent):
            raise BadSettings(f"MEMSTORE_DATABASE_URL: {file} belongs to {_named(owner)}: name another file")

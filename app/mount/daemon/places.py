"""The directories that the mount uses on this host, and which users may look into them.

Three, each for one user and closed to all others (0700):

- *run*: lock, control socket and log of the one daemon. `MEMSTORE_RUN_DIR`, else `$XDG_RUNTIME_DIR/memstore`, else
  `/run/memstore` for root and `/tmp/memstore-<uid>` for others. A daemon belongs to its run directory.
- *state*: journals. They must outlive a reboot and lie on a local disk. `MEMSTORE_STATE_DIR`, else
  `$XDG_STATE_HOME/memstore`, else `/var/lib/memstore` for root and `~/.local/state/memstore` for others.
- *cache*: contents by digest, which may be thrown away. `--cache-dir`, else `MEMSTORE_CACHE_DIR`, else
  `$XDG_CACHE_HOME/memstore`, else `/var/cache/memstore` for root and `~/.cache/memstore` for others.
"""

import hashlib
import os
import pwd
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.mount.sync.errors import MountError

_SOCKET_NAME_BYTES = 107
"""The longest path a Unix socket can be bound to on Linux (sun_path, without its closing zero)."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Places:
    """Where one daemon lives. Nothing is made before it is needed."""

    run: Path
    state: Path
    cache: Path

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.run / "daemon.sock"

    @property
    def lock(self) -> Path:
        """Locked by the daemon for its life; it says the daemon's process ID."""
        return self.run / "daemon.lock"

    @property
    def start_lock(self) -> Path:
        """Locked by a command while it starts the daemon, so that two commands start one."""
        return self.run / "start.lock"

    @property
    def log(self) -> Path:
        """What the daemon prints, while it runs in the background."""
        return self.run / "daemon.log"

    def attachment_state(self, base_url: str, owner: str, store_id: str) -> Path:
        """Holds the directory (journal and state) of each engine that this host ever had for an attachment.

        owner: the session's ID, or `-` for a store mounted without one.
        """
        return self._owner_state(base_url, owner) / _safe(store_id)

    @property
    def kept(self) -> Path:
        """Holds a directory for each store of which something could not be saved (`app.mount.sync.kept`)."""
        return self.state / "kept"

    def attachments_file(self, base_url: str, owner: str) -> Path:
        """Remembers what an owner had attached, for a start while the server is away."""
        return self._owner_state(base_url, owner) / "attachments.json"

    def stores_of(self, base_url: str, owner: str) -> list[str]:
        """The stores of which an owner has something on this host."""
        known = self._owner_state(base_url, owner)
        return [home.name for home in known.iterdir() if home.is_dir()] if known.is_dir() else []

    def _owner_state(self, base_url: str, owner: str) -> Path:
        server = f"{_safe(base_url.partition('://')[2])[:80]}-{digest(base_url)}"
        return self.state / server / _safe(owner)


def find(environment: Mapping[str, str], uid: int | None = None) -> Places:
    """The places of a user, by these environment variables.

    Raises:
        MountError: one of them can't be used; the sentence says why.

    """
    uid = os.geteuid() if uid is None else uid
    home = Path(environment.get("HOME") or _home_of(uid) or "/")

    def choose(own: str, xdg: str, for_root: str, for_others: Path) -> Path:
        if chosen := environment.get(own):
            return Path(os.path.abspath(chosen))
        if base := environment.get(xdg):
            return Path(os.path.abspath(base)) / "memstore"
        return Path(for_root) if uid == 0 else for_others

    places = Places(
        run=choose("MEMSTORE_RUN_DIR", "XDG_RUNTIME_DIR", "/run/memstore", Path(f"/tmp/memstore-{uid}")),  # noqa: S108 - its owner is checked
        state=choose("MEMSTORE_STATE_DIR", "XDG_STATE_HOME", "/var/lib/memstore", home / ".local/state/memstore"),
        cache=choose("MEMSTORE_CACHE_DIR", "XDG_CACHE_HOME", "/var/cache/memstore", home / ".cache/memstore"),
    )
    if len(os.fsencode(places.socket)) > _SOCKET_NAME_BYTES:
        raise MountError(
            f"the run directory {places.run} is too long for a Unix socket: "
            f"set MEMSTORE_RUN_DIR to one of at most {_SOCKET_NAME_BYTES - len('/daemon.sock')} bytes"
        )
    return places


def _home_of(uid: int) -> str | None:
    """What the system's list of users says; containers often run a number that is not in it."""
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None


def make_private(directory: Path, setting: str = "") -> Path:
    """Make the directory if it is missing, for its user alone, and return it.

    One that is there already keeps its mode: it may serve others as well.

    setting: the variable that names another place, for the refusal.

    Raises:
        MountError: it can't be made, or it is a link or somebody else's, or others may write in it.

    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        elsewhere = f"; let {setting} name one that user {os.geteuid()} may write in" if setting else ""
        raise MountError(f"the directory {directory} can't be made: {error.strerror or error}{elsewhere}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise MountError(
            f"{directory} must be a directory of user {os.geteuid()} that nobody else can write in, and no link"
        )
    return directory


def private(path: str, flags: int) -> int:
    """For `open`'s `opener`: a file that is made is for its user alone, whatever the umask says."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def digest(text: str) -> str:
    """A short name for any text: 12 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _safe(name: str) -> str:
    """A text as one segment of a path."""
    cleaned = _UNSAFE.sub("_", name)
    return cleaned if cleaned.strip(".") else f"_{digest(name)}"

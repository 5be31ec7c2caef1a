"""What a command asks the daemon to open."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.mount.daemon.account import Credentials
from app.mount.sync.engine import Policy
from app.mount.sync.errors import MountError

AUTO, FUSE, MIRROR = "auto", "fuse", "mirror"
MODES = (AUTO, FUSE, MIRROR)

NO_SESSION = "-"
"""Stands for the session of a store that is mounted without one."""


@dataclass(frozen=True, slots=True)
class Order:
    """A session's stores, or one store, and how they are to be shown."""

    credentials: Credentials = field(repr=False)
    session_id: str | None
    store_id: str | None
    read_only: bool
    """Of a store without a session; a session's attachments say it themselves."""
    mode: str
    cache: Path | None
    """Where contents are cached, if not where the daemon does."""
    policy: Policy
    keep_cache: bool = False
    """Leave on disk, at the end, what a start without the server needs."""
    allow_other: bool = False
    """Every user of the host may read and write in the mount."""

    @property
    def owner(self) -> str:
        """Whose journal it is."""
        return self.session_id or NO_SESSION

    @property
    def what(self) -> str:
        """For sentences."""
        return f"the session {self.session_id}" if self.session_id else f"the memory store {self.store_id}"

    def to_json(self) -> dict[str, Any]:
        """The members of a request, which `from_json` reads. They hold the secret."""
        return {
            "base_url": self.credentials.base_url,
            "api_key": self.credentials.api_key,
            "token": self.credentials.token,
            "session_id": self.session_id,
            "store_id": self.store_id,
            "read_only": self.read_only,
            "mode": self.mode,
            "cache": str(self.cache) if self.cache else None,
            "policy": self.policy.value,
            "keep_cache": self.keep_cache,
            "allow_other": self.allow_other,
        }

    @classmethod
    def from_json(cls, request: dict[str, Any]) -> "Order":
        """Read a request.

        Raises:
            MountError: it asks for neither a session nor a store, or for both, or for an unknown mode.

        """
        if bool(request.get("session_id")) == bool(request.get("store_id")):
            raise MountError("either a session or a store is to be opened")
        if request["mode"] not in MODES:
            raise MountError(f"the mode is one of {', '.join(MODES)}, not {request['mode']!r}")
        return cls(
            credentials=Credentials(request["base_url"], request.get("api_key"), request.get("token")),
            session_id=request.get("session_id"),
            store_id=request.get("store_id"),
            read_only=bool(request.get("read_only")),
            mode=request["mode"],
            cache=Path(request["cache"]) if request.get("cache") else None,
            policy=Policy(request["policy"]),
            keep_cache=bool(request.get("keep_cache")),
            allow_other=bool(request.get("allow_other")),
        )

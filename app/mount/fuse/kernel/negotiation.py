"""What this side and the kernel agree on when a mount opens: the FUSE version, features and sizes."""

import json
from dataclasses import asdict, dataclass

from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.protocol import Feature

MAJOR = 7
MINOR = 45
"""The newest minor version known here; the kernel uses the lower of the two sides."""
OLDEST_MINOR = 23
"""Linux 3.15 of 2014: the structures of `protocol` have not changed since."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a filesystem would like of the kernel; what the kernel can't do is left out."""

    features: Feature = (
        Feature.ASYNC_READ
        | Feature.ATOMIC_O_TRUNC
        | Feature.BIG_WRITES
        | Feature.DO_READDIRPLUS
        | Feature.READDIRPLUS_AUTO
        | Feature.PARALLEL_DIROPS
        | Feature.MAX_PAGES
        | Feature.NO_OPENDIR_SUPPORT
        | Feature.EXPLICIT_INVAL_DATA
        | Feature.HAS_EXPIRE_ONLY
        | Feature.HAS_RESEND
    )
    max_write: int = 128 * 1024
    """Bytes in one WRITE, a multiple of 4,096."""
    max_background: int = 64
    """Requests that nobody waits for (readahead, RELEASE) in flight at once."""
    request_timeout: int = 0
    """Seconds after which the kernel gives a mount up that does not answer; 0: never."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides settled on. A worker that takes a mount over needs it, since INIT comes only once."""

    minor: int
    features: Feature
    max_write: int

    def to_json(self) -> bytes:
        """For the supervisor's custody."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Negotiated":
        """Raises ValueError, KeyError or TypeError if the text is not one of `to_json`."""
        fields = json.loads(text)
        return cls(fields["minor"], Feature(fields["features"]), fields["max_write"])


class TooOld(Exception):
    """The kernel's protocol is older than this module understands."""


def negotiate(body: bytes, wishes: Wishes) -> tuple[bytes, Negotiated | None]:
    """Answer an INIT request: the reply's body and what was settled.

    A kernel with a newer major version is told ours and asks again: nothing is settled yet. Raises TooOld.
    """
    body = body.ljust(protocol.INIT_IN.size, b"\0")  # flags2 came with 7.36
    major, minor, max_readahead, low, high = protocol.INIT_IN.unpack_from(body)
    if major > MAJOR:
        return _init_out(MINOR, 0, Feature(0), 0, Wishes()), None
    if major < MAJOR or minor < OLDEST_MINOR:
        raise TooOld(f"the kernel speaks FUSE {major}.{minor}; {MAJOR}.{OLDEST_MINOR} is the oldest that works here")
    offered = low | (high << 32 if low & Feature.INIT_EXT else 0)
    wanted = wishes.features
    if wishes.request_timeout:
        wanted |= Feature.REQUEST_TIMEOUT
    features = Feature(wanted & offered)
    if features >> 32:
        features |= Feature.INIT_EXT
    minor = min(minor, MINOR)
    # Without MAX_PAGES the kernel sends at most 32 pages in one request.
    max_write = wishes.max_write if features & Feature.MAX_PAGES else min(wishes.max_write, 32 * 4096)
    return _init_out(minor, max_readahead, features, max_write, wishes), Negotiated(minor, features, max_write)


def _init_out(minor: int, max_readahead: int, features: Feature, max_write: int, wishes: Wishes) -> bytes:
    flags = int(features)
    return protocol.INIT_OUT.pack(
        MAJOR,
        minor,
        max_readahead,
        flags & 0xFFFFFFFF,
        wishes.max_background,
        wishes.max_background * 3 // 4,
        max_write,
        1,
        max_write // 4096,
        0,
        flags >> 32,
        0,
        wishes.request_timeout if features & Feature.REQUEST_TIMEOUT else 0,
    )

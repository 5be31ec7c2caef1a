"""Requests of the kernel, the ways to answer one, and what a file system gives a session to answer them."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.negotiation import Negotiated


class Deferred:
    """The type of DEFERRED."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "DEFERRED"


DEFERRED: Final = Deferred()
"""A handler returns it when the answer comes later, from another thread, through the request."""

Reply: TypeAlias = bytes | int | Deferred | None
"""What a handler returns:

- bytes: the reply's body, made with the `…_out` functions of `protocol`, or a file's content for READ;
- None: success without a body (UNLINK, RENAME, FLUSH, FSYNC, RELEASE, SETXATTR, …);
- a positive errno: the same as raising `OSError(errno, …)`, but cheaper (ENOENT of a lookup);
- DEFERRED, which `request.later(…)` and `request.defer()` return: the answer comes later.
"""


class Answers(Protocol):
    """Where the answers to deferred requests go: the session."""

    def finish(self, request: "Request", result: Reply) -> bool:
        """See Request.reply and Request.fail."""

    def postpone(self, request: "Request") -> Deferred:
        """See Request.defer."""

    def submit(self, request: "Request", work: "Handler") -> Deferred:
        """See Request.later."""


class Request:
    """One request of the kernel. It may be kept: nothing in it changes when the next one is read."""

    __slots__ = ("_session", "body", "gid", "interrupted", "nodeid", "on_interrupt", "opcode", "pid", "uid", "unique")

    def __init__(
        self, session: Answers, opcode: int, unique: int, nodeid: int, uid: int, gid: int, pid: int, body: bytes
    ) -> None:
        self._session = session
        self.opcode = opcode
        self.unique = unique
        self.nodeid = nodeid
        self.uid = uid
        self.gid = gid
        self.pid = pid
        """The caller's thread ID in the PID namespace of the mount; 0 where the kernel itself asks."""
        self.body = body
        """What follows the header; `protocol.…_IN.unpack_from(body)` and `protocol.names(body, …)` read it."""
        self.interrupted = False
        """The caller was interrupted by a signal while it waits. Only of deferred requests, and not of a READ that
        the page cache sent: nobody in particular waits for that."""
        self.on_interrupt: Callable[[], None] | None = None
        """Called once, from the reading thread, when `interrupted` becomes true. It must not block."""

    @property
    def resent(self) -> bool:
        """Whether an earlier worker may have carried this out already, without having answered."""
        return bool(self.unique & protocol.RESENT)

    def reply(self, body: bytes | None = None) -> bool:
        """Answer a deferred request with success. From any thread, once.

        False if the kernel no longer wants it (the mount was aborted): then a handle just opened will never be
        released by the kernel.
        """
        return self._session.finish(self, body)

    def fail(self, number: int) -> bool:
        """Answer a deferred request with an errno. From any thread, once."""
        return self._session.finish(self, number)

    def defer(self) -> Deferred:
        """Announce that `reply` or `fail` will be called by another thread, which may get the request only then."""
        return self._session.postpone(self)

    def later(self, work: "Handler") -> Deferred:
        """Do `work(request)` on the session's pool and answer with what it returns or raises, as a handler's.

        `return request.later(self._fetch)` is how a handler waits for the network.
        """
        return self._session.submit(self, work)


Handler: TypeAlias = Callable[[Request], Reply]
"""Called in the reading thread: it must not wait for the network or a lock that somebody holds who does.

An OSError becomes its errno. Any other exception is logged and becomes EIO; the session goes on.
"""


class Operations(Protocol):
    """What a filesystem gives a Session."""

    handlers: Mapping[int, Handler]
    """By opcode. An opcode that is missing answers ENOSYS (for many opcodes the kernel then never asks again).

    INIT, FORGET, BATCH_FORGET and INTERRUPT are the session's own and never looked up here.
    Read once, when the session is made.
    """

    def forget(self, nodeid: int, nlookup: int) -> None:
        """The kernel gives up `nlookup` of the references that LOOKUP, CREATE, … and READDIRPLUS gave it.

        In the reading thread.
        """

    def opened(self, negotiated: Negotiated) -> None:
        """The mount is live: INIT was answered, or this session took the mount over.

        Before the first request: in the reading thread, or on a take-over in the one that calls `start`.
        """

    def closed(self) -> None:
        """The kernel is done with the mount (unmounted everywhere, or aborted). In the reading thread, last."""

"""One FUSE mount's conversation with the kernel: read a request, let the filesystem answer, write the reply."""

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.negotiation import Negotiated, Wishes, negotiate
from app.mount.fuse.kernel.protocol import Notify, Opcode
from app.mount.fuse.kernel.requests import DEFERRED, Deferred, Handler, Operations, Reply, Request

log = logging.getLogger(__name__)

READ_HEADROOM = 8192
"""Bytes a read buffer needs beside the data of one WRITE: the headers, or any other request whole."""
COPY_BYTES = 4096
"""A reply up to this size is joined to its header; a larger one is written beside it."""
COUNTERS = 64
HEADER_BYTES = protocol.HEADER_OUT.size
_NAMES = {int(opcode): opcode.name for opcode in Opcode}
MAX_ERRNO = 512
"""The kernel takes no errno from here on."""


class Session:
    """Serves one mount. Replies and notifications may come from any thread; requests are read by one.

    ```python
    session = Session(fd, operations, pool=pool)
    mounting.mount(fd, path, options)    # first: a descriptor without a mount can't be read
    session.start()                      # or session.serve() in a thread of yours
    session.invalidate_inode(7)          # never from the reading thread: the kernel may need it to go on
    mounting.unmount(path); session.join()
    ```

    To take a mount over from a worker that died: `Session(fd, operations, pool=pool, taken_over=True, negotiated=…)`
    with what the dead worker's session had as `negotiated`, None if it died before it had any; `start()` then asks
    the kernel to send again what was in hand.
    """

    def __init__(
        self,
        fd: int,
        operations: Operations,
        *,
        pool: Executor,
        wishes: Wishes | None = None,
        taken_over: bool = False,
        negotiated: Negotiated | None = None,
        spin_seconds: float = 0.0,
        name: str = "fuse",
    ) -> None:
        """`fd` is a /dev/fuse descriptor with a mount; the caller closes it after `join`.

        `spin_seconds`: how long to look for the next request before blocking, while no answer is deferred (50 µs
        halves the time of calls that take several messages, for some CPU); 0 blocks at once. `name` is the thread's,
        and stands in log lines.
        """
        self.fd = fd
        self.negotiated = negotiated
        self.messages = [0] * COUNTERS
        """How many requests came, by opcode."""
        self._operations = operations
        self._handlers: dict[int, Handler] = {
            **{int(opcode): handler for opcode, handler in operations.handlers.items()},
            int(Opcode.INIT): self._init,
            int(Opcode.FORGET): self._forget,
            int(Opcode.BATCH_FORGET): self._batch_forget,
            int(Opcode.INTERRUPT): self._interrupt,
        }
        self._pool = pool
        self._wishes = wishes or Wishes()
        self._spin_seconds = spin_seconds
        self._name = name
        self._thread: threading.Thread | None = None
        self._reader = 0  # the ident of the reading thread
        self._deferred: dict[int, Request] = {}
        self._taken_over = taken_over
        self.live = threading.Event()
        """Set once the mount answers: after INIT, or at once on a take-over."""

    def start(self) -> None:
        """Serve in a thread of its own. On a take-over also ask the kernel for the requests that were in hand."""
        if self.negotiated is not None:
            self._operations.opened(self.negotiated)
            self.live.set()
        # Before the first read: what this session has already in hand would be sent again too, and done twice.
        if self._taken_over and not self.resend():
            log.warning("%s: this kernel can't send requests again: those the dead worker had in hand hang", self._name)
        self._thread = threading.Thread(target=self.serve, name=self._name, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the mount, in seconds; whether it came."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def serve(self) -> None:
        """Answer requests until the mount is gone. `start` runs this in a thread."""
        self._reader = threading.get_ident()
        try:
            self._read_and_answer()
        finally:
            self._reader = 0
            self._operations.closed()

    def _read_and_answer(self) -> None:
        # Everything a request needs is a local name here: this loop is most of what a lookup costs.
        fd, handlers, messages = self.fd, self._handlers, self.messages
        unpack, pack, write, writev = protocol.HEADER_IN.unpack_from, protocol.HEADER_OUT.pack, os.write, os.writev
        start, unsupported = protocol.HEADER_IN.size, _unsupported
        max_write = self.negotiated.max_write if self.negotiated else self._wishes.max_write
        buffer = bytearray(max_write + READ_HEADROOM)
        view = memoryview(buffer)
        read = self._reading(buffer)
        while got := read():
            _, opcode, unique, nodeid, uid, gid, pid, _, _ = unpack(buffer)
            if opcode < COUNTERS:
                messages[opcode] += 1
            request = Request(self, opcode, unique, nodeid, uid, gid, pid, bytes(view[start:got]))
            try:
                result = handlers.get(opcode, unsupported)(request)
            except OSError as refusal:
                result = refusal.errno or errno.EIO
            except BaseException:
                log.exception("%s: %s of node %d failed", self._name, _opcode_name(opcode), nodeid)
                result = errno.EIO
            if type(result) is bytes:
                try:
                    if len(result) <= COPY_BYTES:
                        write(fd, pack(HEADER_BYTES + len(result), 0, unique) + result)
                    else:
                        writev(fd, (pack(HEADER_BYTES + len(result), 0, unique), result))
                except OSError as error:
                    self._not_taken(error)
            elif result is not DEFERRED:
                self._answer(unique, result)

    def _reading(self, buffer: bytearray) -> Callable[[], int]:
        """A function that waits for a request, puts it into `buffer` and returns its length; 0: the mount is gone."""
        fd, buffers, readv = self.fd, [buffer], os.readv
        if not self._spin_seconds:

            def blocking() -> int:
                while True:
                    try:
                        return readv(fd, buffers)
                    except OSError as error:
                        if self._is_the_end(error):
                            return 0

            os.set_blocking(fd, True)
            return blocking

        clock, spin, deferred = time.perf_counter, self._spin_seconds, self._deferred
        poller = select.poll()
        poller.register(fd, select.POLLIN)

        def spinning() -> int:
            until = clock() + spin
            while True:
                try:
                    return readv(fd, buffers)
                except BlockingIOError:
                    # A pool thread that works on an answer needs the interpreter more than a spin does.
                    if deferred or clock() > until:
                        poller.poll()
                        until = clock() + spin
                except OSError as error:
                    if self._is_the_end(error):
                        return 0

        os.set_blocking(fd, False)
        return spinning

    def _is_the_end(self, error: OSError) -> bool:
        if error.errno in (errno.ENODEV, errno.ECONNABORTED):
            return True
        # ENOENT: the caller was killed before its request could be read.
        if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
            log.error("%s: reading from the kernel failed: %s", self._name, error)
            if error.errno in (errno.EBADF, errno.EPERM):  # closed, or never mounted: it would fail for ever
                return True
        return False

    # What the session answers itself.

    def _init(self, request: Request) -> Reply:
        body, negotiated = negotiate(request.body, self._wishes)
        if negotiated is not None:
            self.negotiated = negotiated
            self._operations.opened(negotiated)
            # The reply goes out before anybody who waits for `live` may rely on the mount.
            self._answer(request.unique, body)
            self.live.set()
            return DEFERRED
        return body

    def _forget(self, request: Request) -> Reply:
        self._operations.forget(request.nodeid, *protocol.FORGET_IN.unpack_from(request.body))
        return DEFERRED  # the kernel waits for no answer

    def _batch_forget(self, request: Request) -> Reply:
        count, _ = protocol.BATCH_FORGET_IN.unpack_from(request.body)
        first, each = protocol.BATCH_FORGET_IN.size, protocol.FORGET_ONE.size
        for nodeid, nlookup in protocol.FORGET_ONE.iter_unpack(request.body[first : first + count * each]):
            self._operations.forget(nodeid, nlookup)
        return DEFERRED

    def _interrupt(self, request: Request) -> Reply:
        # A request is read before its INTERRUPT: one that is not found was answered meanwhile.
        (unique,) = protocol.INTERRUPT_IN.unpack_from(request.body)
        target = self._deferred.get(unique)
        if target is not None and not target.interrupted:
            target.interrupted = True
            if target.on_interrupt is not None:
                target.on_interrupt()
        return DEFERRED

    # Answers from other threads.

    def postpone(self, request: Request) -> Deferred:
        """See Request.defer."""
        self._deferred[request.unique] = request
        return DEFERRED

    def submit(self, request: Request, work: Handler) -> Deferred:
        """See Request.later."""
        self._deferred[request.unique] = request
        try:
            self._pool.submit(self._work, request, work)
        except BaseException:
            del self._deferred[request.unique]
            raise
        return DEFERRED

    def _work(self, request: Request, work: Handler) -> None:
        try:
            result = work(request)
        except OSError as refusal:
            result = refusal.errno or errno.EIO
        except BaseException:
            log.exception("%s: %s of node %d failed", self._name, _opcode_name(request.opcode), request.nodeid)
            result = errno.EIO
        if result is not DEFERRED:
            self.finish(request, result)

    def finish(self, request: Request, result: Reply) -> bool:
        """See Request.reply and Request.fail."""
        if self._deferred.pop(request.unique, None) is None:
            log.error("%s: %s was answered twice, or never deferred", self._name, _opcode_name(request.opcode))
            return False
        return self._answer(request.unique, result)

    def _answer(self, unique: int, result: Reply) -> bool:
        if result is None:
            body, error = b"", 0
        elif isinstance(result, bytes):
            body, error = result, 0
        elif isinstance(result, int) and 0 < result < MAX_ERRNO:
            body, error = b"", -result
        else:
            log.error("%s: a handler returned %r", self._name, result)
            body, error = b"", -errno.EIO
        try:
            os.writev(self.fd, (protocol.HEADER_OUT.pack(HEADER_BYTES + len(body), error, unique), body))
        except OSError as refusal:
            self._not_taken(refusal)
            return False
        return True

    def _not_taken(self, error: OSError) -> None:
        """The kernel refused a reply: it no longer waits, the mount is gone, or the reply was malformed."""
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EPERM):
            log.error("%s: the kernel refused a reply, its caller gets EIO: %s", self._name, error)

    # Notifications.

    def notify(self, code: Notify, payload: bytes = b"") -> bool:
        """Tell the kernel something. False if it has nothing of the kind, or the mount is gone.

        Raises OSError for what this kernel does not know (EINVAL), and ENOTEMPTY or EBUSY for DELETE. It may wait
        for a CREATE, UNLINK or RENAME in the same directory to be answered, so it is neither for the reading thread
        (RuntimeError) nor for a pool thread which that answer needs.
        """
        if threading.get_ident() == self._reader:
            raise RuntimeError("a notification from the thread that reads requests can block it for ever")
        try:
            os.write(self.fd, protocol.HEADER_OUT.pack(HEADER_BYTES + len(payload), code, 0) + payload)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.EPERM):
                return False
            raise
        return True

    def invalidate_inode(self, nodeid: int, offset: int = 0, length: int = 0) -> bool:
        """Drop a node's attributes and cached content; a negative offset drops the attributes alone."""
        return self.notify(Notify.INVAL_INODE, protocol.inval_inode(nodeid, offset, length))

    def invalidate_entry(self, parent: int, name: bytes) -> bool:
        """Have the next lookup of a name asked for. The parent's cached listing also goes."""
        return self.notify(Notify.INVAL_ENTRY, protocol.inval_entry(parent, name))

    def delete_entry(self, parent: int, child: int, name: bytes) -> bool:
        """Say that a name is gone; unlike `invalidate_entry`, watchers of the file are told."""
        return self.notify(Notify.DELETE, protocol.delete(parent, child, name))

    def store(self, nodeid: int, data: bytes, offset: int = 0) -> bool:
        """Put content into the kernel's cache before anybody asks. False if the kernel does not hold the node."""
        return self.notify(Notify.STORE, protocol.store(nodeid, data, offset))

    def increment_epoch(self) -> bool:
        """Have every cached name of the mount asked for again. False if this kernel can't (before 6.16)."""
        return self._notify_if_known(Notify.INC_EPOCH)

    def resend(self) -> bool:
        """Have every request that was read but not answered delivered again. False if the kernel can't (before 6.9)."""
        return self._notify_if_known(Notify.RESEND)

    def _notify_if_known(self, code: Notify) -> bool:
        try:
            return self.notify(code)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False


def _unsupported(request: Request) -> Reply:
    return errno.ENOSYS


def _opcode_name(opcode: int) -> str:
    return _NAMES.get(opcode) or f"operation {opcode}"

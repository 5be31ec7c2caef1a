"""A filesystem small enough to read at a glance: one directory of files in memory, and ways to make it misbehave."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Mapping

from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.negotiation import Negotiated
from app.mount.fuse.kernel.protocol import FileType, Opcode, SetAttr
from app.mount.fuse.kernel.requests import Handler, Reply, Request

FIRST_FILE = 2


class File:
    def __init__(self, name: bytes, data: bytes) -> None:
        self.name = name
        self.data = data
        self.mtime_ns = 1_700_000_000_000_000_000


class TinyFilesystem:
    """Node IDs go up from 2 in the order of the files' names, so that a second worker gives the same ones."""

    def __init__(self, files: Mapping[str, bytes], *, cache_seconds: float = 3600) -> None:
        self.files = {
            nodeid: File(name.encode(), data) for nodeid, (name, data) in enumerate(sorted(files.items()), FIRST_FILE)
        }
        self.uid, self.gid = os.getuid(), os.getgid()
        self.entry_valid = protocol.entry_valid(cache_seconds, cache_seconds)
        self.attr_valid = protocol.attr_valid(cache_seconds)
        self.open_flags: int = protocol.OpenFlag.KEEP_CACHE
        self.references: dict[int, int] = {}
        self.forgotten = threading.Event()
        """Set when the kernel has given up every reference it had."""
        self.negotiated: Negotiated | None = None
        self.is_closed = threading.Event()
        self.before: dict[Opcode, Callable[[Request], Reply | None]] = {}
        """Asked first; an answer that is not None stands."""
        self.handlers: Mapping[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.CREATE: self._create,
            Opcode.UNLINK: self._unlink,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.STATFS: self._statfs,
            Opcode.FLUSH: lambda request: None,
            Opcode.RELEASE: lambda request: None,
            Opcode.FSYNC: lambda request: None,
        }

    # What a session calls beside the handlers.

    def opened(self, negotiated: Negotiated) -> None:
        self.negotiated = negotiated

    def closed(self) -> None:
        self.is_closed.set()

    def forget(self, nodeid: int, nlookup: int) -> None:
        self.references[nodeid] -= nlookup
        if self.references[nodeid] == 0:
            del self.references[nodeid]
        if not self.references:
            self.forgotten.set()

    # What tests call.

    def nodeid(self, name: str) -> int:
        return next(nodeid for nodeid, file in self.files.items() if file.name == name.encode())

    def __getitem__(self, name: str) -> bytes:
        return self.files[self.nodeid(name)].data

    def add(self, name: str, data: bytes) -> int:
        nodeid = max(self.files, default=FIRST_FILE) + 1
        self.files[nodeid] = File(name.encode(), data)
        return nodeid

    # Handlers.

    def _ask_first(self, request: Request) -> Reply | None:
        hook = self.before.get(Opcode(request.opcode))
        return hook(request) if hook else None

    def _attributes(self, nodeid: int) -> bytes:
        if nodeid == protocol.ROOT_ID:
            return protocol.attributes(nodeid, 0, 0, stat.S_IFDIR | 0o755, nlink=2, uid=self.uid, gid=self.gid)
        file = self.files[nodeid]
        return protocol.attributes(
            nodeid, len(file.data), file.mtime_ns, stat.S_IFREG | 0o644, uid=self.uid, gid=self.gid
        )

    def _count(self, nodeid: int) -> None:
        self.references[nodeid] = self.references.get(nodeid, 0) + 1
        self.forgotten.clear()

    def _entry(self, nodeid: int) -> bytes:
        self._count(nodeid)
        return protocol.entry_out(nodeid, self._attributes(nodeid), self.entry_valid)

    def _lookup(self, request: Request) -> Reply:
        answer = self._ask_first(request)
        if answer is not None:
            return answer
        (name,) = protocol.names(request.body)
        for nodeid, file in self.files.items():
            if file.name == name:
                return self._entry(nodeid)
        return errno.ENOENT

    def _getattr(self, request: Request) -> Reply:
        return protocol.attr_out(self._attributes(request.nodeid), self.attr_valid)

    def _setattr(self, request: Request) -> Reply:
        fields = protocol.SETATTR_IN.unpack_from(request.body)
        if fields[0] & SetAttr.SIZE:
            file = self.files[request.nodeid]
            file.data = file.data[: fields[3]].ljust(fields[3], b"\0")
        return self._getattr(request)

    def _open(self, request: Request) -> Reply:
        flags, _ = protocol.OPEN_IN.unpack_from(request.body)
        if flags & os.O_TRUNC:
            self.files[request.nodeid].data = b""
        return protocol.open_out(request.nodeid, self.open_flags)

    def _read(self, request: Request) -> Reply:
        answer = self._ask_first(request)
        return self.content(request) if answer is None else answer

    def content(self, request: Request) -> bytes:
        """What a READ asks for."""
        _, offset, size, *_ = protocol.READ_IN.unpack_from(request.body)
        return self.files[request.nodeid].data[offset : offset + size]

    def _write(self, request: Request) -> Reply:
        answer = self._ask_first(request)
        if answer is not None:
            return answer
        _, offset, size, *_ = protocol.WRITE_IN.unpack_from(request.body)
        data = request.body[protocol.WRITE_IN.size :]
        assert len(data) == size
        file = self.files[request.nodeid]
        file.data = file.data[:offset].ljust(offset, b"\0") + data + file.data[offset + size :]
        return protocol.write_out(size)

    def _create(self, request: Request) -> Reply:
        (name,) = protocol.names(request.body, protocol.CREATE_IN.size)
        nodeid = self.add(name.decode(), b"")
        return self._entry(nodeid) + protocol.open_out(nodeid)

    def _unlink(self, request: Request) -> Reply:
        (name,) = protocol.names(request.body)
        del self.files[self.nodeid(name.decode())]
        return None

    def _listing(self, request: Request, record: Callable[[int, int, File], bytes]) -> list[tuple[int, bytes]]:
        """As many records, each with its node ID, as the request has room for."""
        _, offset, size, *_ = protocol.READ_IN.unpack_from(request.body)
        listed: list[tuple[int, bytes]] = []
        for position, (nodeid, file) in enumerate(list(self.files.items())[offset:], offset + 1):
            piece = record(nodeid, position, file)
            size -= len(piece)
            if size < 0:
                break
            listed.append((nodeid, piece))
        return listed

    def _readdir(self, request: Request) -> Reply:
        def record(nodeid: int, position: int, file: File) -> bytes:
            return protocol.dirent(nodeid, position, FileType.REGULAR, file.name)

        return b"".join(piece for _, piece in self._listing(request, record))

    def _readdirplus(self, request: Request) -> Reply:
        def record(nodeid: int, position: int, file: File) -> bytes:
            entry = protocol.entry_out(nodeid, self._attributes(nodeid), self.entry_valid)
            return protocol.direntplus(entry, nodeid, position, FileType.REGULAR, file.name)

        listed = self._listing(request, record)
        for nodeid, _ in listed:
            self._count(nodeid)
        return b"".join(piece for _, piece in listed)

    def _statfs(self, request: Request) -> Reply:
        return protocol.statfs_out(blocks=100, free=60, files=50, files_free=40, block_size=4096, name_max=255)

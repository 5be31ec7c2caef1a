"""What was accepted and the server has not acknowledged, on local disk until it has.

One file of records, each: a tag, the lengths of its header and its content, a check sum over all of it, the header
as JSON, the content. An intent is on disk when `append` returns. That one is done is written without waiting: after
a crash of the machine it is tried again, and found to be there.
"""

import contextlib
import fcntl
import json
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.contract.showing import escaped
from app.mount.sync.errors import MountError
from app.mount.sync.intents import Intent

_TAG = b"\xffmsj\xfe\x01\r\n"
"""Begins each record. Its first byte is in no UTF-8 text, so that it is found again behind a damaged record."""
_FIXED = struct.Struct("<8sIII")

_NEW = "journal.new"
_DONE = "done"
_SENT = "sent_for"
_COMPACT_BYTES = 1 << 20
"""What is done and still in the file is at most this, or as much as what is pending."""
_NAMED = 10
"""How many unsaved paths a sentence names."""
_log = logging.getLogger(__name__)


class JournalFull(Exception):
    """The journal's bound or the disk leaves no room."""


@dataclass(frozen=True, slots=True)
class _Record:
    start: int
    header: dict[str, Any]
    content_start: int
    end: int


class Journal:
    """The journal of one attachment. Thread-safe. One process at a time: it holds a lock on its directory."""

    def __init__(self, directory: Path, *, max_bytes: int = 256 << 20) -> None:
        """Read what an earlier process left.

        directory: made (0700) if it is missing. max_bytes: of what is pending.

        Raises:
            MountError: another process uses the directory, or it can't be used.

        """
        self._path = directory / "journal"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._live: dict[int, _Record] = {}
        self._live_bytes = 0
        self._synced_to = 0
        self._sent: dict[int, list[str]] = {}
        self._is_closed = False
        self.damage: list[str] = []
        """What could not be read, in words; the bytes are kept beside the journal."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._path.with_name(_NEW).unlink(missing_ok=True)
                self._end = self._recover()
                if self._end > self._live_bytes:
                    self._compact()  # nothing stays of what is done, nor of damage that was reported
            except BaseException:
                os.close(self._held)
                raise
            _sync_directory(directory)
        except BlockingIOError:
            raise MountError(f"another process has {directory} open: it serves the same mount") from None
        except OSError as error:
            raise MountError(f"the journal in {directory} can't be used: {error}") from error

    def close(self) -> None:
        """Give the directory free. What comes later is refused or, if it is only a note, left out."""
        with self._sync_lock, self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            os.close(self._file)
            os.close(self._held)

    # Writing

    def append(self, intent: Intent) -> None:
        """Keep an intent, which must have its content; on disk when this returns.

        Raises:
            JournalFull: there is no room.

        """
        record = _encode(intent.header(), intent.content or b"")
        with self._lock:
            if self._live_bytes + len(record) > self._max_bytes:
                raise JournalFull(f"what is pending would be over {self._max_bytes:,} bytes")
            start = self._write(record)
            content_start = start + len(record) - len(intent.content or b"")
            self._live[intent.number] = _Record(start, {}, content_start, start + len(record))
            self._live_bytes += len(record)
            end = self._end
        try:
            self._sync(end)
        except JournalFull:
            self.done(intent.number)
            raise

    def _write(self, record: bytes) -> int:
        start = self._end
        if self._is_closed:
            raise JournalFull("the mount has ended")
        try:
            written = 0
            while written < len(record):
                written += os.pwrite(self._file, record[written:], start + written)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, start)
            raise JournalFull(str(error)) from error
        self._end = start + len(record)
        return start

    def _sync(self, end: int) -> None:
        """Many writers share one call to the disk: a writer that arrives during a sync is covered by the next one."""
        with self._sync_lock:
            if self._synced_to >= end:
                return
            if self._is_closed:
                raise JournalFull("the mount has ended")
            with self._lock:
                reached = self._end
            try:
                os.fdatasync(self._file)
            except OSError as error:
                raise JournalFull(str(error)) from error
            self._synced_to = reached

    def sent(self, number: int, sha256: str) -> None:
        """A text with this digest is sent in place of a pending intent's own. Survives a crash of the process."""
        with self._lock:
            self._sent.setdefault(number, []).append(sha256)
            with contextlib.suppress(JournalFull):
                self._write(_encode({_SENT: number, "sha256": sha256}, b""))

    def done(self, number: int) -> None:
        """The server has it, or it is kept elsewhere."""
        with self._sync_lock, self._lock:
            if self._is_closed:
                return
            record = self._live.pop(number)
            self._sent.pop(number, None)
            self._live_bytes -= record.end - record.start
            if not self._live:
                # Nothing is pending: an empty journal says so as well as a record does.
                os.ftruncate(self._file, 0)
                self._end = self._synced_to = 0
                return
            with contextlib.suppress(JournalFull):  # it is then tried again, and found to be there
                self._write(_encode({_DONE: number}, b""))
            if self._end > _COMPACT_BYTES and self._end > 2 * self._live_bytes:
                self._compact()

    def _compact(self) -> None:
        """Copy what is live into a new file, which then takes the place of the old one."""
        path = self._path.with_name(_NEW)
        try:
            new = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # no room: the old file goes on
        live: dict[int, _Record] = {}
        end = 0
        try:
            for number, record in self._live.items():
                data = os.pread(self._file, record.end - record.start, record.start)
                if os.pwrite(new, data, end) != len(data):
                    raise OSError("short write")
                shift = end - record.start
                live[number] = _Record(end, record.header, record.content_start + shift, record.end + shift)
                end += len(data)
            notes = [_encode({_SENT: number, "sha256": each}, b"") for number, s in self._sent.items() for each in s]
            for note in notes:
                end += os.pwrite(new, note, end)
            os.fdatasync(new)
            path.replace(self._path)
            _sync_directory(path.parent)
        except OSError:
            os.close(new)
            with contextlib.suppress(OSError):
                path.unlink()
            return
        os.close(self._file)
        self._file, self._live, self._end, self._synced_to = new, live, end, end

    # Reading

    def content(self, number: int) -> bytes:
        """The content of a pending intent; raises KeyError if it is none."""
        with self._lock:
            if self._is_closed:
                raise KeyError(number)
            record = self._live[number]
            return os.pread(self._file, record.end - record.content_start, record.content_start)

    def pending(self) -> list[Intent]:
        """The intents that were pending when the journal was opened, in their order."""
        with self._lock:
            intents = [Intent.of_header(self._live[number].header) for number in sorted(self._live)]
            for intent in intents:
                intent.sent += self._sent.get(intent.number, [])
            return intents

    def left(self) -> list[str]:
        """A sentence that names what was pending when the journal was opened; none if nothing was."""
        paths = sorted({escaped(intent.name) for intent in self.pending()})
        if not paths:
            return []
        named = ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else "")
        return [f"not saved, and still in the journal in {self._path.parent}: {named}"]

    @property
    def last_number(self) -> int:
        """Of the pending intents; new ones must have a greater number."""
        with self._lock:
            return max(self._live, default=0)

    def _recover(self) -> int:
        """Read all records; where the good ones end."""
        data = self._path.read_bytes()
        end = 0
        for record in _records(data):
            if record.start > end:
                self._report(data, end, record.start)
            end = record.end
            if _DONE in record.header:
                self._live.pop(record.header[_DONE], None)
            elif _SENT in record.header:
                self._sent.setdefault(record.header[_SENT], []).append(record.header["sha256"])
            else:
                self._live[record.header["number"]] = record
        if _is_whole(data, end):
            self._report(data, end, len(data))
        self._live_bytes = sum(record.end - record.start for record in self._live.values())
        self._sent = {number: sent for number, sent in self._sent.items() if number in self._live}
        if not self._live and not self.damage:
            end = 0
        os.ftruncate(self._file, end)  # what is behind was never accepted: its writer had no answer
        self._synced_to = end
        return end

    def _report(self, data: bytes, start: int, end: int) -> None:
        kept = self._path.with_name(f"journal.damaged-{time.time_ns()}")
        kept.write_bytes(data[start:end])
        kept.chmod(0o600)
        message = f"bytes {start} to {end} of the journal are damaged; they are kept in {kept}"
        self.damage.append(message)
        _log.error("%s", message)


def _encode(header: dict[str, Any], content: bytes) -> bytes:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    check = zlib.crc32(content, zlib.crc32(text, len(text)))
    return b"".join((_FIXED.pack(_TAG, len(text), len(content), check), text, content))


def _records(data: bytes) -> Iterator[_Record]:
    """Every good record; what is between two of them is damaged."""
    position = data.find(_TAG)
    while position >= 0:
        record = _decode(data, position)
        if record is not None:
            yield record
        position = data.find(_TAG, record.end if record else position + 1)


def _decode(data: bytes, start: int) -> _Record | None:
    if len(data) - start < _FIXED.size:
        return None
    _, header_size, content_size, check = _FIXED.unpack_from(data, start)
    middle = start + _FIXED.size + header_size
    end = middle + content_size
    text = data[start + _FIXED.size : middle]
    if end > len(data) or zlib.crc32(data[middle:end], zlib.crc32(text, header_size)) != check:
        return None
    return _Record(start, json.loads(text), middle, end)


def _is_whole(data: bytes, start: int) -> bool:
    """Whether the bad record at the end has its full length: then it is damaged and not only torn."""
    if len(data) - start < _FIXED.size:
        return False
    tag, header_size, content_size, _ = _FIXED.unpack_from(data, start)
    return bool(tag == _TAG) and start + _FIXED.size + header_size + content_size <= len(data)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

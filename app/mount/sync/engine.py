"""The sync engine of one attached store, which FUSE and mirror share (docs/mount.md).

It shows a view of the store: the server's state, kept current by the change feed, with what is not yet on the
server over it. Whatever `save`, `remove` or `rename` accepts is on the server or in the journal when they return.
"""

import errno
import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.client.failures import ApiError, Away, Forbidden, Missing, Unauthorized
from app.mount.door.api import StoreApi
from app.mount.door.entries import Change, Entry
from app.mount.sync import rules
from app.mount.sync.conflicts import SEGMENT_MAX_BYTES
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.contents import Contents
from app.mount.sync.delivery import Delivery, Policy
from app.mount.sync.errors import MountError, Refused
from app.mount.sync.feed import LOST, Follower
from app.mount.sync.intents import Base, Intent, Kind
from app.mount.sync.journal import Journal
from app.mount.sync.kept import KeptTexts
from app.mount.sync.notices import Notices
from app.mount.sync.remembered import Remembered
from app.mount.sync.state import StoreState
from app.mount.sync.uploader import Uploader

__all__ = ["Policy", "StoreEngine"]

_FOLLOWING_SECONDS = 2.0
"""How long a start waits for the feed; it goes on without."""


_REFUSED = ("path", "operation", "reason", "errno", "at", "place")
"""What the status tells of a refusal."""


class StoreEngine:
    """One attached store. Thread-safe; front ends call it from any thread.

    Set `on_change` and `on_feed` before `start`.
    """

    def __init__(
        self,
        api: StoreApi,
        *,
        directory: Path,
        content_cache: ContentCache,
        read_only: bool,
        label: str,
        policy: Policy = Policy.MERGE,
        poll_seconds: float = 1.0,
        journal_max_bytes: int = 256 << 20,
        kept: KeptTexts | None = None,
    ) -> None:
        """Nothing is read or started yet.

        directory: on local disk, for this attachment alone: journal and state. Made if it is missing (0700).
        content_cache: may be shared by all stores of a daemon.
        label: a short session ID, for the names of conflict files.
        poll_seconds: between two looks at a server that has no change feed.
        journal_max_bytes: of what is accepted and not on the server.
        kept: where texts stay that can't be saved; it outlives this attachment. None: below `directory`.
        """
        self.kept = kept or KeptTexts(directory / "kept")
        """What could not be saved; front ends put there what they could not."""
        self.on_change: Callable[[list[Change]], None] = lambda changes: None
        """Called after the view changed by somebody else, or because a conflict gave a path another text.

        Never for what the front end did itself. Called from a thread of the engine with none of its locks held,
        one call at a time, in the order of the changes; it may call the engine, but must not wait for another
        thread that does.
        """
        self.on_feed: Callable[[str], None] = lambda mode: None
        """Called from a thread of the engine when the feed becomes "live", "polling" or "lost"."""
        self.on_gone: Callable[[], None] = lambda: None
        """Called when the server says that the store is gone; keep nothing of it."""
        self._api = api
        self._directory = directory
        self._cache = content_cache
        self._read_only = read_only
        self._label = label
        self._policy = policy
        self._poll_seconds = poll_seconds
        self._journal_max_bytes = journal_max_bytes
        self._lock = threading.RLock()
        self._state = StoreState()
        self._remembered = Remembered(directory, api.store_id)
        self._state.on_remote = self._remembered.note
        self._notices = Notices(self._state, self._lock, lambda changes: self.on_change(changes))
        self._has_swept = False
        self._journal: Journal
        self._uploader: Uploader
        self._delivery: Delivery
        self._follower: Follower
        self._contents: Contents

    def start(self) -> None:
        """Take a snapshot, replay the journal behind it, and follow the feed.

        Returns when the view is complete. Without the server it starts from the state on disk, if there is one.

        Raises:
            MountError: no server and no state on disk, the store is not there, the token is no good, or another
                engine holds `directory`.

        """
        self._journal = Journal(self._directory, max_bytes=self._journal_max_bytes)
        try:
            self._delivery = Delivery(
                self._api,
                self._state,
                self._lock,
                self._cache,
                label=self._label,
                policy=self._policy,
                content=lambda intent: self._uploader.content(intent),
                note_sent=lambda intent, sha256: self._uploader.note_sent(intent, sha256),
            )
            self._uploader = Uploader(
                self._delivery,
                self._state,
                self._lock,
                self._journal,
                kept=self.kept,
                announce=self._announce,
            )
            self._contents = Contents(self._api, self._cache, self._uploader.find)
            self._follower = Follower(
                self._api,
                self._state,
                self._lock,
                announce=self._announce,
                on_mode=self._note_feed,
                on_gone=self._forget,
                on_refused=self._drop_everything,
                poll_seconds=self._poll_seconds,
            )
            self._cache.add_user(self._api.store_id, self._state.uses)
            is_current = self._load()
        except BaseException:
            self._cache.remove_user(self._api.store_id, self._state.uses)
            self._journal.close()
            self._api.close()
            raise
        self._notices.is_open = True
        self._uploader.replay(self._journal.pending(), is_away=not is_current)
        self._follower.start()
        if is_current:
            self._contents.prefetch(self._state.remote_entries())
            self._follower.wait_until_following(_FOLLOWING_SECONDS)

    def _load(self) -> bool:
        """Whether the server gave the state, and not only the disk."""
        remembered = self._remembered.load()
        with self._lock:
            for entry in remembered or ():  # whatever was erased meanwhile, a write of then descends from it
                self._state.note_past(entry)
        try:
            self._follower.take_snapshot()
        except (Unauthorized, Forbidden) as error:
            self._drop_everything()
            refused = f"the token does not open the store {self._api.store_id}: {error.message}"
            raise MountError("; ".join([refused, *self._journal.left()])) from error
        except Missing as error:
            self._forget()
            refused = f"there is no store {self._api.store_id} for this token: {error.message}"
            raise MountError("; ".join([refused, *self._journal.left()])) from error
        except Away as error:
            if remembered is None:
                raise MountError(f"the server does not answer: {error.message}") from error
            self._state.apply_listing(remembered, self._state.tick(), None)
            self._remember()
            return False
        except ApiError as error:
            raise MountError(f"the store {self._api.store_id} can't be read: {error.message}") from error
        self._remember()
        return True

    def _remember(self) -> None:
        with self._lock:
            self._remembered.begin(self._state.remote_entries())

    def _announce(self) -> None:
        with self._lock:
            unused = self._state.take_unused()
        if unused:
            self._cache.drop_unused(self._api.store_id, unused)
        self._notices.announce()

    def _forget(self) -> None:
        """The server no longer has the store: neither has this host, but for what is not saved."""
        self._drop_everything()
        self.on_gone()

    def _drop_everything(self) -> None:
        """Keep nothing of the store but what is not saved: neither in memory nor on disk."""
        with self._lock:
            self._remembered.forget()
            self._state.apply_listing((), self._state.tick(), None)
        self._announce()
        self._cache.drop_store(self._api.store_id)

    def _note_feed(self, mode: str) -> None:
        if mode == LOST:
            self._cache.flush()  # a successor of this process could not fetch it
        else:
            if not self._remembered.is_open:
                self._remember()
            if not self._has_swept:
                self._has_swept = True
                sweep = threading.Thread(target=self._cache.sweep, args=[self._api.store_id], daemon=True)
                sweep.start()
            self._uploader.server_answers()
            self._contents.prefetch(self._state.remote_entries())
        self.on_feed(mode)

    def stop(self, timeout: float, *, keep: bool = True) -> list[str]:
        """Send what is pending for at most `timeout` seconds, then end the threads.

        keep: leave on disk what a start without the server needs. Else, if all is saved, nothing stays of the store.
        Returns the paths that are not on the server; they stay in the journal for the next start.
        """
        left = self._uploader.stop(timeout)
        self._follower.stop(1.0)
        keep = keep or bool(left)
        with self._lock:
            if keep:
                self._remembered.end()
            else:
                self._remembered.forget()
        self._cache.remove_user(self._api.store_id, self._state.uses, keep=keep)
        self._journal.close()
        self._api.close()
        return left

    # Reading

    def view(self) -> Mapping[str, Entry]:
        """Every path and its entry, what is pending included: a copy that does not change."""
        with self._lock:
            return self._state.copy()

    def get(self, path: str) -> Entry | None:
        """The entry at the path, without waiting for anything; None if there is none."""
        return self._state.view.get(path)

    def at_hand(self, entry: Entry) -> bytes | None:
        """The entry's content if it is in memory or on local disk; never asks the network."""
        return self._contents.at_hand(entry.sha256)

    def fetch(self, entry: Entry) -> bytes:
        """The entry's content; may wait for the network.

        Raises:
            Offline: it is not at hand and the server does not answer.
            Refused: ESTALE if neither the memory nor its version has this content now, EACCES if it may no
                longer be read.

        """
        return self._contents.fetch(entry)

    def is_stored(self, entry: Entry) -> bool:
        """Whether the entry is what the server has now, as far as it is known: its history has the content then.

        Without waiting for anything; wrongly False for a moment while that changes.
        """
        there = self._state.remote_by_id(entry.memory_id)
        return there is not None and (there.version_id, there.sha256) == (entry.version_id, entry.sha256)

    def author(self, entry: Entry) -> str | None:
        """The author of the version that the entry shows: the type of the actor, a colon, its ID. Asks the server.

        None if the server does not have it, no longer has it, or does not say. Raises as `fetch` does.
        """
        with self._lock:
            there = self._state.remote(entry.path)
        return None if there is None or there.sha256 != entry.sha256 else self._contents.author(there)

    # Writing

    def save(
        self, path: str, data: bytes, base: Entry | None, *, base_text: bytes | None = None, durable: bool = False
    ) -> Entry:
        """Write a file's whole new content: one version, or none if it is what is there already.

        base: what the writer opened; None: there must be nothing at the path. If the view has gone on since, the
            policy decides. The entry that comes back can therefore hold another text than `data`, when it was
            merged, and another path, when somebody renamed the memory.
        base_text: the content of `base` (UTF-8), where the server may never have had it (see `is_stored`): a text of
            ours that was, or will be, merged on its way.
        durable: return only when the server has it. Else what the server has not answered within 50 ms, or
            can't be asked now, is in the journal when this returns.

        Raises:
            Refused: EROFS (read-only, archived), EFBIG, EILSEQ, EINVAL, ENAMETOOLONG (content and path rules),
                ENOTDIR, EISDIR (a file where a directory should be, or the reverse), EDQUOT (full), EACCES (no
                right now), ESTALE (store gone; policy FAIL; a conflict that could not be merged: the server's
                text is at the path, ours in a conflict file, and `on_change` tells both), ENOSPC (journal full).
            Offline: `durable` and the server does not answer; the text is in the journal all the same.

        """
        self._check_writable()
        rules.check_path(path)
        rules.check_content(data)
        sha256 = hashlib.sha256(data).hexdigest()
        current = self._state.view.get(path)
        if base is not None and current is not None and base.sha256 == current.sha256 == sha256:
            return current
        self._cache.put(self._api.store_id, sha256, data)
        intent = Intent(
            0,
            Kind.SAVE,
            path,
            base=None if base is None else Base.of(base),
            base_text=base_text,
            sha256=sha256,
            size=len(data),
            content=data,
        )
        entry = self._uploader.submit(intent, durable=durable)
        assert entry is not None
        return entry

    def remove(self, entry: Entry) -> None:
        """Delete the memory, if it still is what `entry` says: an edit by somebody else beats the delete.

        Nothing happens if it is gone already. Raises `Refused` as `save` does.
        """
        if self._read_only:
            raise Refused(errno.EROFS, "the store is attached read-only")
        self._uploader.submit(Intent(0, Kind.REMOVE, entry.path, base=Base.of(entry)))

    def rename(self, entry: Entry, new_path: str, *, onto: Entry | None = None) -> Entry:
        """Give the memory another path; it keeps its ID. Returns what is at `new_path` then.

        onto: the entry at `new_path` that is replaced: it keeps its ID and gets the content; the source is
            deleted.

        Raises:
            Refused: as `save`; ENOENT if `entry` is gone, EEXIST if something is at `new_path` and `onto` is None.
            Offline: `onto` is given, the content is not at hand and the server does not answer.

        """
        self._check_writable()
        rules.check_path(new_path)
        if onto is None and new_path in self._state.view:
            raise Refused(errno.EEXIST, f"{new_path} is there already")
        if entry.path == new_path:
            return entry
        intent = Intent(
            0,
            Kind.RENAME if onto is None else Kind.REPLACE,
            entry.path,
            new_path,
            base=Base.of(entry),
            target=None if onto is None else Base.of(onto),
            sha256=entry.sha256,
            size=entry.size,
            mtime_ns=entry.mtime_ns,
            content=None if onto is None else self.fetch(entry),
        )
        result = self._uploader.submit(intent)
        if result is None:
            raise Refused(errno.ENOENT, f"{entry.path} is gone")
        return result

    def rename_tree(self, old: str, new: str) -> None:
        """Rename everything below a directory, in one transaction where the server can.

        old, new: both start and end with `/`; nothing may be at or below `new`.

        Raises:
            Refused: as `rename`; ENOTEMPTY if something is below `new`.

        """
        self._check_writable()
        with self._lock:
            moves = [entry for path, entry in self._state.view.items() if path.startswith(old)]
        for entry in moves:
            rules.check_path(new + entry.path[len(old) :])
        if moves:
            self._uploader.submit(Intent(0, Kind.TREE, old, new, moves=moves))

    def _check_writable(self) -> None:
        if self._read_only:
            raise Refused(errno.EROFS, "the store is attached read-only")
        if self._delivery.archived or self._follower.archived:
            raise Refused(errno.EROFS, "the store is archived")

    def flush(self, timeout: float | None) -> list[str]:
        """Wait until everything accepted before this call is on the server.

        timeout: seconds; None waits for ever. Returns the paths still not on the server, and those refused
        since the start after they had been accepted; empty means all is saved.
        """
        return self._uploader.flush(timeout)

    def status(self) -> dict[str, Any]:
        """What an administrator wants to know, ready for JSON.

        `memory_store_id`, `read_only`, `archived`, `gone` (deleted), `connected` (bool), `feed` ("live", "polling" or
        "lost"), `seq`, `memories` (count), `pending` (paths), `conflicts` ([{path, conflict_path, at}]), `refused`
        ([{path, operation, reason, errno, at, place}]: what was refused and is kept on this host), `kept` (the same,
        as `Kept.to_json`), `last_sync` (RFC 3339 or null: when the server last took a write), `unshowable` (paths
        with a segment over 255 bytes, or that the contract does not allow, escaped), `journal_damage` (texts).
        """
        kept = [one.to_json() for one in self.kept.list()]
        with self._lock:
            return {
                "memory_store_id": self._api.store_id,
                "read_only": self._read_only,
                "archived": self._delivery.archived or self._follower.archived,
                "gone": self._follower.is_gone,
                "connected": self._follower.mode != LOST and not self._uploader.is_away,
                "feed": self._follower.mode,
                "seq": self._state.seq,
                "memories": len(self._state.view),
                "pending": self._uploader.pending(),
                "conflicts": list(self._delivery.conflicts),
                "refused": [
                    {name: one[name] for name in ("path", "operation", "reason", "errno", "at", "place")}
                    for one in kept
                ],
                "kept": kept,
                "last_sync": self._uploader.last_sync,
                "unshowable": [path for path in self._state.view if _is_unshowable(path)]
                + list(self._follower.odd.values()),
                "journal_damage": list(self._journal.damage),
            }


def _is_unshowable(path: str) -> bool:
    return len(path) * 4 > SEGMENT_MAX_BYTES and any(
        len(segment.encode()) > SEGMENT_MAX_BYTES for segment in path.split("/")
    )

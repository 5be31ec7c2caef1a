"""Bringing one accepted write to the server, whatever happened there meanwhile."""

import contextlib
import errno
import hashlib
import threading
from collections.abc import Callable
from enum import Enum

from app.client.failures import ApiError, Away, Changed, Missing, PathTaken, Rejected, Unauthorized
from app.contract.limits import CONTENT_MAX_BYTES
from app.mount.door.api import StoreApi
from app.mount.door.entries import Entry
from app.mount.sync import merge, rules
from app.mount.sync.beside import Beside
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.erasures import Erasures
from app.mount.sync.errors import Erased, Refused
from app.mount.sync.intents import Base, Intent, Kind
from app.mount.sync.state import StoreState

_ROUNDS = 50
"""Each round but the last means that somebody else wrote in between."""


class Policy(Enum):
    """What happens to a write whose file somebody else changed meanwhile."""

    MERGE = "merge"
    """Merged by lines; what can't be merged is kept beside the server's text as a conflict file."""
    LAST_WRITER_WINS = "last-writer-wins"
    """Ours replaces the server's, which stays in the history."""
    FAIL = "fail"
    """Refused with ESTALE. What was accepted before the server could be asked is kept as a conflict file."""


class KeptBeside(Refused):
    """The text could not go where it should, and is in a conflict file."""


class Delivery:
    """Delivers the intents of one store. Thread-safe; intents that touch the same path come one after another."""

    def __init__(
        self,
        api: StoreApi,
        state: StoreState,
        lock: threading.RLock,
        cache: ContentCache,
        *,
        label: str,
        policy: Policy,
        content: Callable[[Intent], bytes],
        note_sent: Callable[[Intent, str], None],
    ) -> None:
        """Make one; nothing is sent yet.

        label: for the names of conflict files. content: gives an intent's content. note_sent: keeps the digest
        of a text that is sent in place of an intent's own.
        """
        self._api = api
        self._state = state
        self._lock = lock
        self._cache = cache
        self._policy = policy
        self._content = content
        self._note_sent = note_sent
        self._erasures = Erasures()
        state.on_erased = self._note_erased
        self.archived = False
        self._beside = Beside(api, state, lock, cache, label=label, read_again=self._read_again)
        self.conflicts = self._beside.conflicts

    def deliver(self, intent: Intent) -> Entry | None:
        """Do it; what is at the intent's last path then, None if nothing.

        Raises:
            Away: the server did not answer: deliver it again later. Also when the token is no longer valid and
                the intent is in the journal: there may be a new one.
            Refused: it can't be done, and trying again would not help.

        """
        try:
            match intent.kind:
                case Kind.SAVE:
                    return self._save(intent, intent.path, intent.base)
                case Kind.REMOVE:
                    self._remove(intent)
                case Kind.RENAME:
                    return self._rename(intent)
                case Kind.REPLACE:
                    return self._replace(intent)
                case Kind.TREE:
                    self._rename_tree(intent)
            return None
        except Away:
            intent.attempted = True
            raise
        except Unauthorized as error:
            if intent.journaled:
                raise Away(error.status, error.message) from error
            raise rules.refusal(error, intent.name, archived=False) from error
        except ApiError as error:
            raise self._refusal(error, intent.name) from error

    def _refusal(self, error: ApiError, path: str) -> Refused:
        if isinstance(error, Rejected) and not self.archived:
            with contextlib.suppress(ApiError):  # the first error says enough
                self.archived = self._api.store().get("archived_at") is not None
        return rules.refusal(error, path, archived=self.archived and isinstance(error, Rejected))

    # What the server has

    def _known(self, base: Base | None, path: str) -> Entry | None:
        """The memory an intent is about: by its ID wherever it is now, else what is at the path."""
        with self._lock:
            if base is not None and base.memory_id is not None:
                return self._state.remote_by_id(base.memory_id)
            return self._state.remote(path)

    def _read_again(self, memory_id: str) -> Entry | None:
        try:
            memory = self._api.retrieve(memory_id)
        except Missing as error:
            self._note_gone(memory_id, error)
            return None
        if memory.content is not None:
            self._cache.put(self._api.store_id, memory.entry.sha256, memory.content)
        with self._lock:
            self._state.apply_answer(memory.entry)
            return self._state.remote_by_id(memory_id)

    def _note_erased(self, entry: Entry) -> None:
        text = self._cache.get(self._api.store_id, entry.sha256)
        if text is not None:
            self._erasures.note(entry.path, text)

    def _note_gone(self, memory_id: str, error: Missing) -> None:
        with self._lock:
            if error.erased:
                self._state.note_erased(memory_id)
            else:
                self._state.apply_gone(memory_id)

    def _refuse_erased(self, path: str, *bases: Base | None) -> None:
        """Send nothing that descends from an erased memory: an edit beats a delete, but never an erasure.

        A base that the state no longer knows is asked for; one without an ID was of our own making, and is the
        memory that was last seen at the path.

        Raises:
            Erased: one of them was erased.

        """
        for base in bases:
            if base is None:
                continue
            with self._lock:
                memory_id = base.memory_id
                if memory_id is None and self._state.remote(path) is None:
                    memory_id = self._state.past(path)
                if memory_id is None or self._state.remote_by_id(memory_id) is not None:
                    continue
                is_known = memory_id in self._state.erased
            if not is_known:
                try:
                    self._api.retrieve(memory_id, full=False)
                except Missing as error:
                    self._note_gone(memory_id, error)
                    is_known = error.erased
            if is_known:
                raise Erased(path)

    def _text(self, entry: Entry) -> bytes | None:
        """What the memory holds; None if it holds something else by now."""
        data = self._cache.get(self._api.store_id, entry.sha256)
        if data is None and entry.memory_id is not None:
            again = self._read_again(entry.memory_id)
            if again is not None and again.sha256 == entry.sha256:
                data = self._cache.get(self._api.store_id, entry.sha256)
        return data

    def _base_text(self, intent: Intent, base: Base) -> bytes | None:
        """What the writer started from; None if nobody has it now."""
        if intent.base_text is not None and intent.base is not None and intent.base.sha256 == base.sha256:
            return intent.base_text
        data = self._cache.get(self._api.store_id, base.sha256)
        if data is None and base.version_id is not None:
            try:
                data = self._api.version_content(base.version_id)
            except Missing:
                return None
        return data if data is not None and hashlib.sha256(data).hexdigest() == base.sha256 else None

    def _is_in_history(self, memory_id: str, intent: Intent, base: Base | None) -> bool:
        """Whether an attempt without an answer did succeed: the memory had the text since the base."""
        sent = {intent.sha256, *intent.sent}
        for version_id, digest in self._api.latest_versions(memory_id):
            if base is not None and version_id == base.version_id:
                return False
            if digest in sent:
                return True
        return False

    # Saving

    def _save(self, intent: Intent, path: str, base: Base | None) -> Entry:
        data, sha256, opened = self._content(intent), intent.sha256, base
        assert sha256 is not None
        own = sha256
        for _ in range(_ROUNDS):
            self._refuse_erased(path, opened)
            with self._lock:
                if opened is None and self._erasures.descends(path, data):
                    raise Erased(path)
            with self._lock:
                # Wherever the memory is now; deleted meanwhile, the edit wins, or meets what is new at the path.
                current = self._known(base, path) or self._state.remote(path)
            if current is not None:
                if current.sha256 == sha256:
                    return current
                if base is None or current.sha256 != base.sha256:
                    assert current.memory_id is not None
                    if intent.attempted and self._is_in_history(current.memory_id, intent, opened):
                        return current
                    theirs = self._text(current)
                    if theirs is None:
                        continue  # it has changed again
                    # The next write may be based on ours, which is known to nobody else once it is merged.
                    self._cache.put(self._api.store_id, own, self._content(intent))
                    data = self._resolve(intent, path, base, theirs, data)
                    sha256 = hashlib.sha256(data).hexdigest()
                    base = Base.of(current)
                    self._note_sent(intent, sha256)
            with self._lock:
                intent.expected[path if current is None else current.path] = sha256
            entry = self._write(path, data, current)
            if entry is not None:
                self._cache.put(self._api.store_id, sha256, data)
                return entry
        raise Away(0, f"{path} is written by others all the time")

    def _write(self, path: str, data: bytes, current: Entry | None) -> Entry | None:
        """One attempt; None if somebody else was faster, which is in the state then."""
        try:
            if current is None:
                memory = self._api.create(path, data)
            else:
                assert current.memory_id is not None
                memory = self._api.update(current.memory_id, data=data, expected_sha256=current.sha256)
        except PathTaken as error:
            if current is not None or error.conflicting_path != path:
                raise
            self._read_again(error.conflicting_memory_id)
            return None
        except (Changed, Missing):
            if current is None:
                raise
            assert current.memory_id is not None
            if self._read_again(current.memory_id) is None:
                self._api.store()  # raises Missing where the whole store is gone
            return None
        with self._lock:
            self._state.apply_answer(memory.entry)
            return self._state.remote_by_id(memory.entry.memory_id) or memory.entry

    def _resolve(self, intent: Intent, path: str, base: Base | None, theirs: bytes, ours: bytes) -> bytes:
        """What to write where somebody else wrote meanwhile.

        Raises:
            KeptBeside: ours can't go to the path and is in a conflict file.
            Refused: ESTALE: the policy refuses it, and its writer still waits to be told.

        """
        if self._policy is Policy.LAST_WRITER_WINS:
            return ours
        if self._policy is Policy.MERGE:
            before = None if base is None else self._base_text(intent, base)
            merged = None if before is None else merge.merge(before, ours, theirs)
            if merged is not None and len(merged) <= CONTENT_MAX_BYTES:
                return merged
        elif not intent.journaled:
            raise Refused(errno.ESTALE, f"{path} was changed by somebody else meanwhile")
        beside = self._beside.keep(intent, path, ours)
        raise KeptBeside(errno.ESTALE, f"{path} was changed by somebody else meanwhile; this text is in {beside}")

    # Everything else

    def _remove(self, intent: Intent, base: Base | None = None) -> None:
        base = base or intent.base
        assert base is not None
        current = self._known(base, intent.path)
        if current is None or current.path != intent.path or current.sha256 != base.sha256:
            return  # gone, or moved away; or edited by somebody else, and an edit beats a delete
        assert current.memory_id is not None
        try:
            self._api.delete(current.memory_id, expected_sha256=current.sha256)
        except Missing:
            self._api.store()
        except Changed:
            self._read_again(current.memory_id)
            return
        with self._lock:
            self._state.apply_gone(current.memory_id)

    def _rename(self, intent: Intent) -> Entry | None:
        assert intent.new_path is not None
        with self._lock:
            current = self._known(intent.base, intent.path)
        if current is None:
            if not intent.attempted and not intent.journaled:
                raise Refused(errno.ENOENT, f"{intent.path} is gone")
            return None  # deleted by somebody else, or renamed before and then deleted
        if current.path == intent.new_path or (intent.attempted and current.path != intent.path):
            return current
        return self._move(current, intent.new_path, may_go_beside=intent.journaled)

    def _move(self, entry: Entry, path: str, *, may_go_beside: bool) -> Entry | None:
        """Rename one memory; None if it is gone.

        may_go_beside: its writer was told that it is renamed: where the path is taken, it gets the nearest one.
        """
        memory_id, target = entry.memory_id, path
        assert memory_id is not None
        taken: set[str] = set()
        while True:
            try:
                memory = self._api.update(memory_id, path=target)
            except Missing:
                self._api.store()  # raises Missing where the whole store is gone
                return self._read_again(memory_id)
            except PathTaken as error:
                self._read_again(error.conflicting_memory_id)
                if not may_go_beside or error.conflicting_path != target:
                    raise
                taken.add(target)
                with self._lock:
                    target = self._beside.free(path, taken)
                continue
            with self._lock:
                self._state.apply_answer(memory.entry)
                if target != path:
                    self._beside.note(path, target)
                return self._state.remote_by_id(memory_id)

    def _replace(self, intent: Intent) -> Entry:
        assert intent.new_path is not None
        assert intent.base is not None
        if intent.base.memory_id is not None:
            self._read_again(intent.base.memory_id)  # it is sent to another one, which tells nothing of this
        self._refuse_erased(intent.path, intent.base)
        entry = self._save(intent, intent.new_path, intent.target)
        self._remove(intent)
        return entry

    def _rename_tree(self, intent: Intent) -> None:
        assert intent.new_path is not None
        try:
            memories = self._api.move(intent.path, intent.new_path)
        except Missing:
            # Nothing is there now, or the server does not know this route, or the store.
            self._api.store()
            memories = None
        except PathTaken as error:
            if not intent.journaled:
                raise Refused(errno.ENOTEMPTY, error.message) from error
            memories = None
        if memories is None:
            self._rename_each(intent)
            return
        with self._lock:
            for memory in memories:
                self._state.apply_answer(memory.entry)

    def _rename_each(self, intent: Intent) -> None:
        with self._lock:
            below = sorted(self._state.remote_below(intent.path), key=lambda entry: entry.path)
        for entry in below:
            try:
                self._move(entry, intent.moved_path(entry.path), may_go_beside=intent.journaled)
            except PathTaken as error:
                raise Refused(errno.ENOTEMPTY, error.message) from error

"""Opening a store: its engine, its journal's directory, its token, and what a dead daemon left unsaved.

Every directory that shows a store has an engine and a journal of its own. Two of one session are to each other what
two sessions are: the server stands between them, and its feed tells each what the other did.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from app.mount.daemon.account import Account, Attachment, NoAccess, ServerAway, SessionToken, distinct
from app.mount.daemon.frontends import FrontEnd
from app.mount.daemon.orders import Order
from app.mount.daemon.places import Places, make_private, private
from app.mount.door.api import StoreApi
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import MountError
from app.mount.sync.journal import Journal
from app.mount.sync.kept import KeptHere
from app.mount.sync.remembered import Remembered

log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10.0
"""How long a mount waits for what an earlier one of the same attachment left in its journal."""
ONE_TIME = "once-"
"""How the name of a place begins that is never opened again: of one command, or one sandbox."""
_IN_USE = "in-use"
"""A file in an engine's directory, from its start to a stop that left nothing unsaved."""


@dataclass(frozen=True, slots=True)
class OpenStore:
    """One store, shown at one directory."""

    order: Order
    attachment: Attachment
    path: Path
    """Where it is shown, as those see it who use it."""
    mode: str
    directory: Path
    """Its journal's."""
    engine: StoreEngine
    front: FrontEnd

    def flush(self, timeout: float | None) -> list[str]:
        """Wait until all that was accepted is on the server; the paths that are not."""
        return self.front.flush(timeout)

    def stop(self, timeout: float) -> list[str]:
        """End front end and engine; the paths that are not on the server, which stay in the journal."""
        lost = self.front.stop(timeout)
        unsaved = sorted({*lost, *self.engine.stop(timeout, keep=self.order.keep_cache or bool(lost))})
        if not unsaved:
            _settled(self.directory, keep=self.order.keep_cache)
        return unsaved

    def status(self) -> dict[str, Any]:
        """What is known of it, ready for JSON."""
        return {
            "path": str(self.path),
            "memory_store_id": self.attachment.store_id,
            "name": self.attachment.name,
            "read_only": self.attachment.read_only,
            "allow_other": self.order.allow_other,
            "mode": self.mode,
            **self.engine.status(),
            **self.front.status(),
            "state_directory": str(self.directory),
        }


MakeFrontEnd = Callable[[StoreEngine, Path], FrontEnd]
"""Makes the front end of an engine that has not started, given the directory for its state."""


class Opener:
    """Opens stores, with what they share: the cache of contents, and each session's token."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._caches: dict[Path, ContentCache] = {}
        self._tokens: dict[tuple[str, str], SessionToken] = {}
        self._in_use: set[Path] = set()

    def attachments(self, order: Order, account: Account) -> list[Attachment]:
        """The stores that an order opens; those it had last time, if the server does not answer now.

        Raises:
            MountError: there are none, or the server does not answer and never did.

        """
        known = self._attachments_file(order)
        try:
            if order.session_id:
                found = distinct(account.session_attachments(order.session_id))
            else:
                found = [account.store(order.store_id or "", read_only=order.read_only)]
        except ServerAway as away:
            try:
                return [Attachment.of_json(item) for item in json.loads(known.read_text())]
            except (OSError, ValueError, TypeError):
                raise away from None
        except NoAccess as refused:
            left = self._drop_copies(order, but=())
            known.unlink(missing_ok=True)
            raise NoAccess("; ".join([str(refused), *chain.from_iterable(left.values())])) from refused
        for directory in self._drop_copies(order, but=[attachment.store_id for attachment in found]):
            log.warning("%s: not all of a store that is no longer attached was saved", directory)  # a log has no paths
        _write_attachments(known, [asdict(attachment) for attachment in found])
        return found

    def _drop_copies(self, order: Order, but: Collection[str]) -> dict[Path, list[str]]:
        """Keep nothing that an owner may no longer open, except what is not saved.

        but: the stores that it may still open. Returns sentences that name what stays, by the directory that has it.
        """
        url, owner = order.credentials.base_url, order.owner
        stores = self._places.stores_of(url, owner) if order.session_id else [order.store_id or ""]
        staying = {}
        for store_id in stores:
            if store_id in but:
                continue
            for directory in self._places.attachment_state(url, owner, store_id).glob("*/"):
                with self._lock:
                    if directory in self._in_use:
                        continue  # the server tells its engine as well
                if stays := _let_go(directory):
                    staying[directory] = stays
            self._cache(order.cache or self._places.cache).drop_needless(store_id)
        return staying

    def _attachments_file(self, order: Order) -> Path:
        return self._places.attachments_file(order.credentials.base_url, order.session_id or f"-{order.store_id}")

    def _forget_attachment(self, order: Order, store_id: str) -> None:
        """The store is gone: its name stays nowhere."""
        known = self._attachments_file(order)
        with suppress(OSError, ValueError, TypeError):
            items = json.loads(known.read_text())
            _write_attachments(known, [item for item in items if item["store_id"] != store_id])

    def open(
        self, order: Order, account: Account, attachment: Attachment, place: str, path: Path, mode: str,
        make_front_end: MakeFrontEnd, *, drain: bool = True,
    ) -> OpenStore:  # fmt: skip
        """Open a store and show it.

        place: tells this directory from others that show the store for the same session.
        drain: first send what died in other places; not where those are about to be opened again.

        Raises:
            MountError: it can't be opened; nothing of it is left open.

        """
        home = self._places.attachment_state(order.credentials.base_url, order.owner, attachment.store_id)
        directory = home / place
        with self._lock:
            if directory in self._in_use:
                raise MountError(f"{order.what} has the store {attachment.store_id} open in the same place already")
            self._in_use.add(directory)
        try:
            if drain:
                self._drain(home, order, account, attachment)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            engine = self._engine(directory, order, account, attachment)
            engine.on_gone = lambda: self._forget_attachment(order, attachment.store_id)
            front = make_front_end(engine, directory)
            (directory / _IN_USE).touch()
            engine.start()
            try:
                front.start()
            except BaseException:
                with suppress(Exception):
                    engine.stop(0)
                raise
        except BaseException:
            self.closed(directory)
            raise
        return OpenStore(order, attachment, path, mode, directory, engine, front)

    def closed(self, directory: Path) -> None:
        """Say that a store was stopped: its directory may be opened again."""
        with self._lock:
            self._in_use.discard(directory)

    def end(self, order: Order) -> None:
        """Say that nothing of what an order asked for is open now."""
        known = self._attachments_file(order)
        has_unsaved = any(known.parent.glob(f"*/*/{_IN_USE}"))
        if not order.keep_cache and not has_unsaved:
            known.unlink(missing_ok=True)

    def end_session(self, order: Order) -> None:
        """Say that nothing of a session is open now: its token ends."""
        with self._lock:
            token = self._tokens.pop((order.credentials.base_url, order.owner), None)
        if token is not None:
            token.revoke()

    def _engine(self, directory: Path, order: Order, account: Account, attachment: Attachment) -> StoreEngine:
        return StoreEngine(
            StoreApi(order.credentials.base_url, attachment.store_id, self._token(order, account)),
            directory=directory,
            content_cache=self._cache(order.cache or self._places.cache),
            read_only=attachment.read_only,
            label=_label(order),
            policy=order.policy,
            kept=KeptHere(self._places.kept).of(attachment.store_id),
        )

    def _drain(self, home: Path, order: Order, account: Account, attachment: Attachment) -> None:
        """Send what engines of this attachment that died in other places left in their journals."""
        for marker in home.glob(f"*/{_IN_USE}"):
            directory = marker.parent
            with self._lock:
                if directory in self._in_use:
                    continue
                self._in_use.add(directory)
            try:
                engine = self._engine(directory, order, account, attachment)
                engine.start()
                if unsaved := engine.stop(_DRAIN_SECONDS):
                    log.warning("%s: still not on the server: %d files", directory, len(unsaved))
                else:
                    _settled(directory, keep=order.keep_cache)
            except MountError as error:  # another daemon has it, or the server is away: a later mount does it
                log.info("the journal in %s is left for later: %s", directory, error)
            finally:
                self.closed(directory)

    def _cache(self, directory: Path) -> ContentCache:
        with self._lock:
            if directory not in self._caches:
                self._caches[directory] = ContentCache(make_private(directory, "--cache-dir"))
            return self._caches[directory]

    def _token(self, order: Order, account: Account) -> Callable[[], str]:
        if order.session_id is None:
            return lambda: account.credentials.secret
        key = (order.credentials.base_url, order.owner)
        with self._lock:
            token = self._tokens.get(key)
            if token is None:
                token = self._tokens[key] = SessionToken(account, order.session_id)
            else:
                token.use(account)
            return token


def _let_go(directory: Path) -> list[str]:
    """Drop an engine's copies, and all of it if nothing is unsaved; sentences that name what stays."""
    try:
        journal = Journal(directory)
    except MountError as error:  # another daemon serves it, or the disk is damaged
        return [str(error)]
    try:
        stays = journal.left()
    finally:
        journal.close()
    if stays:
        Remembered.remove(directory)
    else:
        _settled(directory, keep=False)
    if any(directory.glob("mirror/*.db")):
        stays.append("a mirror that was not unmounted left its files in its directory; they stay until you remove them")
    return stays


def _settled(directory: Path, *, keep: bool) -> None:
    """Nothing in an engine's directory is needed now. keep: except by a start without the server."""
    (directory / _IN_USE).unlink(missing_ok=True)
    if directory.name.startswith(ONE_TIME):
        shutil.rmtree(directory, ignore_errors=True)
    elif not keep:
        Remembered.remove(directory)


def _write_attachments(file: Path, items: list[dict[str, Any]]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_suffix(f".{threading.get_ident()}")
    with open(beside, "w", opener=private) as opened:
        json.dump(items, opened)
        opened.flush()
        os.fsync(opened.fileno())  # an empty file would be all that a power cut leaves of it
    os.replace(beside, file)


def _label(order: Order) -> str:
    """A short name of the session, for the names of conflict files."""
    identity = order.session_id or order.store_id or ""
    return identity.rpartition("_")[2][-6:].lower()

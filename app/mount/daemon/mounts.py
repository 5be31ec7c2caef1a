"""Everything a daemon has mounted: opening, ending, and going on after a worker died."""

import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.mount.daemon import modes, namespaces, roots
from app.mount.daemon.account import Account, Attachment
from app.mount.daemon.control import Refusal
from app.mount.daemon.frontends import FrontEnd, FuseFrontEnd
from app.mount.daemon.groups import Changing, Group, log_unsaved, unsaved
from app.mount.daemon.holders import holders
from app.mount.daemon.open_stores import ONE_TIME, Opener
from app.mount.daemon.orders import FUSE, MIRROR, Order
from app.mount.daemon.places import Places, digest
from app.mount.daemon.processes import Process
from app.mount.daemon.supervisor import Custody
from app.mount.fuse.kernel import mounting
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import MountError

log = logging.getLogger(__name__)

_MEMORY = "mounts"
"""The name under which a successor of this worker finds what was mounted."""
_RETRY_SECONDS = 1.0
_DETACH_SECONDS = 10.0
"""How long what ends unasked tries to save what is pending."""


class Mounts:
    """The table of what is open. Thread-safe; what concerns one root does not keep another waiting."""

    def __init__(self, places: Places, custody: Custody, when_one_ends: Callable[[], None]) -> None:
        """Call `take_over` first.

        when_one_ends: called after a group ended because its holder did.
        """
        self._when_one_ends = when_one_ends
        self._custody = custody
        self._opener = Opener(places)
        self._lock = threading.Lock()
        self._groups: dict[str, Group] = {}
        self._numbers = 0
        self._ending = threading.Event()

    # Opening

    def mount(self, order: Order, root: Path, holder: Process | None) -> Group:
        """Show an order's stores below a directory of this host; does nothing for those that are there.

        holder: all that is at the root ends with this process.

        Raises:
            MountError: they can't be opened, or the root is somebody else's.

        """
        account = Account(order.credentials)
        attachments = self._opener.attachments(order, account)
        with self._group(str(root), root, order) as group:
            if group.order.owner != order.owner or group.order.credentials.base_url != order.credentials.base_url:
                raise MountError(
                    f"{root} shows {group.order.what} of {group.order.credentials.base_url}: "
                    "unmount it first, or choose another --root"
                )
            missing = [attachment for attachment in attachments if not self._is_shown(group, order, attachment)]
            self._hold(group, holder)
            if not missing:
                return group
            mode = next((store.mode for store in group.stores.values()), None) or modes.choose(order)
            if mode == MIRROR and order.allow_other:
                raise MountError(modes.NO_OPEN_MIRROR)
            names = [attachment.slug for attachment in missing]
            if group.on_host is None:
                group.on_host = roots.prepare(root, names, closed=mode == FUSE)
            else:
                group.on_host.make(names)
            for attachment in missing:
                self._show_on_host(group, order, account, attachment, mode)
                self._remember()
        return group

    def serve(self, order: Order, root: Path, descriptors: Mapping[str, int], holder: Process) -> Group:
        """Serve mounts that somebody made of /dev/fuse descriptors, by the name of their directory.

        Takes the descriptors.

        Raises:
            MountError: the stores can't be opened; the descriptors are closed.

        """
        with self._lock:
            self._numbers += 1
            name = f"run:{os.getpid()}:{self._numbers}"
        return self._serve(name, order, root, descriptors, holder)

    def attach(self, order: Order, pid: int, root: Path) -> Group:
        """Show an order's stores to a process of another mount namespace, in place of what was attached before.

        Raises:
            MountError: they can't be opened, or not be shown there.

        """
        sandbox = Process.find(pid)
        if sandbox is None:
            raise MountError(f"there is no process {pid}")
        self.detach(pid, _DETACH_SECONDS)
        attachments = self._opener.attachments(order, Account(order.credentials))
        descriptors = namespaces.attach(pid, as_stores(attachments), root=str(root))
        try:
            return self._serve(f"pid:{pid}", order, root, descriptors, sandbox)
        except BaseException:
            with suppress(MountError):
                namespaces.detach(pid, root=str(root))
            raise

    def stores_of(self, order: Order) -> list[Attachment]:
        """What an order would open."""
        return self._opener.attachments(order, Account(order.credentials))

    # Ending

    def unmount(self, root: Path, timeout: float, *, force: bool = False) -> list[dict[str, Any]]:
        """Save what is pending and take the root's stores away; what could not be saved stays in the journals.

        Raises:
            Refusal: nothing is mounted there, or it is in use and not `force`.

        """
        group = self._known(str(root))
        with group.changing:
            group.flush(timeout)
            busy = [] if group.on_host is None else group.unmount(force=force)
            left = self._stop(group, timeout, keep={path.name for path in busy})
        if busy:
            who = {str(path): holders(path) for path in busy}
            sentences = [f"{path} is in use by {', '.join(pids) or 'a process'}" for path, pids in who.items()]
            raise Refusal(
                f"{'; '.join(sentences)}: end that, or use --force. All it wrote so far is saved.",
                {"busy": who, "unsaved": left},
            )
        return left

    def end(self, group: Group, timeout: float) -> list[dict[str, Any]]:
        """Save what is pending and end a group of any kind, even one in use; what could not be saved."""
        with group.changing:
            group.flush(timeout)
            if group.on_host is not None:
                group.unmount(force=True)
            return self._stop(group, timeout)

    def end_named(self, name: str, timeout: float) -> list[dict[str, Any]]:
        """`end` for the group of this name."""
        return self.end(self._known(name), timeout)

    def detach(self, pid: int, timeout: float) -> list[dict[str, Any]]:
        """End what was attached to a process; what could not be saved. Nothing if nothing was."""
        with self._lock:
            group = self._groups.get(f"pid:{pid}")
        if group is None:
            return []
        with suppress(MountError):  # the process may be gone, and its namespace with it
            namespaces.detach(pid, root=str(group.root))
        return self.end(group, timeout)

    def end_all(self, timeout: float) -> list[dict[str, Any]]:
        """End everything; what could not be saved."""
        self._ending.set()
        left = []
        for group in self.groups():
            left += self.end(group, timeout)
        return left

    # Asking

    def is_empty(self) -> bool:
        """Whether nothing is open, nor being opened."""
        with self._lock:
            return not self._groups

    def groups(self, root: Path | None = None) -> list[Group]:
        """Those that are open, or those at one root."""
        with self._lock:
            return [group for group in self._groups.values() if root in (None, group.root) and group.stores]

    def flush(self, root: Path | None, timeout: float | None) -> list[dict[str, Any]]:
        """Wait until all that was accepted at a root (or everywhere) is on the server; what is not.

        Raises:
            Refusal: nothing is mounted there.

        """
        with self._lock:
            asked = [group for group in self._groups.values() if root in (None, group.root)]
        for group in asked:
            with group.changing:  # one that is being opened, or taken over, has writes to save as well
                pass
        if root is not None and not any(group.stores for group in asked):
            raise _nothing_at(root)
        return [missing for group in asked for missing in group.flush(timeout)]

    # After a worker died

    def take_over(self) -> None:
        """Go on with what an earlier worker had mounted.

        Returns when the table is whole; a caller that asks for something in it waits until it answers.
        """
        table = json.loads(self._custody.state(_MEMORY) or b"[]")
        self._let_go_of_the_rest(table)
        threads = []
        for item in table:
            changing = self._group(item["name"], Path(item["root"]), Order.from_json(item["order"]))
            group = changing.__enter__()
            group.awaited = item
            group.on_host = roots.Root.from_json(item["on_host"]) if item["on_host"] else None
            holder = Process(**item["holder"]) if item["holder"] else None
            work = (changing, group, item["stores"], holder)
            threads.append(threading.Thread(target=self._take_over, args=work, name=group.name, daemon=True))
        for thread in threads:  # only now: the first one that is done writes down the whole table
            thread.start()

    def _let_go_of_the_rest(self, table: list[dict[str, Any]]) -> None:
        """Close descriptors of mounts that the worker before did not get to write down: nobody else serves them."""
        known = {f"{item['name']}/{shown['attachment']['slug']}" for item in table for shown in item["stores"]}
        for name, fd in self._custody.kept().items():
            if name not in known and name != _MEMORY:
                self._custody.release(name)
                os.close(fd)

    def _take_over(
        self, changing: "Changing", group: Group, stores: list[dict[str, Any]], holder: Process | None
    ) -> None:
        kept = self._custody.kept()
        try:
            for shown in stores:
                order, attachment = Order.from_json(shown["order"]), Attachment(**shown["attachment"])
                fd = kept.get(_custody_name(group, attachment.slug)) if shown["mode"] == FUSE else None
                while not self._ending.is_set():
                    try:
                        copy = None if fd is None else os.dup(fd)
                        self._open(
                            group, order, Account(order.credentials), attachment, shown["mode"], copy, drain=False
                        )
                        break
                    except MountError as error:
                        log.warning("store %s: can't go on yet: %s", attachment.store_id, error)
                        self._ending.wait(_RETRY_SECONDS)
            self._hold(group, holder)
            group.awaited = None
            self._remember()
        finally:
            changing.__exit__()

    def _hold(self, group: Group, holder: Process | None) -> None:
        """Let a group end with a process."""
        if holder is None or group.holder == holder:
            return
        group.holder = holder

        def end() -> None:
            if group.holder == holder:
                log_unsaved(self.end(group, _DETACH_SECONDS))
            self._when_one_ends()

        holder.when_ended(end)

    # Inside

    def _group(self, name: str, root: Path, order: Order) -> "Changing":
        return Changing(self._groups, self._lock, name, root, order)

    def _known(self, name: str) -> Group:
        with self._lock:
            group = self._groups.get(name)
        if group is None:
            raise _nothing_at(Path(name))
        return group

    @staticmethod
    def _is_shown(group: Group, order: Order, attachment: Attachment) -> bool:
        shown = group.stores.get(attachment.slug)
        if shown is None:
            return False
        if (shown.attachment.store_id, shown.attachment.read_only) != (attachment.store_id, attachment.read_only):
            raise MountError(
                f"{shown.path} shows the store {shown.attachment.store_id}, read "
                f"{'only' if shown.attachment.read_only else 'and write'}: unmount it first"
            )
        if shown.order.allow_other != order.allow_other:
            raise MountError(
                f"{shown.path} is mounted {'with' if shown.order.allow_other else 'without'} --allow-other: "
                "unmount it first"
            )
        return True

    def _show_on_host(self, group: Group, order: Order, account: Account, attachment: Attachment, mode: str) -> None:
        path = group.root / attachment.slug
        if mode == MIRROR:
            self._open(group, order, account, attachment, mode, None)
            return
        fd = mounting.open_device()
        try:
            options = mounting.Options(attachment.slug, read_only=attachment.read_only, enforced=not order.allow_other)
            mounting.mount(fd, str(path), options)
        except OSError as error:
            os.close(fd)
            raise MountError(f"{path} can't be mounted: {error.strerror}") from error
        try:
            self._open(group, order, account, attachment, mode, fd)
        except BaseException:
            with suppress(OSError):
                mounting.unmount(str(path), lazy=True)
            raise

    def _serve(self, name: str, order: Order, root: Path, descriptors: Mapping[str, int], holder: Process) -> Group:
        account = Account(order.credentials)
        left = dict(descriptors)
        try:
            attachments = self._opener.attachments(order, account)
            with self._group(name, root, order) as group:
                for attachment in attachments:
                    if attachment.slug in left:
                        self._open(group, order, account, attachment, FUSE, left.pop(attachment.slug))
                self._hold(group, holder)
                self._remember()
            return group
        except BaseException:
            with self._lock:
                known = self._groups.get(name)
            if known is not None:
                self.end(known, 0.0)
            raise
        finally:
            for fd in left.values():
                os.close(fd)

    def _open(
        self, group: Group, order: Order, account: Account, attachment: Attachment, mode: str, fd: int | None, *,
        drain: bool = True,
    ) -> None:  # fmt: skip
        """Open one store of a group. Takes the descriptor."""
        path = group.root / attachment.slug
        place = (
            (f"{mode}-" if group.on_host is not None else ONE_TIME)
            + digest(group.name)
            + ("-read-only" if attachment.read_only else "")
        )
        name = _custody_name(group, attachment.slug)

        def front(engine: StoreEngine, directory: Path) -> FrontEnd:
            if mode == MIRROR:
                return MirrorFrontEnd(engine, path, state_dir=directory / "mirror", read_only=attachment.read_only)
            assert fd is not None
            on_host = path if group.on_host is not None else None
            return FuseFrontEnd(
                engine, fd, self._custody, name, read_only=attachment.read_only, path=on_host,
                open_to_others=order.allow_other, label=f"store {attachment.store_id}",
            )  # fmt: skip

        try:
            store = self._opener.open(order, account, attachment, place, path, mode, front, drain=drain)
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        group.stores[attachment.slug] = store

    def _stop(self, group: Group, timeout: float, keep: Collection[str] = ()) -> list[dict[str, Any]]:
        left = []
        for slug, store in list(group.stores.items()):
            if slug in keep:
                continue
            left += unsaved(store, store.stop(timeout))
            self._opener.closed(store.directory)
            self._custody.release(_custody_name(group, slug))
            del group.stores[slug]
        if not group.stores:
            if group.on_host is not None:
                group.on_host.take_away()
            with self._lock:
                self._groups.pop(group.name, None)
                others = [other.order for other in self._groups.values() if other.order.owner == group.order.owner]
            if not others:
                self._opener.end_session(group.order)
            if all(other.store_id != group.order.store_id for other in others):
                self._opener.end(group.order)
        self._remember()
        return left

    def _remember(self) -> None:
        """Write down, in the supervisor's memory, what a successor must know. It holds secrets: never on a disk."""
        with self._lock:
            groups = list(self._groups.values())
            if not groups:
                self._custody.release(_MEMORY)
                return
            # The supervisor starts a worker again only while it keeps something for it: this, if all are mirrors.
            if _MEMORY not in self._custody.kept():
                self._custody.keep(_MEMORY, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            self._custody.save(_MEMORY, json.dumps([group.to_json() for group in groups]).encode())


def as_stores(attachments: list[Attachment]) -> list[namespaces.Store]:
    """Attachments as the namespaces' functions take them."""
    return [namespaces.Store(attachment.slug, read_only=attachment.read_only) for attachment in attachments]


def _custody_name(group: Group, slug: str) -> str:
    return f"{group.name}/{slug}"


def _nothing_at(root: Path) -> Refusal:
    return Refusal(f"no store is mounted at {root}")

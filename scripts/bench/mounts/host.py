"""The product's mount as its users run it: `memstore mount`, with directories of its own for the daemon."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.mount.daemon import daemon
from app.mount.daemon.account import Credentials
from app.mount.daemon.control import ControlClient, Disconnected, NotRunning
from app.mount.daemon.orders import FUSE, Order
from app.mount.daemon.places import Places
from app.mount.sync.engine import Policy
from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.errors import MeasurementError
from scripts.bench.mounts.trees import detach
from scripts.bench.processes import run
from scripts.bench.product import Product

_MEMSTORE = str(Path(sys.executable).with_name("memstore"))
_END_SECONDS = 60.0


class Host:
    """The daemon of one run directory. Use `host`, which ends it."""

    def __init__(self, directory: Path, product: Product, port: int) -> None:
        directory.mkdir()
        self.directory = directory
        self._places = Places(directory / "run", directory / "state", directory / "cache")
        self._credentials = Credentials(f"http://127.0.0.1:{port}", product.installation.api_key, None)
        self._roots: list[Path] = []
        self.environment = {
            "MEMSTORE_BASE_URL": self._credentials.base_url,
            "MEMSTORE_API_KEY": product.installation.api_key,
            "MEMSTORE_RUN_DIR": str(self._places.run),
            "MEMSTORE_STATE_DIR": str(self._places.state),
            "MEMSTORE_CACHE_DIR": str(self._places.cache),
        }

    def mount(self, store_id: str | None = None, *, root: str = "mnt", read_only: bool = False) -> Path:
        """Run `memstore mount`; where the store's files are."""
        at = self._new_root(root)
        command = [_MEMSTORE, "mount", "--store", store_id or dataset.store_id(0), "--root", str(at), "--mode", FUSE]
        if read_only:
            command.append("--read-only")
        printed = run(command, seconds=60, environment=self.environment, directory=self.directory)
        return Path(printed.split("  ", 1)[0])

    def ask_for_mount(self, store_id: str, *, root: str, cache: Path | None = None) -> Path:
        """Ask the daemon for what `memstore mount` asks it, without the command's own start.

        cache: where its contents are cached, if not with all others.
        """
        at = self._new_root(root)
        order = Order(self._credentials, None, store_id, False, FUSE, cache, Policy.MERGE)
        client, shown = daemon.call(self._places, "mount", **order.to_json(), root=str(at), hold=False)
        client.close()
        return Path(shown["stores"][0]["path"])

    def connected(self) -> ControlClient:
        """A connection, which also keeps the daemon when nothing is mounted."""
        return daemon.connect_or_start(self._places)

    def unmount(self, root: str = "mnt") -> None:
        """Take a root away.

        Raises:
            MeasurementError: something was not saved.
        """
        with daemon.connect(self._places) as client:
            ended = client.call("unmount", root=str(self.directory / root), timeout=_END_SECONDS, force=True)
        if ended["unsaved"]:
            raise MeasurementError(f"{len(ended['unsaved'])} writes were not saved at the unmount")

    def flush(self) -> None:
        """Wait until all is saved.

        Raises:
            MeasurementError: something was not.
        """
        with daemon.connect(self._places) as client:
            unsaved = client.call("flush", root=None, timeout=_END_SECONDS)["unsaved"]
        if unsaved:
            raise MeasurementError(f"{len(unsaved)} writes were not saved within {_END_SECONDS:.0f} s")

    def status(self) -> dict[str, Any]:
        """What the daemon knows."""
        with daemon.connect(self._places) as client:
            return client.call("status", root=None)

    def processes(self) -> list[int]:
        """The daemon's: the one that serves, and its supervisor."""
        known = self.status()
        return [pid for pid in (known["pid"], known["supervisor_pid"]) if pid]

    def end(self) -> None:
        """Unmount everything, and end the daemon if that did not."""
        try:
            pids = self.processes()
            for root in self._roots:
                with contextlib.suppress(Exception):
                    self.unmount(root.name)
            _end(pids)
        except (NotRunning, Disconnected):
            pass
        finally:
            for root in self._roots:
                for below in _mounted_below(root):
                    detach(below)

    def _new_root(self, name: str) -> Path:
        root = self.directory / name
        if root not in self._roots:
            self._roots.append(root)
        return root


def _end(pids: list[int]) -> None:
    """Wait for the daemon's own end; it has nothing left to do."""
    give_up = time.monotonic() + 10
    while any(map(_is_running, pids)):
        if time.monotonic() > give_up:
            for pid in reversed(pids):  # the supervisor first, or it would start another
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _mounted_below(root: Path) -> list[Path]:
    """Mount points at and below a directory, the innermost first."""
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if point == root or root in point.parents]


@contextmanager
def host(bench: Bench, product: Product, *, port: int | None = None) -> Iterator[Host]:
    """A daemon for the length of the block. port: of what stands before the server, if something does."""
    made = Host(bench.new_path("host"), product, port or product.port)
    try:
        yield made
    finally:
        made.end()

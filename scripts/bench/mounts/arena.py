"""The product's mount and what it is compared with, side by side over the same files."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.errors import MeasurementError
from scripts.bench.mounts import needs, trees
from scripts.bench.mounts.contests import MFUSEPY, PRODUCT, RCLONE, READ_ONLY, TMPFS
from scripts.bench.mounts.host import Host, host
from scripts.bench.product import Product, install, serve


@dataclass(frozen=True, slots=True)
class Arena:
    """Where each side shows the files, and why a side is missing."""

    roots: dict[str, Path]
    missing: dict[str, str]
    host: Host
    product: Product


@contextmanager
def arena(bench: Bench) -> Iterator[Arena]:
    """Every side mounted, the product's mount with a server that has all in SQLite.

    Raises:
        MeasurementError: nothing can be mounted here, or a side that could be did not come up.
    """
    needs.need_fuse()
    installation = install(bench.new_path("mount"), trees.SHAPE, database=None)
    with ExitStack() as stack:
        product = stack.enter_context(serve(installation, cpus=bench.cores.every))
        ours = stack.enter_context(host(bench, product))
        tmpfs = stack.enter_context(trees.tmpfs(bench.new_path("tmpfs")))
        roots = {PRODUCT: ours.mount(), READ_ONLY: ours.mount(root="ro", read_only=True), TMPFS: tmpfs}
        missing: dict[str, str] = {}
        for name, need, mount in (
            (RCLONE, needs.need_rclone, trees.rclone),
            (MFUSEPY, needs.need_mfusepy, trees.mfusepy),
        ):
            try:
                need()
            except MeasurementError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                missing[name] = str(error)
            else:
                roots[name] = stack.enter_context(mount(bench, tmpfs, bench.new_path("mnt")))
        yield Arena(roots, missing, ours, product)

"""Whether this host can show a store through FUSE, or as a mirror only."""

import os

from app.mount.daemon.orders import AUTO, FUSE, MIRROR, Order
from app.mount.fuse.kernel import mounting
from app.mount.sync.errors import MountError


def choose(order: Order) -> str:
    """How to show an order's stores on this host.

    Raises:
        MountError: it asks for FUSE, which can't be had; the sentence says why.

    """
    if order.mode == MIRROR:
        return MIRROR
    try:
        _try_fuse()
    except MountError:
        if order.mode == AUTO:
            return MIRROR
        raise
    return FUSE


def _try_fuse() -> None:
    fd = mounting.open_device()
    try:
        os.close(mounting.detached(fd, mounting.Options("memstore")))
    except OSError as error:
        raise MountError(
            f"this host gives no FUSE mount ({error.strerror}): run as root, or use --mode mirror"
        ) from None
    finally:
        os.close(fd)

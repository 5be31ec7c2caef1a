"""Whether this host can show a store through FUSE, or as a mirror only."""

import os

from app.mount.daemon.orders import AUTO, FUSE, MIRROR, Order
from app.mount.fuse.kernel import mounting
from app.mount.sync.errors import MountError

NO_OPEN_MIRROR = "--allow-other is for FUSE mounts; a mirror is an ordinary directory: open it with chmod"


def choose(order: Order) -> str:
    """How to show an order's stores on this host.

    Raises:
        MountError: it asks for FUSE, or for a mount that is open to others, and this host gives no FUSE mount; the
            sentence says why.

    """
    if order.mode == MIRROR:
        if order.allow_other:
            raise MountError(NO_OPEN_MIRROR)
        return MIRROR
    try:
        _try_fuse()
    except MountError:
        if order.mode == AUTO and not order.allow_other:
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

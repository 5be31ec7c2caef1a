"""What the handlers of a file system share: finding what a request names, and answers that wait for the network.

A handler runs in the thread that reads the kernel's requests. Whatever may wait for the network goes to the session's
pool and is answered from there, so that a slow server delays nobody else's call.
"""

import errno
import os
from collections.abc import Callable
from typing import TypeAlias

from app.mount.fuse.filesystem.nodes import AnyNode, Directory, File, Place, Tree
from app.mount.fuse.kernel.requests import Reply, Request
from app.mount.sync.errors import Offline, Refused

Work: TypeAlias = Callable[[], Reply]
"""The rest of a handler: it returns what the handler would, and may raise OSError, Refused or Offline."""


def failure(number: int) -> OSError:
    """The exception for an errno."""
    return OSError(number, os.strerror(number))


def find_node(tree: Tree, number: int) -> AnyNode:
    """Raises OSError: ESTALE if the tree has no such node."""
    node = tree.nodes.get(number)
    if node is None:
        raise failure(errno.ESTALE)
    return node


def find_file(tree: Tree, number: int) -> File:
    """Raises OSError: ESTALE, or EISDIR for a directory."""
    node = tree.nodes.get(number)
    if isinstance(node, File):
        return node
    raise failure(errno.ESTALE if node is None else errno.EISDIR)


def find_directory(tree: Tree, number: int) -> Directory:
    """A directory in which names may be made. Raises OSError: ESTALE, ENOTDIR, or ENOENT if it was removed."""
    node = find_node(tree, number)
    if not isinstance(node, Directory):
        raise failure(errno.ENOTDIR)
    if node.place is Place.REMOVED:
        raise failure(errno.ENOENT)
    return node


def later(request: Request, work: Work) -> Reply:
    """Answer from the pool with what `work` returns, or refuses with."""

    def answer(request: Request) -> Reply:
        try:
            return work()
        except Refused as refusal:
            return refusal.errno
        except Offline:
            return errno.EIO

    return request.later(answer)

"""Names in another spelling: a file of a decomposed name (NFD, as other systems write them) is the memory's own.

A memory's name is composed (NFC), and a FUSE mount finds it in any spelling. In a directory the two spellings are two
names. So that one memory has one file, a file of another spelling gets the composed name, open or not;
where a file has that name already, its text is an edit of that file, as a write by the other name is in a FUSE mount.
"""

import errno
import stat as modes
import time
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace

from app.mount.door.entries import Entry
from app.mount.mirror.agreements import Agreements
from app.mount.mirror.applier import Applier, InTheWay
from app.mount.mirror.tree import Content, Tree
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Refused

_IN_USE_SECONDS = 10.0
"""So long an empty directory of another spelling stays: the program that made it may go on to fill it."""


def composed(path: str) -> str:
    """The path as a memory spells it. What is not UTF-8 stays as it is."""
    if path.isascii():
        return path
    try:
        path.encode()
    except UnicodeEncodeError:
        return path
    return unicodedata.normalize("NFC", path)


class Spellings:
    """Gives files of other spellings the composed name, or their text to the file that has it. Not thread-safe."""

    def __init__(self, engine: StoreEngine, tree: Tree, applier: Applier, agreements: Agreements) -> None:
        self._engine = engine
        self._tree = tree
        self._applier = applier
        self._agreements = agreements

    def rename(self, shown: Entry) -> bool:
        """Give the file the composed name; False: another file has it.

        Raises:
            Refused: something that is no file, or no directory, is in the way.

        """
        name = composed(shown.path)
        try:
            self._applier.move(shown, replace(shown, path=name), prune=False)
        except FileExistsError:
            there = self._tree.stat(name)
            if there is not None and modes.S_ISDIR(there.st_mode):
                raise Refused(errno.EISDIR, f"its name is {name} in a store, and that is a directory") from None
            return False
        except InTheWay as error:
            raise Refused(errno.ENOTDIR, f"its name is {name} in a store, and {error}") from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise Refused(errno.ENAMETOOLONG, f"its name is {name} in a store, which is too long for a file") from None
        return True

    def merge(self, shown: Entry, content: Content, look: Callable[[str], object]) -> None:
        """Save the text as an edit of the file that has the composed name, and remove the file.

        look: brings that file to where disk and view are the same.

        Raises:
            Refused: that file's own text is not saved yet, or the store does not take this one; both files stay.
            Offline, Busy, Edited: as the engine's `save` and the applier's `remove`.

        """
        name = composed(shown.path)
        look(name)
        agreed = self._agreements.get(name)
        if agreed is None:
            raise Refused(errno.EEXIST, f"{name} is the same name in a store, and its text is not saved yet")
        if agreed.entry.sha256 != shown.sha256:
            base_text = self._agreements.text(agreed.entry.sha256)
            self._engine.save(name, content.data, agreed.entry, base_text=base_text)
        self._applier.remove(shown, prune=False)
        look(name)

    def remove_directories(self, directories: Iterable[str]) -> None:
        """Remove empty directories of other spellings that nothing happened in for a while."""
        for path in sorted(directories, key=len, reverse=True):
            if path == composed(path):
                continue
            status = self._tree.stat(path)
            if status is not None and status.st_mtime < time.time() - _IN_USE_SECONDS:
                try:
                    self._applier.discard(path)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.ENOTDIR):
                        raise

"""Scratch files that stay: they were no program's scratch files after all, and are saved."""

import logging
import threading

from app.mount.fuse.filesystem.coherence import Housekeeper
from app.mount.fuse.filesystem.naming import may_last
from app.mount.fuse.filesystem.nodes import File, Place
from app.mount.fuse.filesystem.saving import Saver
from app.mount.sync.errors import Offline, Refused

log = logging.getLogger(__name__)

PARKED_SECONDS = 5.0
"""How long a scratch file may stay before it is taken for a lasting one."""


class ScratchFiles:
    """Watches the scratch files of one mount."""

    def __init__(self, saver: Saver, housekeeper: Housekeeper) -> None:
        self.saver = saver
        self.housekeeper = housekeeper

    def keep_later(self, file: File) -> None:
        """Save the file if it is still there, and still scratch, after a while."""
        if not may_last(file.name):
            return
        edits = file.edits

        def keep() -> None:
            if file.scratch and file.edits == edits and file.place is Place.LINKED:
                threading.Thread(target=self._keep, args=(file,), name="fuse-keep", daemon=True).start()

        self.housekeeper.after(PARKED_SECONDS, keep)

    def _keep(self, file: File) -> None:
        try:
            self.saver.keep(file)
        except (Refused, Offline) as failure:
            log.info("a scratch file that stayed can't be saved: %s", failure)
        except Exception:
            log.exception("saving a scratch file that stayed failed")

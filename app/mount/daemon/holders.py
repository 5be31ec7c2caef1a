"""The processes that keep a directory from being unmounted."""

import os
from contextlib import suppress
from pathlib import Path


def holders(path: Path) -> list[str]:
    """The processes that work in a directory or have a file of it open, as `PID (name)`.

    Only those that this process may look at, and only as they are seen from its own mount namespace.
    """
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _holds(entry.path, path):
            with suppress(OSError):
                found.append(f"{entry.name} ({Path(entry.path, 'comm').read_text().strip()})")
    return found


def _holds(process: str, path: Path) -> bool:
    links = [f"{process}/cwd", f"{process}/root"]
    with suppress(OSError):
        links += [entry.path for entry in os.scandir(f"{process}/fd")]
    for link in links:
        with suppress(OSError):
            target = Path(os.readlink(link))
            if target == path or path in target.parents:
                return True
    return False

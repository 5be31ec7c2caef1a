"""Names that editors and tools give to files they need for a moment (docs/mount.md)."""

import re

_SCRATCH = re.compile(
    r"""
      \.(.+\.)?sw[a-z]       # vim: swap file beside the file it edits
    | 4913                   # vim: asks whether it may write in the directory
    | .+~                    # backup of vim, emacs, patch
    | \.\#.+                 # emacs: lock
    | \#.+\#                 # emacs: auto-save
    | sed[A-Za-z0-9]{6}      # sed -i
    | tmp[A-Za-z0-9_]{8}     # Python's tempfile
    | \.goutputstream-.+     # GLib
    | \.nfs.+                # NFS: removed while open
    | .*\.tmp.*              # everybody else
    """,
    re.VERBOSE | re.DOTALL,
)


def is_scratch(name: str) -> bool:
    """Whether the last segment of a path is a scratch name: it lives in the mount and is not saved at once.

    name: one segment, without slashes.
    """
    return _SCRATCH.fullmatch(name) is not None

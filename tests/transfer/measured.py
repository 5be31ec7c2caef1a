"""A process of its own that reads sources, so that the operating system can tell how much memory that took.

`python -m tests.transfer.measured FILE…` writes as JSON what became of each, and by how many bytes the process grew at
most: the kernel's VmHWM, above what it was when everything was imported.
"""

import json
import re
import sys
from pathlib import Path

from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import archive_entries
from app.transfer.archives.spool import Spool
from app.transfer.sources import plan_of


def peak_bytes() -> int:
    """The most memory that this process had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _outcome(file: Path) -> str:
    with file.open("rb") as opened, Spool() as spool:
        try:
            plan = plan_of(archive_entries(opened, Bounds()), spool, default_name="test")
        except InvalidRequest as error:
            return error.message
        return f"{len(plan.memories)} memories, {len(plan.versions or ())} versions, {len(plan.refused)} refused"


if __name__ == "__main__":
    before = peak_bytes()
    outcomes = {file: _outcome(Path(file)) for file in sys.argv[1:]}
    sys.stdout.write(json.dumps({"outcomes": outcomes, "grown": peak_bytes() - before}))

"""`python -m tests.backup.measured_command COMMAND…`: `memstore COMMAND…`, whose peak memory is its last line.

The kernel's VmHWM of the process, in bytes, on standard error. (getrusage would count the tests' process as well.)
With `SMALL_CACHES` in the environment the page caches of SQLite are small, which take up to 32 MiB for each connection:
what is looked for then is what the command itself remembers.
"""

import os
import sqlite3
import sys
from pathlib import Path

from app.cli.main import main
from app.storage.rows import sqlite
from tests.transfer.measured import peak_bytes

SMALL_CACHES = "MEASURED_WITH_SMALL_CACHES"
_CACHE_KIB = 512
_connect = sqlite.connect


def _connect_with_a_small_cache(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


if __name__ == "__main__":
    if SMALL_CACHES in os.environ:
        sqlite.connect = _connect_with_a_small_cache
    try:
        main()
    finally:
        sys.stderr.write(f"\n{peak_bytes()}\n")

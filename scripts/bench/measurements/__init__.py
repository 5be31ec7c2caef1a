"""What can be measured, by name, in the order of the table."""

from collections.abc import Callable

from scripts.bench.bench import Bench
from scripts.bench.measurements import (
    administration,
    flat,
    hot_postgres,
    hot_sqlite,
    jobs,
    listings,
    mount_changes,
    mount_files,
    mount_life,
    mount_saves,
    sdk,
    sustained,
    unknown,
)
from scripts.bench.report import Row

MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "postgres-get": hot_postgres.get,
    "postgres-update": hot_postgres.update,
    "sqlite-get": hot_sqlite.get,
    "sqlite-update": hot_sqlite.update,
    "sustained-sqlite-disk": sustained.sqlite_disk,
    "sustained-postgres-disk": sustained.postgres_disk,
    "sustained-postgres-s3": sustained.postgres_s3,
    "lists": listings.pages,
    "list-crowd": listings.crowd,
    "cold-download": listings.cold_download,
    "flat": flat.flat,
    "export-import": administration.moving,
    "forget": administration.forgetting,
    "as-of": administration.past,
    "jobs": jobs.jobs,
    "sweep": administration.sweeping,
    "sdk": sdk.latency,
    "strangers": unknown.strangers,
    "mount-files": mount_files.reading,
    "mount-create": mount_files.creating,
    "mount-save": mount_saves.loopback,
    "mount-slow-server": mount_saves.slow_server,
    "mount-ready": mount_life.ready,
    "mount-idle": mount_life.idle,
    "mount-change": mount_changes.change,
}

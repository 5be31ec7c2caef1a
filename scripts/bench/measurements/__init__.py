"""What can be measured, by name, in the order of the table."""

from collections.abc import Callable

from scripts.bench.bench import Bench
from scripts.bench.measurements import flat, hot_postgres, hot_sqlite, listings, sdk, sustained
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
    "cold-download": listings.cold_download,
    "flat": flat.flat,
    "sdk": sdk.latency,
}

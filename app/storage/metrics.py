"""Prometheus metrics of the storage layer and the change feed. Names are public: dashboards rely on them."""

from prometheus_client import Counter, Gauge, Histogram

STAGED = Gauge(
    "memstore_staged_blobs",
    "Contents waiting in the database for the blob store",
    multiprocess_mode="mostrecent",
)
STAGED_AGE = Gauge(
    "memstore_staged_oldest_age_seconds", "Age of the oldest staged content", multiprocess_mode="mostrecent"
)
BLOBS_MOVED = Counter("memstore_blobs_moved", "Contents moved from the stage to the blob store")
MOVE_FAILURES = Counter("memstore_blob_move_failures", "Batches of moves that the blob store refused")
BLOBS_REMOVED = Counter("memstore_blobs_removed", "Blobs removed after redaction, retention or as orphans")
VERSIONS_EXPIRED = Counter("memstore_versions_expired", "Versions removed by retention")
CACHE_LOOKUPS = Counter("memstore_content_cache_lookups", "Look-ups in the content cache", ["result"])

DATABASE_SECONDS = Histogram(
    "memstore_database_seconds",
    "Time of a read (of every eighth) or of a whole write transaction (of each), with the wait for a connection",
    ["operation"],
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
DATABASE_FAILURES = Counter(
    "memstore_database_failures", "Calls the database did not do: it was away, or too busy", ["reason"]
)
BLOB_STORE_SECONDS = Histogram(
    "memstore_blob_store_seconds",
    "Time of one call of the blob store, which may carry many blobs",
    ["operation"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BLOB_STORE_FAILURES = Counter("memstore_blob_store_failures", "Calls the blob store did not answer, or refused")

SWEEPS = Counter("memstore_sweeps", "Whole passes of the sweeper", ["result"])
SWEEP_SECONDS = Histogram(
    "memstore_sweep_seconds", "Time of a whole pass of the sweeper", buckets=(0.01, 0.1, 1, 10, 60, 300, 1_800, 7_200)
)
SWEPT_AT = Gauge(
    "memstore_sweep_last_success_timestamp_seconds",
    "When this server last finished a whole pass of the sweeper, in seconds since 1970; 0: not yet",
    multiprocess_mode="max",
)
STORES_PURGED = Counter("memstore_stores_purged", "Deleted stores of which nothing is left")

FEED_LAG = Histogram(
    "memstore_feed_lag_seconds",
    "From the moment a change was made to the one its readers here were woken; the oldest change of each batch",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

JOBS = Gauge("memstore_jobs", "Jobs that wait, run or were given up", ["state"], multiprocess_mode="mostrecent")
JOBS_ENDED = Counter("memstore_job_attempts", "Attempts at jobs, by how they ended", ["kind", "outcome"])
JOBS_SECONDS = Histogram(
    "memstore_job_seconds", "Time of one attempt at a job", ["kind"], buckets=(0.01, 0.1, 1, 10, 60, 300, 1_800, 7_200)
)

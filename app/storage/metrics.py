"""Prometheus metrics of the storage layer. Names are public: dashboards rely on them."""

from prometheus_client import Counter, Gauge

BLOBS_MOVED = Counter("memstore_blobs_moved", "Contents moved from the stage to the blob store")
MOVE_FAILURES = Counter("memstore_blob_move_failures", "Batches of moves that the blob store refused")
BLOBS_REMOVED = Counter("memstore_blobs_removed", "Blobs removed after redaction, retention or as orphans")
VERSIONS_EXPIRED = Counter("memstore_versions_expired", "Versions removed by retention")
CACHE_LOOKUPS = Counter("memstore_content_cache_lookups", "Look-ups in the content cache", ["result"])
STAGED = Gauge(
    "memstore_staged_blobs",
    "Contents waiting in the database for the blob store",
    multiprocess_mode="mostrecent",
)
STAGED_AGE = Gauge(
    "memstore_staged_oldest_age_seconds", "Age of the oldest staged content", multiprocess_mode="mostrecent"
)

"""Settings of the fleets that the tests share.

Quotas are small enough to be reached, and too large to be met by accident.
"""

MAX_MEMORIES = 150
MAX_STORE_BYTES = 60_000
MAX_STORES = 30

FLEET_LIMITS = {
    "MEMSTORE_MAX_MEMORIES_PER_STORE": str(MAX_MEMORIES),
    "MEMSTORE_MAX_STORE_BYTES": str(MAX_STORE_BYTES),
    "MEMSTORE_MAX_STORES": str(MAX_STORES),
}

ERASING = {
    "MEMSTORE_VERSION_RETENTION_DAYS": "0",
    "MEMSTORE_KEEP_RECENT_VERSIONS": "1",
    "MEMSTORE_SWEEP_INTERVAL_SECONDS": "0.1",
    "MEMSTORE_ORPHAN_GRACE_SECONDS": "0",
    "MEMSTORE_CACHE_BYTES": "0",
}

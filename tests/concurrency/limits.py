"""The quotas of the fleet that the tests share: small enough to be reached, too large to be met by accident."""

MAX_MEMORIES = 150
MAX_STORE_BYTES = 60_000
MAX_STORES = 30

FLEET_LIMITS = {
    "MEMSTORE_MAX_MEMORIES_PER_STORE": str(MAX_MEMORIES),
    "MEMSTORE_MAX_STORE_BYTES": str(MAX_STORE_BYTES),
    "MEMSTORE_MAX_STORES": str(MAX_STORES),
}

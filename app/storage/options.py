"""What a storage is made from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Where things are and how long they stay; URLs, bytes, days and seconds as in `app.settings`."""

    database_url: str
    blob_url: str
    s3_endpoint_url: str | None
    cache_bytes: int
    pool_size: int
    retention_days: int
    keep_recent_versions: int
    sweep_interval_seconds: float
    orphan_grace_seconds: float

"""How much one request of the history may ask for. All are ours; the vendor has none of these routes."""

ROLLBACK_MAX_CHANGES = 10_000
"""Memories that one rollback may change."""

BLAME_MAX_VERSIONS = 1_000
"""Versions with content that one blame reads; older ones count as gone."""

"""Proof that a round of updates did what it was counted for."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from app.storage.rows import tables
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure
from scripts.bench.postgres import Database

_VERSIONS_EVER = f"SELECT sum(last_seq) FROM {tables.memory_stores.name}"


def _versions_ever(where: Database | Path) -> int:
    """How many versions were ever made in a database."""
    if isinstance(where, Database):
        return int(where.execute(_VERSIONS_EVER))
    connection = sqlite3.connect(where)
    try:
        (count,) = connection.execute(_VERSIONS_EVER).fetchone()
        return int(count)
    finally:
        connection.close()


def each_made_a_version(measure: Callable[[], Figure], where: Database | Path) -> Figure:
    """Run a round of updates.

    Raises:
        MeasurementError: it made fewer versions than it counted updates.
    """
    before = _versions_ever(where)
    figure = measure()
    made = _versions_ever(where) - before
    if made < figure.count:
        raise MeasurementError(f"{figure.count} updates made only {made} versions")
    return figure

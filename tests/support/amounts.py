"""How much of what can be repeated at will: a little in each run of CI, more in `make test-long`."""

import os

import pytest

IS_LONG = bool(os.environ.get("MEMSTORE_TEST_LONG"))

repeats = pytest.mark.long
"""For what uses `amount`: `make test-long` runs it."""


def amount(few: int, many: int) -> int:
    """How often, or how many. few: in each run of CI. many: in `make test-long`."""
    return many if IS_LONG else few

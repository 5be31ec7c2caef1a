"""A test that hangs or ends its process costs that test alone: the run goes on, ends, and names it.

`pytest-timeout` raises an exception in the test. That is not enough for a test that waits uninterruptibly, and once
a test has failed, nothing bounds its teardown: one lock that is never released would stop the whole run in silence.
Such a process is ended here, with the stacks of its threads; xdist reports the test as failed and starts another one
(see `scheduling.py`).
"""

import faulthandler
import os
from collections.abc import Generator

import pytest

SECONDS = float(os.environ.get("MEMSTORE_TEST_HANGS", "420"))
"""How long a phase of a test (setup, call, teardown) may take: longer than `timeout` in pyproject.toml."""

_printed = os.dup(2)  # before pytest captures what tests print


def _watched() -> Generator[None, None, None]:
    # Each phase anew: a test that fails ends the watch.
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=_printed)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    return (yield from _watched())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    return (yield from _watched())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    return (yield from _watched())

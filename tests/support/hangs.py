"""A test that hangs or ends its process costs that test alone: the run goes on, ends, and names it.

`pytest-timeout` raises an exception in the test. That is not enough for a test that waits uninterruptibly, and once
a test has failed, nothing bounds its teardown: one lock that is never released would stop the whole run in silence.
Such a process is ended here, with the stacks of its threads; xdist reports the test as failed and starts another one.
"""

import faulthandler
import os
from collections.abc import Generator
from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadGroupScheduling | None:
    return _Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


class _Scheduling(LoadGroupScheduling):  # type: ignore[misc] # xdist has no types
    """xdist's own runs a test that ended its process again and again, and may wait for a new process for ever."""

    def remove_node(self, node: WorkerController) -> str | None:
        units = self.assigned_work[node]
        under_way = next((test for unit in units.values() for test, is_over in unit.items() if not is_over), None)
        if under_way is not None:
            units[self._split_scope(under_way)][under_way] = True
        for scope in [scope for scope, unit in units.items() if all(unit.values())]:
            del units[scope]
        super().remove_node(node)
        return under_way

    def schedule(self) -> None:
        super().schedule()
        for node in self.nodes:
            self._reschedule(node)  # a process begins with a test when it knows of another one, or of the end

"""Which test runs where and when: the dearest first, on more processes than there are processors."""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

PROCESSES_BEYOND_PROCESSORS = 2
"""Half of the time a test waits: for a disk, a lease, a heartbeat, a process that ends."""

DEAREST = (
    "tests.container.test_image",
    "tests/openapi/test_schemathesis.py::test_schemathesis_finds_no_500_and_no_undocumented_answer",
    "tests.mount.test_daemon",
    "tests.mount.test_cli_mount",
    "concurrency-postgres-s3",
    "tests/faults/test_poolers.py::test_behind_a_pooler_every_call_of_the_sdk_works_whatever_its_mode_and_its_size",
    "concurrency-sqlite-disk",
    "tests.mount.test_posix",
    "tests/outcomes/test_unknown_outcomes.py::test_what_was_committed_stays_though_nobody_heard_of_it",
    "tests.faults.test_replicas",
    "tests/faults/test_kill.py::test_every_acknowledged_write_is_there_after_kill_9_under_load",
    "tests.transfer.test_memory",
    "tests/mount/test_model.py::test_mounts_and_store_agree_with_the_model",
    "ceph",
    "tests.erasure.test_jobs",
    "tests.backup.test_full_disks",
)
"""Units that take longer than ten quiet seconds, the longest first: a group, or a test without its parameters.

One that came last would keep one process busy when the others have nothing left. `make test` prints what takes long.
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto` and `-n logical`."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors + PROCESSES_BEYOND_PROCESSORS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadGroupScheduling | None:
    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def precedence(unit: str) -> int:
    """Where a group or a test stands in `DEAREST`; behind them all if it is not there."""
    name = unit.partition("[")[0]
    return DEAREST.index(name) if name in DEAREST else len(DEAREST)


class Scheduling(LoadGroupScheduling):  # type: ignore[misc] # xdist has no types
    """xdist's own runs a test that ended its process again and again, and may wait for a new process for ever."""

    _has_begun = False

    def remove_node(self, node: WorkerController) -> str | None:
        units = self.assigned_work[node]
        under_way = next((test for unit in units.values() for test, is_over in unit.items() if not is_over), None)
        if under_way is not None:
            units[self._split_scope(under_way)][under_way] = True
        for scope in [scope for scope, unit in units.items() if all(unit.values())]:
            del units[scope]
        super().remove_node(node)
        return under_way

    def _assign_work_unit(self, node: WorkerController) -> None:
        if not self._has_begun:
            for unit in sorted(self.workqueue, key=precedence, reverse=True):
                if precedence(unit) < len(DEAREST):
                    self.workqueue.move_to_end(unit, last=False)
            self._has_begun = True
        super()._assign_work_unit(node)

    def schedule(self) -> None:
        super().schedule()
        for node in self.nodes:
            self._reschedule(node)  # a process begins with a test when it knows of another one, or of the end

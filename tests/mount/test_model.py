"""Random sequences of file operations, crashes and cuts by several mounts and the API, against a plain model.

CI runs the same few sequences each time. For more of them, and other ones each time, say how many:

    MEMSTORE_TEST_MODEL_EXAMPLES=500 pytest tests/mount/test_model.py --timeout=0

A failing one is kept in .hypothesis and comes first in the next such run. It is reduced to its shortest, which takes
minutes, if MEMSTORE_TEST_MODEL_SHRINK is set. Without FUSE the mounts are mirrors.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.mount.model.everybody import EverybodyAtOnce
from tests.mount.model.machine import Machine
from tests.mount.model.one_writer import OneWriterAtATime
from tests.mount.model.world import World
from tests.support.amounts import amount, repeats
from tests.support.backends import SQLITE_DISK, Backend, Services
from tests.support.servers import serve

EXAMPLES = os.environ.get("MEMSTORE_TEST_MODEL_EXAMPLES")
SHRINK = [Phase.shrink] if os.environ.get("MEMSTORE_TEST_MODEL_SHRINK") else []

ANYWHERE = settings(deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
IN_CI = settings(ANYWHERE, stateful_step_count=30, derandomize=True, phases=[Phase.generate])
EXAMPLES_IN_CI = {OneWriterAtATime: amount(6, 60), EverybodyAtOnce: amount(4, 40)}
LONG = settings(
    ANYWHERE,
    max_examples=int(EXAMPLES or 1),
    stateful_step_count=40,
    phases=[Phase.reuse, Phase.generate, *SHRINK],
)


@pytest.fixture
def world(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serve(Backend(SQLITE_DISK, services).environment(tmp_path_factory.mktemp("server"))) as server:
        world = World(server)
        try:
            yield world
        finally:
            world.close()


@repeats
@pytest.mark.parametrize("machine", [OneWriterAtATime, EverybodyAtOnce])
def test_mounts_and_store_agree_with_the_model(machine: type[Machine], world: World) -> None:
    in_this_world = type(machine.__name__, (machine,), {"world": world})
    few = settings(IN_CI, max_examples=EXAMPLES_IN_CI[machine])
    run_state_machine_as_test(in_this_world, settings=LONG if EXAMPLES else few)


@pytest.mark.parametrize("writer", [0, 1])
def test_what_is_erased_while_its_writer_is_away_stays_erased(world: World, writer: int) -> None:
    """The move that the few sequences above reach too seldom, by itself: through FUSE, where there is, and a mirror."""
    machine = type("OneWriter", (OneWriterAtATime,), {"world": world})()
    try:
        machine.another_writes(writer)
        for path in ("/x.md", "/a/x.md"):
            machine.write(path, 3, True)
        machine.memory_is_erased_while_its_writer_is_away(1, 2, True)
        machine.write("/x.md", 1, False)
        assert any("is erased" in line for line in machine.outcomes)
    finally:
        machine.teardown()

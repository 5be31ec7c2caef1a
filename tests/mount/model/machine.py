"""What the state machines of the model have in common: the names, the faults, and the end."""

import errno
import itertools
import sys
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from app.mount.daemon.orders import FUSE, MIRROR
from tests.mount.model.world import MountWriter, Place, Version, World, Writer

T = TypeVar("T")

DIRECTORIES = ["/a", "/b", "/a/c"]
FILES = [f"{directory}/{name}" for directory in ["", *DIRECTORIES] for name in ("x.md", "y.md")]

directories = st.sampled_from(DIRECTORIES)
files = st.sampled_from(FILES)
everything = st.sampled_from(FILES + DIRECTORIES)
lines = st.integers(0, 4)
sizes = st.sampled_from([0, 1, 9, 40])
FAULTS = 5
"""In one sequence: each takes seconds, and has to leave room for what happens between them."""

IN_STEP_SECONDS = 5.0
"""How long a mirror is waited for before it is killed."""

cuts = st.sampled_from(["refuse", "hang"])
specials = st.sampled_from(["link", "pipe", "bytes"])
first_or_second = st.integers(0, 1)


NEED_CONTENT = ("append", "truncate", "read", "rename")
"""What a mount can't do with a memory whose content it has yet to fetch."""


class Machine(RuleBasedStateMachine):
    """What both machines share: the world, its faults, and the end.

    No rule has a precondition: what can't be done now is left out by the rule itself. Else how a process happened to be
    would decide what Hypothesis draws, and it must draw the same again.
    """

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.scene = self.world.open()
        self.api = self.scene.api
        self.numbers = itertools.count(1)
        self.is_down = False
        """The server is."""
        self.faults_left = FAULTS
        self.forgetful: list[Place] = []
        """Whose worker died since everything was read: without the server it may lack contents, not names."""
        self.outcomes: list[str] = []

    def text(self, count: int) -> str:
        """So many lines that nobody else ever writes."""
        return "".join(f"line {next(self.numbers):04}\n" for _ in range(count))

    def told(self, line: str) -> None:
        self.outcomes.append(line)

    def make_special(self, writer: Writer, path: str, kind: str) -> None:
        """Put something beside the path that no memory can be, and remove it: neither a mount nor the store minds."""
        if not isinstance(writer, MountWriter) or (writer.mode == FUSE and kind == "bytes"):
            return
        special = f"{path.rpartition('/')[0]}/special"
        outcome = outcome_of(lambda: writer.make_special(special, kind))
        self.told(f"{writer} make_special{special, kind} → {outcome}")
        allowed = ("ENOENT", "ENOTDIR", "EPERM") if writer.mode == FUSE else (None, "ENOENT", "ENOTDIR")
        assert outcome in allowed, f"{writer} make_special{special, kind}: {outcome}"

    # Faults.

    def place(self, number: int) -> Place:
        return self.world.places[number % len(self.world.places)]

    def may_die(self, place: Place) -> bool:
        """Whether its mirrors are in step, and can stay so.

        Nobody can know of a file that is gone whether it was deleted, if its mirror did not live to see it; and one
        that dies while it renames a file for others takes the new name for a new file (docs/mount.md, limits).
        """
        return all(self._is_in_step(mount, place) for mount in place.mounts if mount.mode == MIRROR)

    def _is_in_step(self, mirror: MountWriter, place: Place) -> bool:
        if mirror.unseen_deletes or self.is_down or place.is_cut:
            return False
        until = time.monotonic() + IN_STEP_SECONDS
        while outcome_of(mirror.texts) != self.api.texts():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return mirror.flush() == []

    @rule(number=first_or_second, how=cuts)
    def network_is_cut(self, number: int, how: str) -> None:
        if self.faults_left <= 0:
            return
        self.faults_left -= 1
        self.told(f"network {number}: {how}")
        self.place(number).cut(how)

    @rule()
    def network_is_mended(self) -> None:
        self.told("network works")
        self.world.mend()

    @rule(number=first_or_second)
    def worker_dies(self, number: int) -> None:
        place = self.place(number)
        if self.faults_left > 0 and self.may_die(place):
            self.faults_left -= 1
            self.told(f"worker {number} dies")
            self.kill_worker(place)

    @rule(number=first_or_second)
    def daemon_dies_and_is_started_again(self, number: int) -> None:
        place = self.place(number)
        if self.faults_left > 0 and self.may_die(place):
            self.faults_left -= 1
            self.told(f"daemon {number} dies")
            self.forgetful.append(place)
            if place.is_cut:
                place.cut("refuse")  # a start that waits out every time limit of a server that hangs takes minutes
            place.crash()
            self.after_crash(place)

    def kill_worker(self, place: Place) -> None:
        self.forgetful.append(place)
        place.kill_worker()

    def may_lack_contents(self, writer: Writer) -> bool:
        if not isinstance(writer, MountWriter) or writer.place not in self.forgetful:
            return False
        return self.is_down or writer.place.is_cut

    def after_crash(self, place: Place) -> None:
        """The mounts are new."""

    @rule()
    def server_dies(self) -> None:
        if self.is_down or self.faults_left <= 0:
            return
        self.faults_left -= 2
        self.told("server dies")
        self.is_down = True
        self.world.server.kill()

    @rule()
    def server_is_started_again(self) -> None:
        if not self.is_down:
            return
        self.told("server starts")
        self.is_down = False
        self.world.server.start()

    def mend(self) -> None:
        if self.is_down:
            self.server_is_started_again()
        self.world.mend()

    # The end.

    def finish(self) -> None:
        """Check everything; see `teardown`."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Check the whole and leave nothing, however it ended."""
        error = sys.exc_info()[1]
        if error is not None:
            self._give_up(error)
            return
        try:
            self.finish()
            self.world.close_scene()
        except BaseException as late:
            self._give_up(late)
            raise

    def _give_up(self, error: BaseException) -> None:
        """Say how it came to the error, also if it does not come again when Hypothesis repeats the steps."""
        error.add_note("what came of each step:\n  " + "\n  ".join(self.outcomes))
        error.add_note(f"history:\n  {self._last_history()}")
        error.add_note(self.world.logs())
        self.world.start_over()

    def _last_history(self) -> str:
        try:
            return "\n  ".join(map(str, self.api.versions()))
        except Exception as error:
            return str(error)


def outcome_of(call: Callable[[], T]) -> T | str:
    """What it returns, or the name of the errno."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def check_fold(versions: list[Version], stored: dict[str, str]) -> None:
    """The history, from its beginning, comes to what the store holds."""
    heads: dict[str, tuple[str, str]] = {}
    for version in versions:
        if version.operation == "deleted":
            assert heads.pop(version.memory_id)[0] == version.path
            continue
        assert (version.operation == "created") == (version.memory_id not in heads), version
        assert version.text is not None
        heads[version.memory_id] = version.path, version.text
    assert dict(heads.values()) == stored

"""A call that is refused changes nothing; and what is known to be refused is refused at the call that begins it."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.mount.door.api import StoreApi
from app.mount.fuse.filesystem.recent_refusals import FRESH_SECONDS, KnownRefusals
from app.mount.fuse.filesystem.texts import SCRATCH_MAX_BYTES
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import Offline, Refused
from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = needs_fuse


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/notes.md", "one\n")
    engine.other_writes("/café.md", "café")
    engine.other_writes("/d/inside.md", "two\n")
    return engine


@pytest.fixture
def mount(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


def fails_with(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        call()


def make(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def is_unchanged(mount: Mounted, engine: FakeEngine) -> None:
    """Nothing of a refused call is left."""
    mount.told()
    assert sorted(os.listdir(mount.path)) == ["café.md", "d", "notes.md"]
    assert (mount.path / "notes.md").stat().st_size == 4
    assert (mount.path / "notes.md").read_text() == "one\n"
    assert (mount.path / "café.md").read_text() == "café"
    assert mount.filesystem.status()["refused"] == []
    before = list(engine.asked)
    assert mount.filesystem.flush(10) == []
    assert engine.asked == before


class TestNothingIsLeft:
    @pytest.mark.parametrize("size", [0, 2, 9])
    def test_of_a_truncate_by_name(self, engine: FakeEngine, mount: Mounted, size: int) -> None:
        engine.refusal = Refused(errno.EACCES, "no")
        fails_with(errno.EACCES, lambda: os.truncate(mount.path / "notes.md", size))
        is_unchanged(mount, engine)

    def test_of_a_truncate_that_nobody_could_keep(self, engine: FakeEngine, mount: Mounted) -> None:
        def offline(*arguments: object, **options: object) -> None:
            raise Offline

        engine.save = offline  # type: ignore[method-assign, assignment]
        fails_with(errno.EIO, lambda: os.truncate(mount.path / "notes.md", 2))
        is_unchanged(mount, engine)

    def test_of_a_truncate_in_the_middle_of_a_character(self, engine: FakeEngine, mount: Mounted) -> None:
        fails_with(errno.EILSEQ, lambda: os.truncate(mount.path / "café.md", 4))
        is_unchanged(mount, engine)

    def test_of_a_truncate_of_a_text_that_was_refused_before(self, engine: FakeEngine, mount: Mounted) -> None:
        engine.refusal = Refused(errno.EDQUOT, "the store is full")
        mount.run("echo more >> notes.md", check=False)
        fails_with(errno.EDQUOT, lambda: os.truncate(mount.path / "notes.md", 2))
        assert (mount.path / "notes.md").read_text() == "one\nmore\n"
        assert [item["path"] for item in mount.filesystem.status()["refused"]] == ["/notes.md"]

    def test_of_a_mknod(self, engine: FakeEngine, mount: Mounted) -> None:
        engine.refusal = Refused(errno.EDQUOT, "the store is full")
        fails_with(errno.EDQUOT, lambda: os.mknod(mount.path / "new.md"))
        fails_with(errno.ENOENT, lambda: os.stat(mount.path / "new.md"))
        is_unchanged(mount, engine)

    def test_of_a_mknod_in_place_of_what_a_backup_was_made_of(self, engine: FakeEngine, mount: Mounted) -> None:
        os.rename(mount.path / "notes.md", mount.path / "notes.md~")
        engine.refusal = Refused(errno.EACCES, "no")
        fails_with(errno.EACCES, lambda: os.mknod(mount.path / "notes.md"))
        mount.told()
        assert (mount.path / "notes.md~").read_text() == "one\n"
        assert (mount.path / "notes.md").read_text() == engine.texts()["/notes.md"] == "one\n"

    def test_of_a_write_to_a_backup_that_is_too_much_for_it(self, engine: FakeEngine, mount: Mounted) -> None:
        backup = mount.path / "notes.md~"
        os.rename(mount.path / "notes.md", backup)
        descriptor = os.open(backup, os.O_WRONLY)
        fails_with(errno.EFBIG, lambda: os.pwrite(descriptor, b"x", SCRATCH_MAX_BYTES))
        os.close(descriptor)
        mount.settle()
        mount.told()
        assert backup.read_text() == "one\n"
        os.rename(backup, mount.path / "notes.md")
        is_unchanged(mount, engine)
        assert engine.asked == []


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda root: make(root / "new.md"),
    "mknod": lambda root: os.mknod(root / "new.md"),
    "mkdir": lambda root: os.mkdir(root / "new"),
    "truncate": lambda root: os.truncate(root / "notes.md", 0),
    "chmod": lambda root: os.chmod(root / "notes.md", 0o600),
    "chmod of a directory": lambda root: os.chmod(root / "d", 0o700),
    "utime": lambda root: os.utime(root / "notes.md"),
    "rename": lambda root: os.rename(root / "notes.md", root / "new.md"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_archived_store_refuses_every_change_but_removals(engine: FakeEngine, mount: Mounted, change: str) -> None:
    engine.archived = True
    engine.refusal = Refused(errno.EROFS, "the store is archived")
    engine.on_feed("")
    mount.told()
    fails_with(errno.EROFS, lambda: CHANGES[change](mount.path))
    is_unchanged(mount, engine)
    engine.refusal = None
    os.unlink(mount.path / "d" / "inside.md")
    assert "/d/inside.md" not in engine.texts()


class TestWhatIsKnown:
    """Told when an edit begins, not when it ends."""

    def fill(self, engine: FakeEngine, mount: Mounted, number: int) -> None:
        """Have one save refused."""
        engine.refusal = Refused(number, "no")
        mount.run("echo text > refused.md", check=False)
        mount.settle()
        assert mount.filesystem.status()["refused"] == [{"path": "/refused.md", "reason": "no"}]
        engine.refusal = None

    def test_a_full_store_takes_no_new_file_but_new_texts(self, engine: FakeEngine, mount: Mounted) -> None:
        self.fill(engine, mount, errno.EDQUOT)
        fails_with(errno.EDQUOT, lambda: make(mount.path / "new.md"))
        fails_with(errno.EDQUOT, lambda: os.mknod(mount.path / "new.md"))
        mount.run("echo two > .notes.md.swp && sed -i s/one/two/ notes.md")
        assert engine.texts()["/notes.md"] == "two\n"

    @pytest.mark.parametrize("by_others", [True, False])
    def test_a_removal_makes_room(self, engine: FakeEngine, mount: Mounted, by_others: bool) -> None:
        self.fill(engine, mount, errno.EDQUOT)
        if by_others:
            engine.other_removes("/notes.md")
        else:
            os.unlink(mount.path / "notes.md")
        make(mount.path / "new.md")
        until(lambda: "/new.md" in engine.texts(), "the new file is saved")

    def test_without_the_right_nothing_is_opened_for_writing(self, engine: FakeEngine, mount: Mounted) -> None:
        self.fill(engine, mount, errno.EACCES)
        fails_with(errno.EACCES, lambda: make(mount.path / "new.md"))
        fails_with(errno.EACCES, lambda: os.open(mount.path / "notes.md", os.O_WRONLY))
        assert (mount.path / "notes.md").read_text() == "one\n"

    def test_a_deleted_store_opens_nothing_for_writing(self, engine: FakeEngine, mount: Mounted) -> None:
        engine.gone = True
        engine.on_feed("lost")
        mount.told()
        fails_with(errno.ESTALE, lambda: make(mount.path / "new.md"))
        fails_with(errno.ESTALE, lambda: os.open(mount.path / "notes.md", os.O_WRONLY))

    def test_a_refusal_counts_for_a_while_only(self) -> None:
        now = 100.0
        known = KnownRefusals(lambda: now)
        known.note(Refused(errno.ESTALE, "of one text only"))
        known.check(is_new=True)
        known.note(Refused(errno.EDQUOT, "no room"))
        known.check(is_new=False)
        fails_with(errno.EDQUOT, lambda: known.check(is_new=True))
        now += FRESH_SECONDS
        known.check(is_new=True)


class TestTheAuthor:
    def test_is_asked_for_in_the_background(self, engine: FakeEngine, mount: Mounted) -> None:
        entry, path = engine.get("/notes.md"), mount.path / "notes.md"
        assert entry is not None
        engine.may_go_on.clear()
        with ThreadPoolExecutor(1) as pool:
            author = pool.submit(os.getxattr, path, "user.memstore.author")
            assert (mount.path / "d" / "inside.md").read_text() == "two\n"
            assert not author.done()
            engine.may_go_on.set()
            assert author.result().decode() == f"user_actor:author of {entry.version_id}"
        fails_with(errno.ENODATA, lambda: os.getxattr(mount.path / "d", "user.memstore.author"))

    def test_may_be_refused(self, engine: FakeEngine, mount: Mounted) -> None:
        engine.refusal = Refused(errno.EACCES, "no")
        fails_with(errno.EACCES, lambda: os.getxattr(mount.path / "notes.md", "user.memstore.author"))

    def test_is_the_one_of_the_history(
        self, server: Server, client: anthropic.Anthropic, store: Store, tmp_path: Path
    ) -> None:
        engine = StoreEngine(
            StoreApi(server.base_url, store.id, lambda: server.api_key),
            directory=tmp_path / "state",
            content_cache=ContentCache(tmp_path / "cache"),
            read_only=False,
            label="test",
        )
        with mounted(engine, tmp_path / "mnt") as mount:
            (mount.path / "notes.md").write_text("one\n")
            mount.settle()
            assert engine.flush(60) == []
            (version,) = client.beta.memory_stores.memory_versions.list(store.id)
            assert version.created_by is not None
            assert version.created_by.type == "api_actor"
            author = os.getxattr(mount.path / "notes.md", "user.memstore.author").decode()
            assert author == f"api_actor:{version.created_by.api_key_id}"
            os.close(os.open(mount.path / ".notes.md.swp", os.O_WRONLY | os.O_CREAT))
            fails_with(errno.ENODATA, lambda: os.getxattr(mount.path / ".notes.md.swp", "user.memstore.author"))

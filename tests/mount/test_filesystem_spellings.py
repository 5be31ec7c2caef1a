"""A name in a mount is the same however its characters are put together: stored composed (NFC), found by any."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse

pytestmark = needs_fuse


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/Müller.md", "one\n")
    engine.other_writes("/Köln/Ärzte.md", "two\n")
    return engine


@pytest.fixture
def mount(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


def test_a_memory_is_found_by_its_decomposed_name(mount: Mounted) -> None:
    assert (mount.path / nfd("Müller.md")).read_text() == "one\n"
    assert (mount.path / nfd("Köln") / nfd("Ärzte.md")).read_text() == "two\n"
    assert (mount.path / "Köln" / nfd("Ärzte.md")).read_text() == "two\n"
    assert (mount.path / "Köln" / "Ärzte.md").read_text() == "two\n"
    assert sorted(os.listdir(mount.path)) == ["Köln", "Müller.md"]


def test_a_file_made_under_a_decomposed_name_is_one_memory_with_a_composed_path(
    engine: FakeEngine, mount: Mounted
) -> None:
    assert not (mount.path / "Öl" / "größe.md").exists()
    (mount.path / nfd("Öl")).mkdir()
    (mount.path / nfd("Öl") / nfd("größe.md")).write_text("text\n")
    mount.told()
    assert engine.texts()["/Öl/größe.md"] == "text\n"
    assert os.listdir(mount.path / "Öl") == ["größe.md"]
    assert (mount.path / "Öl" / "größe.md").read_text() == "text\n"
    os.mknod(mount.path / nfd("Übung.md"))
    assert engine.texts()["/Übung.md"] == ""
    with pytest.raises(FileExistsError):
        os.mkdir(mount.path / nfd("Köln"))
    with pytest.raises(FileExistsError):
        os.close(os.open(mount.path / nfd("Müller.md"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def test_an_edit_under_a_decomposed_name_is_a_version_of_the_memory(engine: FakeEngine, mount: Mounted) -> None:
    memory = engine.get("/Müller.md")
    assert memory is not None
    with (mount.path / nfd("Müller.md")).open("a") as file:
        file.write("more\n")
    after = engine.get("/Müller.md")
    assert after is not None
    assert after.memory_id == memory.memory_id
    assert (mount.path / "Müller.md").read_text() == "one\nmore\n"


def test_what_others_do_shows_under_every_spelling(engine: FakeEngine, mount: Mounted) -> None:
    decomposed = mount.path / nfd("Müller.md")
    assert not (mount.path / nfd("später.md")).exists()
    assert decomposed.read_text() == "one\n"
    engine.other_writes("/Müller.md", "changed\n")
    engine.other_writes("/später.md", "new\n")
    mount.told()
    assert decomposed.read_text() == "changed\n"
    assert (mount.path / nfd("später.md")).read_text() == "new\n"
    engine.other_removes("/Müller.md")
    mount.told()
    assert not decomposed.exists()


def test_removing_by_one_spelling_removes_it_under_the_other(engine: FakeEngine, mount: Mounted) -> None:
    assert (mount.path / "Müller.md").exists()
    (mount.path / nfd("Müller.md")).unlink()
    mount.told()
    assert not (mount.path / "Müller.md").exists()
    assert "/Müller.md" not in engine.texts()
    (mount.path / "Öde").mkdir()
    (mount.path / nfd("Öde")).rmdir()
    mount.told()
    assert not (mount.path / "Öde").exists()


def test_renames_between_spellings(engine: FakeEngine, mount: Mounted) -> None:
    composed, decomposed = mount.path / "Müller.md", mount.path / nfd("Müller.md")
    assert composed.exists()
    os.rename(composed, decomposed)  # the same name: nothing happens
    mount.told()
    assert composed.read_text() == decomposed.read_text() == "one\n"
    os.rename(decomposed, mount.path / nfd("Jürgen.md"))
    mount.told()
    assert not composed.exists()
    assert not decomposed.exists()
    assert (mount.path / "Jürgen.md").read_text() == (mount.path / nfd("Jürgen.md")).read_text() == "one\n"
    os.rename(mount.path / nfd("Köln"), mount.path / nfd("Düren"))
    mount.told()
    assert sorted(os.listdir(mount.path)) == ["Düren", "Jürgen.md"]
    assert engine.texts() == {"/Düren/Ärzte.md": "two\n", "/Jürgen.md": "one\n"}
    assert (mount.path / "Düren" / nfd("Ärzte.md")).read_text() == "two\n"


def test_a_copy_as_rsync_makes_it_is_one_file_under_the_composed_name(engine: FakeEngine, mount: Mounted) -> None:
    temporary = mount.path / nfd(".Müller.md.X7b2kQ")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, b"copied\n")
    os.close(descriptor)
    os.utime(temporary, (1, 1))
    os.rename(temporary, mount.path / nfd("Müller.md"))
    mount.settle()
    mount.told()
    assert engine.texts()["/Müller.md"] == "copied\n"
    assert sorted(os.listdir(mount.path)) == ["Köln", "Müller.md"]
    assert os.stat(mount.path / nfd("Müller.md")).st_mtime == os.stat(mount.path / "Müller.md").st_mtime == 1

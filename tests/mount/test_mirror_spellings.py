"""Names in another spelling in a mirror: one memory has one file, under the composed name, and no text is lost."""

import errno
import os
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mirror_support import FakeStore, Mirror, eventually

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "/café.md") for form in ("NFC", "NFD"))
ABOVE, ABOVE_DECOMPOSED = (unicodedata.normalize(form, "/übung") for form in ("NFC", "NFD"))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore({"/plan.md": "plan\n", COMPOSED: "old\n", "/other.md": "other\n"})


@pytest.fixture
def mirror(store: FakeStore, tmp_path: Path) -> Iterator[Mirror]:
    with Mirror(store, tmp_path) as mirror:
        yield mirror


def write(mirror: Mirror, path: str, text: str) -> None:
    file = mirror.path / path[1:]
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("name", [unicodedata.normalize("NFD", "/mañana.md"), "/5\u2126.md", "/\u1112\u1161\u11ab.md"])
def test_a_new_file_gets_the_composed_name(store: FakeStore, mirror: Mirror, name: str) -> None:
    write(mirror, name, "new\n")
    expected = {**store.files(), unicodedata.normalize("NFC", name): "new\n"}
    eventually(lambda: store.files() == expected)
    assert mirror.settle() == []
    eventually(lambda: mirror.files() == expected)
    assert [version.operation for version in store.history] == ["created"]


def test_a_file_of_the_other_spelling_is_an_edit_of_the_memory(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries[COMPOSED].memory_id
    for text in ("new\n", "newer\n"):
        write(mirror, DECOMPOSED, text)
        eventually(lambda text=text: store.text(COMPOSED) == text)  # type: ignore[misc]
        eventually(lambda text=text: mirror.files() == {**store.files(), COMPOSED: text})  # type: ignore[misc]
    assert mirror.settle() == []
    assert store.entries[COMPOSED].memory_id == memory_id
    assert [version.text for version in store.history] == ["new\n", "newer\n"]


def test_a_copy_of_the_memory_under_the_other_spelling_is_no_second_file(store: FakeStore, mirror: Mirror) -> None:
    write(mirror, DECOMPOSED, "old\n")
    eventually(lambda: mirror.files() == store.files())
    assert store.history == []


def test_a_writer_that_stays_open_goes_on_in_the_same_memory(store: FakeStore, mirror: Mirror) -> None:
    name = unicodedata.normalize("NFD", "/mañana.md")
    with (mirror.path / name[1:]).open("w") as file:
        file.write("one\n")
        file.flush()
        mirror.front.flush(0)
        file.write("two\n")
    eventually(lambda: store.text(unicodedata.normalize("NFC", name)) == "one\ntwo\n")
    assert mirror.settle() == []
    eventually(lambda: mirror.files() == store.files())


def test_a_memory_that_is_renamed_to_the_other_spelling_keeps_its_id(store: FakeStore, mirror: Mirror) -> None:
    memory_id = store.entries["/plan.md"].memory_id
    name = unicodedata.normalize("NFD", "/Übung/mañana.md")
    (mirror.path / name[1:]).parent.mkdir()
    os.rename(mirror.path / "plan.md", mirror.path / name[1:])
    composed = unicodedata.normalize("NFC", name)
    eventually(lambda: store.text(composed) == "plan\n" and store.text("/plan.md") is None)
    assert mirror.settle() == []
    assert store.entries[composed].memory_id == memory_id
    eventually(lambda: mirror.files() == store.files())


def test_a_directory_of_the_other_spelling_is_the_same_directory(store: FakeStore, mirror: Mirror) -> None:
    store.put(f"{ABOVE}/one.md", b"one\n")
    eventually(lambda: f"{ABOVE}/one.md" in mirror.files())
    for name in ("two", "three"):
        write(mirror, f"{ABOVE_DECOMPOSED}/{name}.md", f"{name}\n")
        eventually(lambda name=name: store.text(f"{ABOVE}/{name}.md") == f"{name}\n")  # type: ignore[misc]
    directory = mirror.path / ABOVE_DECOMPOSED[1:]
    assert directory.is_dir(), "a program may go on to fill it"
    assert mirror.settle() == []
    eventually(lambda: mirror.files() == store.files())
    os.utime(directory, (time.time() - 3600, time.time() - 3600))
    mirror.settle()
    assert not directory.exists()


def test_a_renamed_directory_keeps_its_memories(store: FakeStore, mirror: Mirror) -> None:
    store.put("/deep/a.md", b"a\n")
    store.put("/deep/b.md", b"b\n")
    eventually(lambda: mirror.files() == store.files())
    ids = {entry.memory_id for path, entry in store.entries.items() if path.startswith("/deep/")}
    os.rename(mirror.path / "deep", mirror.path / ABOVE_DECOMPOSED[1:])
    eventually(lambda: {path for path in store.entries if path.startswith(ABOVE)} == {f"{ABOVE}/a.md", f"{ABOVE}/b.md"})
    assert mirror.settle() == []
    assert {entry.memory_id for path, entry in store.entries.items() if path.startswith(ABOVE)} == ids
    eventually(lambda: mirror.files() == store.files())


def test_two_texts_for_one_name_are_both_kept_when_neither_can_be_saved(store: FakeStore, mirror: Mirror) -> None:
    (mirror.path / COMPOSED[1:]).write_bytes(b"\xff\xfe")
    eventually(lambda: COMPOSED in mirror.refused())
    mirror.engine.refusals[COMPOSED] = errno.EDQUOT
    write(mirror, DECOMPOSED, "new\n")
    eventually(lambda: mirror.refused().keys() == {COMPOSED, DECOMPOSED})
    assert (mirror.path / COMPOSED[1:]).read_bytes() == b"\xff\xfe"
    assert (mirror.path / DECOMPOSED[1:]).read_text() == "new\n"
    assert mirror.settle() == sorted([COMPOSED, DECOMPOSED])
    assert mirror.stop() == sorted([COMPOSED, DECOMPOSED])
    assert (mirror.path / DECOMPOSED[1:]).read_text() == "new\n"


def test_a_directory_that_has_the_composed_name_is_named(store: FakeStore, mirror: Mirror) -> None:
    store.put(f"{ABOVE}/one.md", b"one\n")
    eventually(lambda: f"{ABOVE}/one.md" in mirror.files())
    write(mirror, ABOVE_DECOMPOSED, "new\n")
    eventually(lambda: mirror.refused() == {ABOVE_DECOMPOSED: errno.EISDIR})
    (refused,) = mirror.front.status()["refused"]
    assert ABOVE in refused["reason"]
    assert mirror.settle() == [ABOVE_DECOMPOSED]


def test_what_was_written_while_nobody_looked_gets_the_composed_name(store: FakeStore, mirror: Mirror) -> None:
    mirror.die()
    write(mirror, DECOMPOSED, "new\n")
    mirror.live_again()
    eventually(lambda: store.text(COMPOSED) == "new\n")
    assert mirror.stop() == []
    assert store.text(COMPOSED) == "new\n"

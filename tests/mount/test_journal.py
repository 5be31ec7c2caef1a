"""What the journal took is there after a crash, and what is damaged is said."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mount.sync.errors import MountError
from app.mount.sync.intents import Base, Intent, Kind
from app.mount.sync.journal import Journal, JournalFull


def save(number: int, text: str = "text") -> Intent:
    data = text.encode()
    return Intent(number, Kind.SAVE, f"/{number}.md", base=Base("00", None, None), sha256="ff", size=4, content=data)


def left_in(directory: Path) -> list[tuple[int, bytes]]:
    """Number and content of what the next process finds."""
    journal = Journal(directory)
    try:
        return [(intent.number, journal.content(intent.number)) for intent in journal.pending()]
    finally:
        journal.close()


def damage_of(directory: Path) -> list[str]:
    journal = Journal(directory)
    journal.close()
    return journal.damage


def test_what_is_pending_comes_back_in_order_with_everything_in_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    intent = save(1, "é\n" * 100)
    intent.base, intent.base_text = Base("abc", "mem_1", "memver_1"), "before, é".encode()
    journal.append(intent)
    journal.append(Intent(2, Kind.RENAME, "/a", "/b", base=Base("00", "mem_2", None), sha256="00"))
    journal.close()
    again = Journal(tmp_path)
    first, second = again.pending()
    assert (first.base_text, second.base_text) == ("before, é".encode(), None)
    assert (first.number, first.kind, first.path, first.base) == (
        1,
        Kind.SAVE,
        "/1.md",
        Base("abc", "mem_1", "memver_1"),
    )
    assert (second.number, second.kind, second.path, second.new_path) == (2, Kind.RENAME, "/a", "/b")
    assert first.attempted
    assert again.content(1) == "é\n".encode() * 100
    assert again.last_number == 2
    again.close()


def test_what_is_done_does_not_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in (1, 2, 3):
        journal.append(save(number))
    journal.done(2)
    journal.close()
    assert [number for number, _ in left_in(tmp_path)] == [1, 3]


def test_an_idle_journal_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(1, 50):
        journal.append(save(number, "x" * 1_000))
    for number in range(1, 50):
        journal.done(number)
    assert (tmp_path / "journal").stat().st_size == 0
    journal.close()


def test_compaction_keeps_what_is_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.mount.sync.journal._COMPACT_BYTES", 10_000)
    journal = Journal(tmp_path)
    journal.append(save(1, "kept"))
    journal.sent(1, "aa")
    for number in range(2, 200):
        journal.append(save(number, "x" * 1_000))
        journal.done(number)
    assert (tmp_path / "journal").stat().st_size < 30_000
    assert journal.content(1) == b"kept"
    journal.append(save(200, "later"))
    journal.close()
    assert left_in(tmp_path) == [(1, b"kept"), (200, b"later")]
    again = Journal(tmp_path)
    assert again.pending()[0].sent == ["aa"]
    again.close()


def test_what_is_done_is_not_in_the_file_after_the_next_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number, text in enumerate(["kept", "done with", "kept too"], start=1):
        journal.append(save(number, text))
    journal.done(2)
    journal.close()
    (tmp_path / "journal.new").write_bytes(b"a compaction that was cut off: done with")
    again = Journal(tmp_path)
    assert b"done with" not in (tmp_path / "journal").read_bytes()
    assert [file.name for file in tmp_path.iterdir() if b"done with" in file.read_bytes()] == []
    assert [again.content(intent.number) for intent in again.pending()] == [b"kept", b"kept too"]
    again.append(save(4, "later"))
    again.close()
    (tmp_path / "journal.new").write_bytes(b"another one")
    assert left_in(tmp_path) == [(1, b"kept"), (3, b"kept too"), (4, b"later")]
    assert not (tmp_path / "journal.new").exists()


@given(cut=st.integers(1, 150))
def test_a_torn_last_record_is_dropped_and_the_others_stay(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory)
    journal.append(save(1))
    whole = (directory / "journal").stat().st_size
    journal.append(save(2, "y" * 500))
    journal.close()
    os.truncate(directory / "journal", whole + cut)
    assert damage_of(directory) == []
    assert left_in(directory) == [(1, b"text")]
    assert (directory / "journal").stat().st_size == whole


@given(place=st.floats(0, 1, exclude_max=True))
def test_a_damaged_record_is_reported_kept_and_the_others_are_read(
    tmp_path_factory: pytest.TempPathFactory, place: float
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory)
    ends = [0]
    for number in (1, 2, 3):
        journal.append(save(number, f"text {number}"))
        ends.append((directory / "journal").stat().st_size)
    journal.close()
    data = bytearray((directory / "journal").read_bytes())
    hit = ends[1] + int(place * (ends[2] - ends[1]))
    data[hit] ^= 0x55
    (directory / "journal").write_bytes(data)
    reports = damage_of(directory)
    assert len(reports) == 1
    kept = list(directory.glob("journal.damaged-*"))
    assert [path.read_bytes() for path in kept] == [bytes(data[ends[1] : ends[2]])]
    assert str(kept[0]) in reports[0]
    assert left_in(directory) == [(1, b"text 1"), (3, b"text 3")]
    assert damage_of(directory) == [], "it is reported once"


def test_damage_of_the_last_record_is_reported_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(save(1))
    journal.close()
    data = bytearray((tmp_path / "journal").read_bytes())
    data[-1] ^= 1
    (tmp_path / "journal").write_bytes(data)
    assert len(damage_of(tmp_path)) == 1


def test_a_full_journal_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=2_000)
    journal.append(save(1, "x" * 1_000))
    with pytest.raises(JournalFull):
        journal.append(save(2, "x" * 1_000))
    journal.done(1)
    journal.append(save(3, "x" * 1_000))
    journal.close()
    assert [number for number, _ in left_in(tmp_path)] == [3]


def test_two_processes_can_not_have_the_same_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(MountError, match="another process"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


WRITER = """
import sys
from pathlib import Path
from app.mount.sync.intents import Intent, Kind
from app.mount.sync.journal import Journal
journal = Journal(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    journal.append(Intent(number, Kind.SAVE, f"/{number}.md", sha256="00", content=b"x" * (number % 3_000)))
    if number % 3 == 0:
        journal.done(number)
    print(number, flush=True)
"""


def test_what_append_returned_for_survives_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        *_, last = itertools.islice(writer.stdout, 100)
        writer.send_signal(signal.SIGKILL)
        printed = [int(last), *map(int, writer.stdout.read().split())]
    found = dict(left_in(tmp_path))
    for number in range(1, printed[-1] + 1):
        assert (number in found) == (number % 3 != 0)
        assert number % 3 == 0 or found[number] == b"x" * (number % 3_000)

"""Texts that could not be saved stay on this host until a person takes or discards them."""

import json
import os
import stat
from pathlib import Path

import pytest

from app.mount.sync.errors import MountError
from app.mount.sync.kept import KeptHere, KeptTexts

BYTES = b"caf\xc3"


@pytest.fixture
def texts(tmp_path: Path) -> KeptTexts:
    return KeptHere(tmp_path / "kept").of("memstore_1")


def test_what_is_kept_is_told_with_its_reason_and_the_place_of_its_bytes(texts: KeptTexts) -> None:
    kept = texts.keep("/notes/h.md", BYTES, "not UTF-8", memory_id="mem_1")
    assert (kept.path, kept.reason, kept.memory_id, kept.size) == ("/notes/h.md", "not UTF-8", "mem_1", 4)
    assert kept.place.read_bytes() == texts.show(kept.id) == BYTES
    assert texts.list() == [kept] == [texts.get(kept.id)]
    json.dumps(kept.to_json())


def test_another_process_finds_it_with_its_store(texts: KeptTexts, tmp_path: Path) -> None:
    assert list(KeptHere(tmp_path / "kept").all()) == []
    kept = texts.keep("/a.md", b"text", "no room")
    assert list(KeptHere(tmp_path / "kept").all()) == [("memstore_1", kept)]


def test_only_its_user_can_read_it(texts: KeptTexts, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        kept = texts.keep("/a.md", b"text", "no room")
    finally:
        os.umask(umask)
    found = list((tmp_path / "kept").rglob("*"))
    assert kept.place in found
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "kept", *found] if path.is_dir()} == {0o700}


def test_the_same_text_is_kept_once_and_other_texts_of_the_path_each(texts: KeptTexts) -> None:
    one = texts.keep("/a.md", b"text", "no room")
    assert texts.keep("/a.md", b"text", "no room") == one
    texts.keep("/a.md", b"another", "no room")
    texts.keep("/b.md", b"text", "no room")
    assert [(kept.path, kept.size) for kept in texts.list()] == [("/a.md", 4), ("/a.md", 7), ("/b.md", 4)]


def test_a_taken_text_is_in_the_file_and_kept_no_longer(texts: KeptTexts, tmp_path: Path) -> None:
    kept = texts.keep("/a.md", BYTES, "not UTF-8")
    texts.take(kept.id, tmp_path / "rescued")
    assert (tmp_path / "rescued").read_bytes() == BYTES
    assert texts.list() == []


def test_a_text_that_cannot_be_taken_is_still_kept(texts: KeptTexts, tmp_path: Path) -> None:
    kept = texts.keep("/a.md", BYTES, "not UTF-8")
    (tmp_path / "there").write_text("mine")
    for target in (tmp_path / "there", tmp_path / "none" / "x", Path("/dev/full")):
        with pytest.raises(OSError, match="Errno"):
            texts.take(kept.id, target)
    assert (tmp_path / "there").read_text() == "mine"
    assert texts.list() == [kept]


def test_a_discarded_text_is_gone_from_the_disk(texts: KeptTexts, tmp_path: Path) -> None:
    kept = texts.keep("/a.md", b"text", "no room")
    texts.discard(kept.id)
    assert list((tmp_path / "kept").rglob("*")) == []
    assert texts.keep("/a.md", b"text", "no room").size == 4


@pytest.mark.parametrize("name", ["20260101-000000-00000000", "..", "../memstore_2/x", "", "a\0b"])
def test_an_id_that_is_none_is_refused(texts: KeptTexts, name: str, tmp_path: Path) -> None:
    for call in (texts.get, texts.show, texts.discard, lambda name: texts.take(name, tmp_path / "x")):
        with pytest.raises(MountError, match="nothing is kept under"):
            call(name)


def test_a_store_of_any_name_has_a_directory_below_the_others(tmp_path: Path) -> None:
    for name in ("../../outside", "a/b", "..", "", "\0"):
        KeptHere(tmp_path / "kept").of(name).keep("/a.md", b"text", "no room")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert len(list(KeptHere(tmp_path / "kept").all())) == 5


def test_a_rename_that_was_refused_is_told_and_has_no_text(texts: KeptTexts, tmp_path: Path) -> None:
    kept = texts.keep("/new.md", None, "the store is archived", operation="rename", errno=30)
    assert (kept.operation, kept.size, kept.errno) == ("rename", None, 30)
    with pytest.raises(MountError, match="a rename that was refused"):
        texts.take(kept.id, tmp_path / "x")
    texts.discard(kept.id)
    assert texts.list() == []


def test_a_path_that_is_not_utf_8_is_told_with_escapes(texts: KeptTexts) -> None:
    kept = texts.keep(os.fsdecode(b"/caf\xe9.png"), b"\x89PNG", "not UTF-8")
    assert texts.list() == [kept]
    assert kept.to_json()["path"] == "/caf\\xe9.png"


def test_a_damaged_record_hides_no_text(texts: KeptTexts) -> None:
    kept = texts.keep("/a.md", b"text", "no room")
    for damage in (b"", b"[1]", b"nonsense", b'"a"'):
        (kept.place.parent / "record.json").write_bytes(damage)
        (found,) = texts.list()
        assert texts.show(found.id) == b"text"


def test_what_was_half_kept_at_a_crash_is_no_text_and_goes_away(texts: KeptTexts, tmp_path: Path) -> None:
    kept = texts.keep("/a.md", b"text", "no room")
    half = kept.place.parent.parent / ".unfinished-x"
    half.mkdir()
    (half / "text").write_bytes(b"half")
    os.utime(half, (0, 0))
    assert texts.list() == [kept]
    texts.keep("/b.md", b"text", "no room")
    assert not half.exists()


def test_a_text_that_the_store_has_in_the_end_is_kept_no_longer(texts: KeptTexts) -> None:
    texts.keep("/a.md", b"text", "no room")
    other = texts.keep("/a.md", b"other", "no room")
    texts.discard_saved("/a.md", b"text")
    texts.discard_saved("/b.md", b"other")
    assert texts.list() == [other]


def test_a_text_is_on_the_disk_before_anybody_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    kept = KeptTexts(tmp_path / "kept").keep("/a.md", b"text\n", "no room")
    assert {"text", "record.json"} <= {path.name for path in synced[:-2]}
    assert [path.name for path in synced[-2:]] == [f".unfinished-{kept.id}", "kept"]

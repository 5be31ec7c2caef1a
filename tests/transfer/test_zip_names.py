"""Names in zips arrive as their makers meant them, from macOS, Info-ZIP, Windows and East Asian tools; no guesses."""

import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import directory_entries
from app.transfer.archives.spool import Spool
from app.transfer.sources import plan_of
from tests.transfer.archives import paths, plan, tar_of

UTF8_FLAG = 0x800


def raw_zip(*names: bytes, flags: int = 0, extra: bytes = b"", content: bytes = b"text") -> bytes:
    """A zip with members of exactly these names, as any tool might have written it."""
    made, directory = bytearray(), bytearray()
    for name in names:
        crc = zlib.crc32(content)
        shape = (flags, 0, 0, 33, crc, len(content), len(content), len(name))
        directory += struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, *shape, len(extra), 0, 0, 0, 0, len(made))
        directory += name + extra
        made += struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, *shape, 0) + name + content
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(names), len(names), len(directory), len(made), 0)
    return bytes(made + directory + end)


def unicode_path(raw: bytes, name: str) -> bytes:
    """The extra field in which Info-ZIP gives a name in UTF-8."""
    data = b"\x01" + struct.pack("<L", zlib.crc32(raw)) + name.encode()
    return struct.pack("<HH", 0x7075, len(data)) + data


@pytest.mark.parametrize("flags", [0, UTF8_FLAG])
@pytest.mark.parametrize("name", ["Notizen/Müller.md", "Notizen/Mu\u0308ller.md"])
def test_utf8_is_utf8_whatever_the_archive_says(name: str, flags: int) -> None:
    assert paths(plan(raw_zip(name.encode(), flags=flags))) == ["/Notizen/Müller.md"]


def test_a_real_zip_of_this_systems_tool_keeps_its_names(tmp_path: Path) -> None:
    tool = shutil.which("zip")
    if tool is None:
        pytest.skip("there is no 'zip' on this machine; install Debian's package zip")
    (tmp_path / "Notizen").mkdir()
    names = ["Müller.md", "Mu\u0308ller zwei.md", "日本語.md", "plain.md"]
    for name in names:
        (tmp_path / "Notizen" / name).write_text("text")
    for language in ("C", "C.UTF-8"):
        archive = tmp_path / f"{language}.zip"
        subprocess.run(
            [tool, "-qr", archive, "Notizen"], cwd=tmp_path, env=os.environ | {"LC_ALL": language}, check=True
        )
        found = plan(archive.read_bytes())
        assert found.refused == []
        assert paths(found) == sorted(
            ["/Notizen/Müller.md", "/Notizen/Müller zwei.md", "/Notizen/日本語.md", "/Notizen/plain.md"]
        )


def test_the_unicode_path_field_counts_if_it_is_of_this_name() -> None:
    raw = b"M#U00fcller.md"
    assert paths(plan(raw_zip(raw, extra=unicode_path(raw, "Müller.md")))) == ["/Müller.md"]
    assert paths(plan(raw_zip(raw, extra=unicode_path(b"another", "Müller.md")))) == ["/M#U00fcller.md"]
    found = plan(raw_zip(raw, extra=unicode_path(raw, "../up.md")))
    assert "leads outside" in found.refused[0].reason
    assert paths(plan(raw_zip(raw, extra=b"\x75\x70\xff\xff\x01"))) == ["/M#U00fcller.md"]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp437", "Müller/é.md"),
        ("cp850", "Ärger/õ.md"),
        ("cp932", "表示/ソース.md"),
        ("gbk", "笔记/中文.md"),
        ("cp949", "노트/한글.md"),
        ("big5", "筆記/功.md"),
        ("windows-1251", "Заметки/файл.md"),
        ("shift_jis", "能力/予定.md"),
    ],
)
def test_another_encoding_is_said_and_never_guessed(encoding: str, name: str) -> None:
    for made in (raw_zip(name.encode(encoding)), raw_zip(name.encode(encoding), flags=UTF8_FLAG)):
        refused = plan(made)
        assert paths(refused) == []
        assert "--name-encoding" in refused.refused[0].reason
        assert paths(plan(made, name_encoding=encoding)) == [f"/{name}"]


def test_the_encoding_counts_for_tars_and_directories(tmp_path: Path) -> None:
    name = "Müller.md".encode("latin-1")
    tar = tar_of({name.decode("utf-8", "surrogateescape"): b"text"}, "w:")
    assert paths(plan(tar, name_encoding="latin-1")) == ["/Müller.md"]
    (tmp_path / os.fsdecode(name)).write_text("text")
    with Spool() as spool:
        entries = directory_entries(tmp_path, Bounds(), name_encoding="latin-1")
        assert paths(plan_of(entries, spool, default_name="test")) == ["/Müller.md"]


@pytest.mark.parametrize(
    "encoding",
    ["", "rot13", "utf-7", "utf-16", "idna", "punycode", "unicode_escape", "x" * 5_000, "a\0b", "../os", "ä"],
)
def test_what_is_no_encoding_of_names_is_refused(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="is no encoding of file names; such as cp437"):
        plan(raw_zip(b"a.md"), name_encoding=encoding)


def test_a_name_that_is_not_of_the_encoding_is_refused() -> None:
    found = plan(raw_zip(b"a.md", b"\x81.md"), name_encoding="cp932")
    assert paths(found) == ["/a.md"]
    assert "not UTF-8" in found.refused[0].reason


def test_backslashes_separate_in_a_zip() -> None:
    made = raw_zip(b"notes\\", b"notes\\sub\\a.md", b"notes\\.git\\config", content=b"")
    found = plan(made)
    assert paths(found) == ["/notes/sub/a.md"]
    assert [skip.path for skip in found.skipped] == ["notes/.git/config"]
    for evil, why in ((b"..\\up.md", "outside"), (b"\\etc\\a", "absolute"), (b"c:\\a", "absolute")):
        assert why in plan(raw_zip(evil)).refused[0].reason


def test_a_backslash_in_a_tar_is_a_character() -> None:
    assert paths(plan(tar_of({"a\\b.md": b"x"}))) == ["/a\\b.md"]


def test_names_that_become_the_same_clash() -> None:
    found = plan(raw_zip("Müller.md".encode(), "Mu\u0308ller.md".encode()))
    assert paths(found) == ["/Müller.md"]
    assert "clashes" in found.refused[0].reason

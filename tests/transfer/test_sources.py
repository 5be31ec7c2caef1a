"""What is taken from a source, what is left out by convention, and what is refused, each with its reason."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import directory_entries
from app.transfer.archives.spool import Spool
from app.transfer.sources import plan_of
from tests.transfer.archives import paths, plan, tar_of, zip_of

GOOD = {"good.md": b"good"}


def plan_directory(root: Path) -> list[str]:
    with Spool() as spool:
        return paths(plan_of(directory_entries(root, Bounds()), spool, default_name="test"))


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("../up.md", b"x", "leads outside"),
        ("a/../../up.md", b"x", "leads outside"),
        ("a\\..\\up.md", b"x", "leads outside"),
        ("/etc/passwd", b"x", "absolute"),
        ("C:\\up.md", b"x", "absolute"),
        ("latin.md", b"caf\xe9", "not UTF-8 text, at byte 3"),
        ("nul.md", b"a\0b", "byte 0"),
        ("large.md", b"x" * 102_401, "102,401 bytes large"),
        ("a//b.md", b"x", "empty segment"),
        ("/".join("abcdefghijklmnopqrstu"), b"x", "21 segments"),
        ("bell\x07.md", b"x", "U+0007"),
        ("x" * 1_100, b"x", "1,101 bytes of UTF-8"),
    ],
)
def test_a_bad_file_is_refused_by_itself(make: object, name: str, content: bytes, why: str) -> None:
    assert callable(make)
    found = plan(make({**GOOD, name: content}))
    (refusal,) = found.refused
    assert why in refusal.reason
    assert paths(found) == ["/good.md"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    found = plan(tar_of({"evil.md": b""}, type=kind, linkname="/etc/passwd"))
    assert [refusal.path for refusal in found.refused] == ["evil.md"]
    assert "can't be a memory" in found.refused[0].reason
    assert found.memories == []


def test_a_link_in_a_zip_is_refused() -> None:
    found = plan(zip_of({"evil.md": b"/etc/passwd"}, attributes=stat.S_IFLNK | 0o777))
    assert "is a link" in found.refused[0].reason


def test_a_name_that_is_not_utf8_is_refused() -> None:
    found = plan(tar_of({"caf\udce9.md": b"x"}, "w:"))
    assert "not UTF-8" in found.refused[0].reason


def test_links_and_pipes_in_a_directory_are_refused_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.md").write_text("key")
    (root / "good.md").write_text("good")
    (root / "file.md").symlink_to(secret / "key.md")
    (root / "folder").symlink_to(secret)
    os.mkfifo(root / "pipe.md")
    with Spool() as spool:
        found = plan_of(directory_entries(root, Bounds()), spool, default_name="test")
    assert paths(found) == ["/good.md"]
    assert sorted(refusal.path for refusal in found.refused) == ["file.md", "folder", "pipe.md"]


def test_what_clashes_is_refused() -> None:
    found = plan(tar_of({"a": b"1", "a/b.md": b"2", "c.md": b"3", "./c.md": b"4"}))
    assert paths(found) == ["/a/b.md", "/c.md"]
    assert [refusal.path for refusal in found.refused] == ["/a", "/c.md"]


def test_a_vault_goes_in_without_its_tools(tmp_path: Path) -> None:
    for name in (".obsidian/app.json", ".git/config", ".trash/old.md", "Daily/2026-11-20.md", "Über/Ann.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".DS_Store").write_bytes(b"\0\0")
    (tmp_path / "Daily" / "photo.PNG").write_bytes(b"\x89PNG\r\n\x1a\n")
    with Spool() as spool:
        found = plan_of(directory_entries(tmp_path, Bounds()), spool, default_name="test")
    assert paths(found) == ["/Daily/2026-11-20.md", "/Über/Ann.md"]
    assert found.refused == []
    assert {skip.path for skip in found.skipped} == {
        ".obsidian/app.json", ".git/config", ".trash/old.md", ".DS_Store", "/Daily/photo.PNG"
    }  # fmt: skip


def test_an_agents_memory_folder_loses_its_first_name() -> None:
    assert paths(plan(tar_of({"memories/a.md": b"1", "./memories/b/c.md": b"2"}))) == ["/a.md", "/b/c.md"]
    assert paths(plan(tar_of({"a/./b.md": b"1", "././c/././d.md": b"2"}))) == ["/a/b.md", "/c/d.md"]
    assert paths(plan(tar_of({"memories/a.md": b"1", "b.md": b"2"}))) == ["/b.md", "/memories/a.md"]


def test_decomposed_names_are_composed() -> None:
    assert paths(plan(zip_of({"U\u0308ber.md": b"x"}))) == ["/Über.md"]


def test_too_much_is_refused_while_it_is_read() -> None:
    bomb = b"0" * 50_000_000
    small = Bounds(bytes=1_000_000)
    for data in (tar_of({"bomb": bomb}, "w:gz"), zstandard.compress(tar_of({"bomb": bomb}))):
        with pytest.raises(InvalidRequest, match="more than 1,000,000 bytes"):
            plan(data, small)
    many = tar_of({f"{number}.md": b"" for number in range(50)})
    with pytest.raises(InvalidRequest, match="more than 20 entries"):
        plan(many, Bounds(files=20))
    with pytest.raises(InvalidRequest, match="more than 20 entries"):
        plan(zip_of({f"{number}.md": b"" for number in range(50)}), Bounds(files=20))


def test_a_bomb_is_known_by_its_ratio() -> None:
    with pytest.raises(InvalidRequest, match="looks like a bomb"):
        plan(zstandard.compress(tar_of({"bomb": bytes(300_000_000)})))


def test_a_zip_that_lies_about_a_size_is_read_no_further() -> None:
    data = bytearray(zip_of({"bomb.md": b"0" * 10_000_000}))
    central = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, central + 24, 10)
    with pytest.raises(InvalidRequest, match="damaged"):
        plan(bytes(data))


def test_a_header_of_any_size_is_not_taken_into_memory() -> None:
    member = tarfile.TarInfo("././@PaxHeader")
    member.type = tarfile.XHDTYPE
    member.size = 8 * 2**30
    with pytest.raises(InvalidRequest, match="header of 8,589,934,592 bytes"):
        plan(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize("cut", [100, 600, 700, 1024])
def test_what_is_cut_off_is_refused(cut: int) -> None:
    whole = tar_of({"a.md": b"x" * 600})
    with pytest.raises(InvalidRequest, match=r"no archive|damaged or cut off"):
        plan(whole[:cut])


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_what_is_cut_off_within_its_compression_is_refused(compress: Callable[[bytes], bytes]) -> None:
    packed = compress(tar_of({"a.md": os.urandom(600).hex().encode()}))
    with pytest.raises(InvalidRequest, match="damaged or cut off"):
        plan(packed[: len(packed) * 3 // 4])


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is no archive"):
        plan(b"just a text")


def test_an_encrypted_or_sparse_archive_is_refused() -> None:
    data = bytearray(zip_of(GOOD))
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(sign) + offset] |= 1
    with pytest.raises(InvalidRequest, match="encrypted"):
        plan(bytes(data))
    with pytest.raises(InvalidRequest, match="sparse"):
        plan(tar_of({"s.md": b""}, "w:", type=tarfile.GNUTYPE_SPARSE))


def test_long_names_are_read_in_both_notations() -> None:
    name = "/".join(["d" * 100] * 5)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
        assert paths(plan(buffer.getvalue())) == [f"/{name}"]


def test_an_empty_archive_has_nothing() -> None:
    assert plan(tar_of({})).memories == []
    assert plan(zip_of({})).memories == []
    assert zipfile.is_zipfile(io.BytesIO(zip_of({})))

"""However an archive is made, reading it takes no more memory than the documentation says; the kernel counts."""

import bz2
import gzip
import hashlib
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import directory_entries
from app.transfer.archives.spool import Spool
from app.transfer.sources import plan_of
from tests.transfer.archives import paths, plan, tar_of, zip_of

ROOT = Path(__file__).parents[2]
MEBI = 1024 * 1024
BEYOND_BYTES = 128 * MEBI
"""What a source that is refused may take."""
FULL_BYTES = 192 * MEBI
"""What one at the bound of memories and names may take; docs/reference/limits.md says so."""

HEADER = b'{"format":"memstore-export","format_version":1}'
TIME = "2026-11-20T00:00:00.000000Z"


def measured(directory: Path, sources: dict[str, bytes]) -> tuple[dict[str, str], int]:
    """What became of each source in a process of its own, and by how many bytes that grew."""
    for name, data in sources.items():
        (directory / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tests.transfer.measured", *sources],
        cwd=directory, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["outcomes"], found["grown"]


def packed(files: dict[str, bytes]) -> bytes:
    return zlib.compress(tar_of(files), 1, wbits=31)


def manifest(**fields: Any) -> bytes:
    store = {"id": "memstore_x", "name": "n", "description": "", "metadata": {}}
    whole = {
        "format": "memstore-export", "format_version": 1, "exported_at": TIME, "memory_store": store, "seq": 1,
        "memories": [], "history": None,
    }  # fmt: skip
    return orjson.dumps(whole | fields)


def export(data: bytes, **files: bytes) -> bytes:
    return packed({"export.json": HEADER, **files, "manifest.json": data})


def version_lines(count: int) -> bytes:
    return b"".join(
        b'{"seq":%d,"operation":"deleted","path":"/%d.md","sha256":null,"size":null,"memory_id":"m%d","version_id":'
        b'"v%d","created_at":"2026-11-20T00:00:00Z","created_by":null,"redacted_at":null,"redacted_by":null}\n'
        % (number, number, number, number)
        for number in range(1, count + 1)
    )


def with_history(lines: bytes) -> bytes:
    history = {"file": "versions.jsonl", "count": 1, "sha256": hashlib.sha256(lines).hexdigest()}
    return packed({"export.json": HEADER, "versions.jsonl": lines, "manifest.json": manifest(history=history)})


def zip_by(method: int, data: bytes, unpacked: int) -> bytes:
    """A zip with one member that says it is packed by this method."""
    made = bytearray(zip_of({"bomb.md": b""}))
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, method, 0, 33, 0, len(data), unpacked, 7, 0)
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, method, 0, 33, 0, len(data), unpacked, 7, 0, 0, 0, 0, 0, 0
    )
    del made[:]
    made += local + b"bomb.md" + data
    place = len(made)
    made += central + b"bomb.md"
    made += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(made) - place, place, 0)
    return bytes(made)


def zip_directory(names: list[bytes]) -> bytes:
    """A zip that is little but a central directory, whose end does not tell how many names it has."""
    made = b"PK\x03\x04" + bytes(26)
    directory = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
        for name in names
    )
    return made + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(made), 0)


def headers(kind: bytes, size: int, count: int) -> bytes:
    """A tar of nothing but extended headers."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, size
    block = info.tobuf(tarfile.GNU_FORMAT) + b"6 a=b\n" * (size // 6) + bytes(-(size // 6 * 6) % 512)
    compressor = zlib.compressobj(1, wbits=31)
    return b"".join(compressor.compress(block) for _ in range(count)) + compressor.flush()


def test_what_is_beyond_the_bounds_is_refused_in_little_memory(tmp_path: Path) -> None:
    objects = b"[" + b"{}," * (8 * MEBI) + b"{}]"
    large_window = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=large_window).compressobj()
    sources = {
        "bzip2.zip": (zip_by(12, bz2.compress(bytes(4 * MEBI)), 2**30), "method 12 (bzip2)"),
        "lzma.zip": (zip_by(14, lzma.compress(bytes(MEBI)), 2**30), "method 14 (LZMA)"),
        "zstd.zip": (zip_by(93, b"", 0), "method 93 (zstd)"),
        "unknown.zip": (zip_by(77, b"", 0), "method 77 (unknown)"),
        "deflate.zip": (zip_by(8, zlib.compress(bytes(24 * MEBI))[2:-4], 10), "larger than it says"),
        "names.zip": (zip_directory([b".%06d" % number for number in range(250_000)]), "210,000 entries"),
        "long-names.zip": (zip_directory([b"." + b"n" * 4_000] * 12_000), "bytes together"),
        "long-name.zip": (zip_directory([b"." + b"n" * 5_000]), "name of 5,001 bytes"),
        "header.tar.gz": (packed({"export.json": HEADER[:-1] + b',"x":' + objects + b"}"}), "1 refused"),
        "header.zip": (zip_of({"export.json": objects}), "1 refused"),
        "memories.tar": (tar_of({"export.json": HEADER, "manifest.json": b'{"memories":' + objects}), "can't be used"),
        "one.tar": (tar_of({"export.json": HEADER, "manifest.json": b'{"memories":[' + objects}), "too long"),
        "text.tar": (
            tar_of({"export.json": HEADER, "manifest.json": b'{"memories":["' + b"x" * (24 * MEBI)}), "too long"
        ),
        "space.tar": (tar_of({"export.json": HEADER, "manifest.json": b" " * (24 * MEBI)}), "was expected"),
        "deep.tar": (tar_of({"export.json": HEADER, "manifest.json": b'{"a":' + b"[" * (8 * MEBI)}), "is no JSON"),
        "line.tar": (with_history(b"[" * (12 * MEBI)), "longer than 16,384 bytes"),
        "large-pax.tar.gz": (headers(tarfile.XHDTYPE, 69_996, 1), "header of 69,996 bytes"),
        "pax.tar.gz": (headers(tarfile.XHDTYPE, 65_532, 300), "header can't be read"),
        "gnu.tar.gz": (headers(tarfile.GNUTYPE_LONGNAME, 65_532, 1_100), "bytes together"),
        "window.tar.zst": (compressor.compress(tar_of({"a": bytes(MEBI)})) + compressor.flush(), "of memory to unpack"),
    }  # fmt: skip
    outcomes, grown = measured(tmp_path, {name: data for name, (data, _) in sources.items()})
    told = {name: (outcomes[name], why) for name, (_, why) in sources.items() if why not in outcomes[name]}
    assert told == {}
    assert grown < BEYOND_BYTES, f"{grown / MEBI:.0f} MiB"


def test_a_source_at_the_bound_takes_what_the_documentation_says(tmp_path: Path) -> None:
    def path(number: int) -> str:
        return "/".join([f"{number:05}", *["d" * 53] * 18])

    memories = [
        {
            "path": f"/{path(number)}", "file": f"memories/{path(number)}", "size": 1, "id": f"mem_{number}",
            "sha256": hashlib.sha256(b"x").hexdigest(), "version_id": f"memver_{number}", "created_at": TIME,
            "updated_at": TIME,
        }
        for number in range(10_000)
    ]  # fmt: skip
    files = {f"memories/{path(number)}": b"x" for number in range(10_000)}
    listed = tar_of({"export.json": HEADER, **files, "manifest.json": manifest(memories=memories)})
    outcomes, grown = measured(
        tmp_path,
        {"listed.tar": listed, "versions.tar.gz": with_history(version_lines(100_000))},
    )
    assert outcomes == {
        "listed.tar": "10000 memories, 0 versions, 0 refused",
        "versions.tar.gz": "0 memories, 100000 versions, 0 refused",
    }
    assert grown < FULL_BYTES, f"{grown / MEBI:.0f} MiB"


def test_more_memories_than_a_store_may_hold_are_refused_at_the_door() -> None:
    bounds = Bounds.of_store(3, 10)
    data = tar_of({f"{number}.md": b"x" for number in range(4)})
    with pytest.raises(InvalidRequest, match="there are 4 texts; a store holds at most 3"):
        plan(data, bounds)
    with pytest.raises(InvalidRequest, match="more than 10 versions"):
        plan(with_history(version_lines(11)), bounds)
    assert len(plan(with_history(version_lines(10)), bounds).versions or ()) == 10
    with pytest.raises(InvalidRequest, match="more than 80 headers"):
        plan(gzip.compress(b"") * 100, Bounds(files=20))
    rows = [{"path": "/a"}] * 4
    with pytest.raises(InvalidRequest, match="can't be used"):
        plan(export(manifest(memories=rows)), bounds)


@pytest.mark.parametrize("make", [tar_of, packed, zip_of])
def test_a_ratio_counts_from_16_mebibytes_on(make: Callable[[dict[str, bytes]], bytes]) -> None:
    texts = {f"{number}.md": b"%d" % number + b"0" * 102_000 for number in range(400)}
    low = Bounds(ratio=20)
    if make is tar_of:
        assert len(plan(make(texts), low).memories) == 400
    else:
        with pytest.raises(InvalidRequest, match=r"looks like a bomb; if it is none, give it as a \.tar"):
            plan(make(texts), low)
    few = dict(list(texts.items())[:100])
    assert len(plan(make(few), low).memories) == 100


def test_a_directory_is_bounded_in_files_and_in_depth(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.md").write_text("x")
    with Spool() as spool, pytest.raises(InvalidRequest, match="the directory holds more than 20 entries"):
        plan_of(directory_entries(tmp_path, Bounds(files=20)), spool, default_name="test")
    deep = tmp_path / "deep"
    deep.mkdir()
    (deep / "/".join(["d"] * 70)).mkdir(parents=True)
    with Spool() as spool, pytest.raises(InvalidRequest, match="more than 64 deep"):
        plan_of(directory_entries(deep, Bounds()), spool, default_name="test")


FOREIGN = {
    "text": b"my exports",
    "deep": b"[" * 30_000,
    "not UTF-8 but text by name": b'{"a": 1}',
    "huge number": b'{"format": ' + b"9" * 60_000 + b"}",
    "list": b'["memstore-export"]',
    "other format": b'{"format": "obsidian"}',
    "number": b"1",
    "null": b"null",
    "format is a list": b'{"format": ["memstore-export"]}',
    "over 64 KiB": b'{"format": "memstore-export"}' + b" " * 66_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("make", [tar_of, packed, zip_of])
def test_a_foreign_file_of_our_headers_name_is_a_file(
    make: Callable[[dict[str, bytes]], bytes], content: bytes
) -> None:
    found = plan(make({"export.json": content, "a.md": b"a", "folder/export.json": content}))
    assert found.refused == []
    assert paths(found) == ["/a.md", "/export.json", "/folder/export.json"]


def test_a_foreign_file_that_is_no_text_is_refused_by_itself() -> None:
    found = plan(tar_of({"export.json": b"\xff\xfe{", "a.md": b"a", "manifest.json": b"x" * 200_000}))
    assert [each.path for each in found.refused] == ["/export.json", "/manifest.json"]
    assert paths(found) == ["/a.md"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[]", "an object was expected"),
        (b"{", "is no JSON"),
        (b'{"memories": {}}', "a list was expected"),
        (b'{"memories": [1]}', "manifest.json can't be used"),
        (b'{"a": 1, "a": 2}', "without a name of its own"),
        (b"\xff{}", "is not UTF-8"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "is no JSON"),
        (b'{"a": "\xc3', "not UTF-8"),
        (manifest(seq=2**60) + b"x", "goes on after its end"),
        (b'{"memory_store": {"id": "x", "name": "\\ud800", "description": "", "metadata": {}}}', "can't be used"),
        (manifest(exported_at="x"), "exported_at: Invalid isoformat"),
        (manifest(exported_at="9999-12-31T23:59:59+00:00"), "exported_at: must be a time"),
        (manifest(memory_store={"id": "x" * 200, "name": "", "description": "", "metadata": {}}), "memory_store.id"),
    ],
)  # fmt: skip
def test_a_manifest_that_can_not_be_used_is_refused_in_a_sentence(data: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=r"manifest\.json|format") as refusal:
        plan(export(data))
    assert why.lower() in refusal.value.message.lower()


def test_a_refusal_shows_no_escape_of_the_manifest() -> None:
    store = {"id": "x", "name": "n", "description": "", "metadata": {"\x1b[2J\u202e": 5}}
    with pytest.raises(InvalidRequest) as refusal:
        plan(export(manifest(memory_store=store)))
    assert refusal.value.message.isprintable()

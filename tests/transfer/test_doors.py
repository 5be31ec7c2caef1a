"""Whatever comes to the doors of an import, it is a plan, a refusal in printable words, or an answer below 500."""

import asyncio
import random
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.contract import paths as rules
from app.contract.errors import InvalidRequest, RequestTooLarge
from app.http.forms import read_form
from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import archive_entries
from app.transfer.archives.spool import Spool
from app.transfer.sources import plan_of
from tests.transfer.archives import tar_of, zip_of
from tests.transfer.measured import peak_bytes
from tests.transfer.test_bounds import HEADER, manifest, version_lines, with_history

MEBI = 1024 * 1024
SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FILES = {"a.md": b"a" * 700, "notes/Müller.md": "ü\n".encode() * 40, "d" * 120 + "/x.md": b"x", "export.json": b"{"}
GOOD = [
    tar_of(FILES),
    tar_of(FILES, "w:gz"),
    zip_of(FILES),
    tar_of({"export.json": HEADER, "manifest.json": manifest()}),
    with_history(version_lines(20)),
    zip_of({"export.json": HEADER, "manifest.json": manifest()}),
]
MAGIC = [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", bytes(512)]


def mutated(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    """An archive with bytes put over others, and with sums of tar headers made right again."""
    packed = data[:2] == b"\x1f\x8b"
    made = bytearray(zlib.decompress(data, wbits=31) if packed else data)
    for place, new in changes:
        at = place % max(1, len(made))
        made[at : at + len(new)] = new
    if made[257:262] == b"ustar":
        for start in range(0, len(made) - 512, 512):
            block = made[start : start + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                made[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return zlib.compress(bytes(made), 1, wbits=31) if packed else bytes(made)


def check_door(data: bytes, encoding: str | None) -> None:
    with tempfile.TemporaryFile() as file, Spool() as spool:
        file.write(data)
        bounds = Bounds.of_store(50, 50, 4 * MEBI)
        try:
            plan = plan_of(
                archive_entries(file, bounds, name_encoding=encoding), spool, default_name="test", bounds=bounds
            )
        except InvalidRequest as error:
            if not error.message.isprintable():
                raise AssertionError(f"raw on a terminal: {error.message!r}") from error
            return
    for memory in plan.memories:
        assert rules.check(memory.path) == memory.path
    orjson.dumps([each.wire() for each in [*plan.skipped, *plan.refused]])


@SOME
@given(
    good=st.sampled_from(GOOD),
    changes=st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=12)), max_size=6),
    cut=st.integers(0, 400),
    encoding=st.sampled_from([None, None, "cp932", "gbk", "cp437"]),
)
def test_a_mutated_archive_is_read_or_refused(
    good: bytes, changes: list[tuple[int, bytes]], cut: int, encoding: str | None
) -> None:
    data = mutated(good, changes)
    check_door(data[: len(data) - cut] if cut < 200 else data, encoding)


@SOME
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=2_000), tail=st.sampled_from(MAGIC))
def test_rubbish_is_refused(magic: bytes, rest: bytes, tail: bytes) -> None:
    check_door(magic + rest + tail, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["format", "format_version", "exported_at", "memory_store", "seq", "memories", "history"])


@settings(SOME, max_examples=50)
@given(changes=st.dictionaries(FIELDS, JSON, max_size=3), raw=st.binary(max_size=60))
def test_a_manifest_of_anybody_is_read_or_refused(changes: dict[str, Any], raw: bytes) -> None:
    fields = orjson.loads(manifest()) | changes
    try:
        data = orjson.dumps(fields)
    except TypeError:
        data = raw
    check_door(tar_of({"export.json": HEADER, "manifest.json": data}), None)
    check_door(tar_of({"export.json": HEADER, "manifest.json": raw}), None)
    check_door(with_history(data + b"\n" + raw), None)


class _Upload:
    """A body as it might come from anybody."""

    def __init__(self, content_type: str, body: bytes, pieces: int) -> None:
        self.content_type = content_type
        self._body, self._pieces = body, pieces

    async def chunks(self, maximum: int) -> AsyncIterator[bytes]:
        if len(self._body) > maximum:
            raise RequestTooLarge("too large")
        step = max(1, len(self._body) // self._pieces)
        for start in range(0, len(self._body), step):
            yield self._body[start : start + step]


PART = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../a.tar"\r\n\r\nDATA\r\n'
    b'--x\r\nContent-Disposition: form-data; name="partial"\r\n\r\ntrue\r\n--x--\r\n'
)


@SOME
@given(
    content_type=st.sampled_from(["multipart/form-data; boundary=x", "multipart/form-data; boundary=\xff"])
    | st.text(st.characters(max_codepoint=255), max_size=80).map(lambda text: f"multipart/form-data; boundary={text}")
    | st.text(st.characters(max_codepoint=255), max_size=80),
    changes=st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=6)), max_size=4),
    rubbish=st.binary(max_size=200) | st.none(),
    pieces=st.integers(1, 40),
)
def test_a_form_of_anybody_is_read_or_refused(
    content_type: str, changes: list[tuple[int, bytes]], rubbish: bytes | None, pieces: int
) -> None:
    body = mutated(PART, changes) if rubbish is None else rubbish
    upload: Any = _Upload(content_type, body, pieces)
    try:
        form = asyncio.run(read_form(upload, 10_000, file="file", fields=("partial",)))
    except InvalidRequest as error:
        orjson.dumps(error.message)
        return
    with form:
        assert "/" not in form.file_name
        assert set(form.fields) <= {"partial"}


def test_a_boundary_of_more_than_70_bytes_is_refused() -> None:
    def read(boundary: str) -> None:
        body = PART.replace(b"--x", b"--" + boundary.encode())
        upload: Any = _Upload(f"multipart/form-data; boundary={boundary}", body, 3)
        asyncio.run(read_form(upload, 1_000_000, file="file", fields=("partial",))).file.close()

    read("b" * 70)
    for size in (71, 30_000, 100_000):
        with pytest.raises(InvalidRequest, match=f"the boundary has {size:,} bytes; at most 70 are allowed"):
            read("b" * size)


def test_hostile_archives_leave_the_process_as_large_as_it_was() -> None:
    rng = random.Random(7)
    before = peak_bytes()
    for _ in range(200):
        changes = [(rng.randrange(2**20), struct.pack("<Q", rng.getrandbits(64))) for _ in range(3)]
        check_door(mutated(rng.choice(GOOD), changes), None)
    assert peak_bytes() - before < 64 * MEBI

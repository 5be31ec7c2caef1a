"""The bytes exchanged with the kernel."""

import stat
import struct

import pytest

from app.mount.fuse.kernel import protocol


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (protocol.HEADER_IN, 40),
        (protocol.HEADER_OUT, 16),
        (protocol.ATTR, 88),
        (protocol.INIT_OUT, 64),
        (protocol.OPEN_OUT, 16),
        (protocol.STATFS_OUT, 80),
        (protocol.DIRENT, 24),
        (protocol.SETATTR_IN, 88),
        (protocol.READ_IN, 40),
        (protocol.WRITE_IN, 40),
        (protocol.CREATE_IN, 16),
        (protocol.MKNOD_IN, 16),
        (protocol.RENAME2_IN, 16),
        (protocol.RELEASE_IN, 24),
        (protocol.FLUSH_IN, 24),
        (protocol.FSYNC_IN, 16),
        (protocol.FALLOCATE_IN, 32),
    ],
)
def test_structures_have_the_kernels_sizes(layout: struct.Struct, size: int) -> None:
    assert layout.size == size


def test_entries_and_attributes_have_the_kernels_sizes_and_order() -> None:
    attr = protocol.attributes(
        7, 1025, 3_000_000_004, stat.S_IFREG | 0o640, nlink=1, uid=11, gid=12, ctime_ns=5_000_000_006,
        atime_ns=1_000_000_002,
    )  # fmt: skip
    assert struct.unpack("=6Q10I", attr) == (
        7, 1025, 3, 1, 3, 5, 2, 4, 6, stat.S_IFREG | 0o640, 1, 11, 12, 0, 4096, 0,
    )  # fmt: skip
    entry = protocol.entry_out(9, attr, protocol.entry_valid(1.5, 60), generation=2)
    assert len(entry) == 128
    assert struct.unpack_from("=QQQQII", entry) == (9, 2, 1, 60, 500_000_000, 0)
    assert entry.endswith(attr)
    out = protocol.attr_out(attr, protocol.attr_valid(0.25))
    assert len(out) == 104
    assert struct.unpack_from("=QII", out) == (0, 250_000_000, 0)


def test_a_missing_time_is_the_time_of_the_last_change_of_content() -> None:
    fields = protocol.ATTR.unpack(protocol.attributes(7, 0, 3_000_000_004, stat.S_IFREG))
    assert fields[3:9] == (3, 3, 3, 4, 4, 4)


def test_a_negative_entry_names_no_node() -> None:
    entry = protocol.negative_entry_out(protocol.entry_valid(5, 0))
    assert len(entry) == 128
    assert struct.unpack_from("=QQQ", entry) == (0, 0, 5)


@pytest.mark.parametrize("length", range(1, 10))
def test_directory_entries_are_padded_to_eight_bytes(length: int) -> None:
    name = b"n" * length
    record = protocol.dirent(7, 3, protocol.FileType.REGULAR, name)
    assert len(record) % 8 == 0
    assert struct.unpack_from("=QQII", record) == (7, 3, length, 8)
    assert record[24 : 24 + length] == name
    assert record[24 + length :].strip(b"\0") == b""
    plus = protocol.direntplus(bytes(128), 7, 3, protocol.FileType.REGULAR, name)
    assert plus == bytes(128) + record


def test_names_are_read_up_to_their_ends() -> None:
    assert protocol.names(b"12345678a b\0\xc3\xa9\0", 8) == [b"a b", "é".encode()]


def test_notifications_carry_the_length_of_a_name_without_its_end() -> None:
    assert protocol.inval_entry(5, b"name") == struct.pack("=QII", 5, 4, 0) + b"name\0"
    assert protocol.delete(5, 6, b"name") == struct.pack("=QQII", 5, 6, 4, 0) + b"name\0"
    assert protocol.store(5, b"data", 8) == struct.pack("=QQII", 5, 8, 4, 0) + b"data"
    assert protocol.inval_inode(5, -1, 0) == struct.pack("=Qqq", 5, -1, 0)

"""What is settled with the kernel, with older ones and with newer ones."""

import struct

import pytest

from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.negotiation import Negotiated, TooOld, Wishes, negotiate
from app.mount.fuse.kernel.protocol import Feature

EVERYTHING = (1 << 64) - 1


def init_in(minor: int, features: int, *, major: int = 7) -> bytes:
    head = struct.pack("=IIII", major, minor, 131072, features & 0xFFFFFFFF)
    return head + (struct.pack("=I", features >> 32) + bytes(44) if minor >= 36 else b"")


def settled(minor: int, features: int, wishes: Wishes | None = None) -> tuple[tuple[int, ...], Negotiated]:
    body, negotiated = negotiate(init_in(minor, features), wishes or Wishes())
    assert negotiated is not None
    return protocol.INIT_OUT.unpack(body), negotiated


def test_a_newer_kernel_gets_our_version_and_only_what_we_asked_for() -> None:
    (major, minor, *_), negotiated = settled(99, EVERYTHING)
    assert (major, minor) == (7, 45)
    assert negotiated.minor == 45
    assert negotiated.features == Wishes().features | Feature.INIT_EXT
    assert not negotiated.features & Feature.WRITEBACK_CACHE


def test_features_above_the_first_32_reach_the_kernel_in_the_second_word() -> None:
    fields, negotiated = settled(45, EVERYTHING)
    assert fields[3] & Feature.INIT_EXT
    assert fields[10] << 32 | fields[3] == negotiated.features
    assert fields[10] == (Feature.HAS_EXPIRE_ONLY | Feature.HAS_RESEND) >> 32


def test_a_kernel_before_the_second_word_gets_none() -> None:
    fields, negotiated = settled(31, 0xFFFFFFFF & ~Feature.INIT_EXT)
    assert (fields[1], fields[10]) == (31, 0)
    assert negotiated.features == Wishes().features & 0x3FFFFFFF


def test_what_the_kernel_does_not_offer_is_off() -> None:
    _, negotiated = settled(45, Feature.ASYNC_READ | Feature.WRITEBACK_CACHE)
    assert negotiated.features == Feature.ASYNC_READ


def test_writes_stay_within_32_pages_unless_the_kernel_takes_more() -> None:
    wishes = Wishes(max_write=1 << 20)
    fields, negotiated = settled(45, EVERYTHING, wishes)
    assert (fields[6], fields[8], negotiated.max_write) == (1 << 20, 256, 1 << 20)
    fields, negotiated = settled(27, Feature.BIG_WRITES, wishes)
    assert (fields[6], negotiated.max_write) == (131072, 131072)


def test_a_request_timeout_is_sent_only_to_a_kernel_that_has_it() -> None:
    wishes = Wishes(request_timeout=30)
    fields, negotiated = settled(45, EVERYTHING, wishes)
    assert fields[12] == 30
    assert negotiated.features & Feature.REQUEST_TIMEOUT
    fields, negotiated = settled(41, EVERYTHING & ~Feature.REQUEST_TIMEOUT, wishes)
    assert fields[12] == 0
    assert not negotiated.features & Feature.REQUEST_TIMEOUT


def test_a_newer_major_version_is_told_ours_and_nothing_is_settled() -> None:
    body, negotiated = negotiate(init_in(0, 0, major=8), Wishes())
    assert protocol.INIT_OUT.unpack(body)[:2] == (7, 45)
    assert negotiated is None


@pytest.mark.parametrize(("major", "minor"), [(6, 99), (7, 22)])
def test_a_kernel_that_is_too_old_is_named(major: int, minor: int) -> None:
    with pytest.raises(TooOld, match=f"{major}.{minor}"):
        negotiate(init_in(minor, 0, major=major), Wishes())


def test_what_was_settled_survives_being_written_down() -> None:
    _, negotiated = settled(45, EVERYTHING)
    assert Negotiated.from_json(negotiated.to_json()) == negotiated

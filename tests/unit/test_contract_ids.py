"""IDs: shape, uniqueness, and an order that follows time."""

import os
import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import ids

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
TAGS = (ids.STORE, ids.MEMORY, ids.VERSION, ids.API_KEY, ids.WORKSPACE, ids.REQUEST)


def number_of(name: str) -> int:
    """The 128 bits behind an ID."""
    number = 0
    for character in name.rpartition("_01")[2]:
        number = number * 58 + ALPHABET.index(character)
    return number


def has_shape(name: str, tag: str) -> bool:
    return re.fullmatch(rf"{tag}_01[{ALPHABET}]{{22}}", name) is not None


@pytest.mark.parametrize("tag", TAGS)
def test_an_id_is_its_tag_and_24_characters_of_base58(tag: str) -> None:
    assert has_shape(ids.new(tag), tag)


def test_the_author_of_the_bootstrap_key_has_the_shape_of_an_id() -> None:
    assert has_shape(ids.BOOTSTRAP_API_KEY_ID, ids.API_KEY)


def test_ids_of_one_process_sort_in_the_order_they_were_made() -> None:
    made = [ids.new(ids.MEMORY) for _ in range(5_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


@given(st.integers(0, 58**22 - 1), st.integers(0, 58**22 - 1))
def test_texts_sort_as_their_numbers_do(one: int, other: int) -> None:
    assert (ids._encode(one) < ids._encode(other)) == (one < other)
    assert number_of(f"mem_01{ids._encode(one)}") == one


def test_an_id_begins_with_the_time_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_millisecond", 0)
    before = time.time_ns() // 1_000_000
    name = ids.new(ids.STORE)
    assert before <= number_of(name) >> 80 <= time.time_ns() // 1_000_000


def test_threads_never_get_the_same_id_and_each_sees_its_own_in_order() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    together = threading.Barrier(len(made))

    def make(own: list[str]) -> None:
        together.wait()
        own.extend(ids.new(ids.VERSION) for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({name for own in made for name in own}) == 8_000
    assert all(own == sorted(own) for own in made)


def test_one_thread_at_a_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    class Lock:
        def __enter__(self) -> None:
            self.before = ids._count

        def __exit__(self, *exception: object) -> None:
            counted.append(ids._count - self.before)

    monkeypatch.setattr(time, "time_ns", lambda: 7_000_000)
    monkeypatch.setattr(ids, "_millisecond", 0)
    ids.new(ids.VERSION)  # begins a millisecond
    monkeypatch.setattr(ids, "_lock", Lock())
    before = ids._count
    ids.new(ids.VERSION)  # counts within it
    ids.new(ids.VERSION)
    assert counted == [1, 1]
    assert ids._count == before + 2


def test_more_ids_than_a_millisecond_can_count_go_on_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 7_000_000)
    monkeypatch.setattr(ids, "_millisecond", 0)
    first = ids.new(ids.VERSION)
    monkeypatch.setattr(ids, "_count", ids._COUNT_END - 2)
    made = [first, *(ids.new(ids.VERSION) for _ in range(3))]
    assert made == sorted(set(made))
    assert [number_of(name) >> 80 for name in made] == [7, 7, 8, 8]


def test_a_forked_process_has_ids_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 7_000_000)
    ids.new(ids.VERSION)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, ids.new(ids.VERSION).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs, ours = os.read(reading, 100).decode(), ids.new(ids.VERSION)
    assert theirs[:-4] != ours[:-4]


def test_a_clock_that_goes_back_does_not_disturb_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_millisecond", 0)
    moments = iter([2_000, 1_000, 2_000, 1_999, 2_001])
    monkeypatch.setattr(time, "time_ns", lambda: next(moments) * 1_000_000)
    made = [ids.new(ids.VERSION) for _ in range(5)]
    assert made == sorted(set(made))
    assert [number_of(name) >> 80 for name in made] == [2_000, 2_000, 2_000, 2_000, 2_001]


def test_counting_within_a_millisecond_does_not_reach_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_millisecond", 0)
    monkeypatch.setattr(time, "time_ns", lambda: 7_000_000)
    monkeypatch.setattr(ids._random, "getrandbits", lambda bits: 2**bits - 1)
    made = [ids.new(ids.VERSION) for _ in range(2_000)]
    assert {number_of(name) >> 80 for name in made} == {7}

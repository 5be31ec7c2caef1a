"""Time: whole microseconds inside, RFC 3339 with `Z` outside."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import clock

# 1970 to 9999: what the service itself writes down.
moments = st.integers(0, 253_402_300_799_999_999)
zones = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
    lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
)


@given(moments)
def test_a_time_on_the_wire_is_utc_with_six_digits_and_z(moment: int) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", clock.rfc3339(moment))


@given(moments)
def test_a_time_on_the_wire_reads_back_as_the_same_microsecond(moment: int) -> None:
    assert clock.microseconds(datetime.fromisoformat(clock.rfc3339(moment))) == moment


@given(moments, moments)
def test_times_on_the_wire_sort_as_the_times_do(one: int, other: int) -> None:
    assert (clock.rfc3339(one) < clock.rfc3339(other)) == (one < other)


def test_the_epoch_is_zero() -> None:
    assert clock.rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert clock.microseconds(datetime(1970, 1, 1, tzinfo=UTC)) == 0


@given(st.datetimes())
def test_a_time_without_a_zone_is_taken_as_utc(moment: datetime) -> None:
    assert clock.microseconds(moment) == clock.microseconds(moment.replace(tzinfo=UTC))


def test_the_zone_of_the_machine_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "XYZ-05:30")
        time.tzset()
        assert time.timezone != 0
        assert clock.microseconds(datetime(1970, 1, 1)) == 0  # noqa: DTZ001 - it is the point
        assert clock.rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    time.tzset()


@given(st.datetimes(), zones)
def test_any_time_in_any_zone_becomes_a_number_that_the_databases_hold(moment: datetime, zone: timezone) -> None:
    there = moment.replace(tzinfo=zone)
    offset = there.utcoffset()
    assert offset is not None
    number = clock.microseconds(there)
    assert number == clock.microseconds(moment) - offset // timedelta(microseconds=1)
    assert abs(number) < 2**63


def test_now_is_the_time_of_the_operating_system() -> None:
    before = time.time_ns() // 1_000
    assert before <= clock.now() <= time.time_ns() // 1_000


@pytest.mark.parametrize("convert", [clock.rfc3339_or_none, clock.microseconds_or_none])
def test_a_time_that_has_not_come_stays_none(convert: "type") -> None:
    assert convert(None) is None

"""Schedules through both clock changes of a year, against a search of the whole calendar in steps of 15 minutes."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.posts.triggers import PostTrigger
from doppel.config import PostSettings

YEAR = 2026
STEP = timedelta(minutes=15)
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "America/St_Johns"]
CHANGING = [zone for zone in ZONES if zone != "Asia/Shanghai"]
MORE_ZONES = ["Pacific/Chatham", "Africa/Cairo", "America/Havana", "Europe/Dublin", "Antarctica/Troll"]


def year_of(zone: str, year: int = YEAR) -> tuple[datetime, datetime]:
    start, end = (datetime(number, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) for number in (year, year + 1))
    return start, end - timedelta(microseconds=1)


@cache
def calendar(zone: str) -> list[tuple[datetime, datetime]]:
    """Every quarter of an hour of the year: in UTC, and what the clocks of the zone show."""
    start, end = year_of(zone)
    times = [start + number * STEP for number in range((end - start) // STEP + 1)]
    return [(time, time.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for time in times]


@cache
def changes(zone: str) -> tuple[datetime, datetime]:
    """A local time that does not exist, and one that exists twice: the middle of the change, or 2:30."""
    missing = repeated = datetime(YEAR, 6, 7, 2, 30)  # noqa: DTZ001 - local time
    for (_, before), (_, after) in pairwise(calendar(zone)):
        if after - before > STEP:
            missing = before + STEP
        elif after < before:
            repeated = after
    return missing, repeated


def slots(zone: str, start: datetime | None = None, end: datetime | None = None, **when: Any) -> list[datetime]:
    first, last = year_of(zone)
    trigger = PostTrigger(PostSettings(name="post", to="web:a", **when), ZoneInfo(zone))
    return list(trigger.slots(start or first, end or last))


def searched(zone: str, day_matches: Callable[[date], bool], minutes: set[int]) -> list[datetime]:
    """One slot for each time of day, in minutes: the first moment at which the clocks show it or something later."""
    found: set[datetime] = set()
    days: dict[date, list[tuple[datetime, int]]] = {}
    for time, local in calendar(zone):
        days.setdefault(local.date(), []).append((time, local.hour * 60 + local.minute))
    for day, moments in days.items():
        if day_matches(day):
            found |= {next(time for time, shown in moments if shown >= minute) for minute in minutes}
    return sorted(found)


def is_strictly_increasing(times: list[datetime]) -> bool:
    return all(before < after for before, after in pairwise(times))


def days_and_times(zone: str) -> Iterator[tuple[str, Callable[[date], bool], int, int]]:
    """Daily, weekly and monthly expressions at the times of both changes, with their number of slots."""
    for change in changes(zone):
        time = f"{change.minute} {change.hour}"
        minute = change.hour * 60 + change.minute
        weekday, day = change.isoweekday(), change.day
        weeks = sum((date(YEAR, 1, 1) + timedelta(days=n)).isoweekday() == weekday for n in range(365))
        months = sum(1 for month in range(1, 13) if day <= 28 or _exists(month, day))
        yield f"{time} * * *", lambda _: True, minute, 365
        yield f"{time} * * {weekday}", lambda one, weekday=weekday: one.isoweekday() == weekday, minute, weeks
        yield f"{time} {day} * *", lambda one, day=day: one.day == day, minute, months


def _exists(month: int, day: int) -> bool:
    try:
        date(YEAR, month, day)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("zone", ZONES + MORE_ZONES)
def test_a_time_of_day_has_one_slot_on_each_of_its_days(zone: str) -> None:
    for cron, day_matches, minute, count in days_and_times(zone):
        times = slots(zone, cron=cron)
        assert is_strictly_increasing(times)
        assert len(times) == count
        assert len({time.astimezone(ZoneInfo(zone)).date() for time in times}) == count
        assert times == searched(zone, day_matches, {minute})


@pytest.mark.parametrize("zone", CHANGING)
def test_daily_at_the_changes_is_once_on_the_day(zone: str) -> None:
    missing, repeated = changes(zone)
    daily = slots(zone, cron=f"{missing.minute} {missing.hour} * * *")
    (late,) = (time for time in daily if time.astimezone(ZoneInfo(zone)).date() == missing.date())
    before = (late - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    assert late.astimezone(ZoneInfo(zone)).utcoffset() != before.utcoffset()  # the very moment of the change
    daily = slots(zone, cron=f"{repeated.minute} {repeated.hour} * * *")
    (first,) = (time for time in daily if time.astimezone(ZoneInfo(zone)).date() == repeated.date())
    assert first.astimezone(ZoneInfo(zone)).fold == 0
    assert first.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == repeated


@pytest.mark.parametrize(
    ("zone", "hourly", "quarters"),
    [
        ("Europe/Berlin", 8760, 35040),
        ("America/New_York", 8760, 35040),
        ("Australia/Lord_Howe", 8759, 35040),  # 2:00 is skipped, and only 1:30 to 1:59 is repeated
        ("Asia/Shanghai", 8760, 35040),
        ("America/St_Johns", 8760, 35040),
    ],
)
def test_open_hours_go_on_by_elapsed_time(zone: str, hourly: int, quarters: int) -> None:
    times = slots(zone, cron="0 * * * *")
    assert is_strictly_increasing(times)
    assert times == [time for time, local in calendar(zone) if local.minute == 0]
    assert len(times) == hourly
    times = slots(zone, cron="*/15 * * * *")
    assert times == [time for time, _ in calendar(zone)]
    assert len(times) == quarters


@pytest.mark.parametrize("hours", ["*/1", "0-23"])
def test_all_hours_are_open_hours(hours: str) -> None:
    assert slots("Europe/Berlin", cron=f"30 {hours} * * *") == slots("Europe/Berlin", cron="30 * * * *")


def test_every_second_hour_is_in_both_passes_and_never_skipped() -> None:
    times = slots("Europe/Berlin", cron="0 */2 * * *")
    gaps = {(after - before) // timedelta(hours=1) for before, after in pairwise(times)}
    assert gaps == {1, 2}
    assert len(times) == 4380 + 1  # 2:00 twice in October, 3:00 instead of 2:00 in March


def test_several_skipped_times_are_one_slot() -> None:
    start = changes("Europe/Berlin")[0].replace(hour=0, minute=0, tzinfo=ZoneInfo("Europe/Berlin"))
    times = slots("Europe/Berlin", start, start + timedelta(hours=5), cron="0,15,30 2,3 * * *")
    assert [f"{time.astimezone(start.tzinfo):%H:%M}" for time in times] == ["03:00", "03:15", "03:30"]


@pytest.mark.parametrize("zone", ZONES)
def test_interval_does_not_depend_on_the_clocks(zone: str) -> None:
    times = slots(zone, every="6h")
    assert {after - before for before, after in pairwise(times)} == {timedelta(hours=6)}
    assert len(times) == 1460


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, datetime, datetime]:
    """A zone, and a range that often begins or ends near one of its clock changes."""
    zone = draw(st.sampled_from(ZONES + MORE_ZONES))
    first, last = year_of(zone)
    near = [time for (time, local), (_, after) in pairwise(calendar(zone)) if after - local != STEP] or [first]
    start = draw(st.sampled_from(near)) + timedelta(seconds=draw(st.integers(-8 * 3600, 8 * 3600)))
    end = start + timedelta(seconds=draw(st.integers(0, 3 * 24 * 3600)))
    return zone, max(start, first), min(max(start, first, end), last)


minute_fields = st.sets(st.sampled_from([0, 15, 30, 45]), min_size=1)


@given(ranges(), minute_fields, st.sets(st.integers(0, 4), min_size=1))
def test_any_range_has_the_slots_of_the_calendar(
    place: tuple[str, datetime, datetime], minutes: set[int], hours: set[int]
) -> None:
    zone, start, end = place
    minute_field = ",".join(map(str, sorted(minutes)))
    times = slots(zone, start, end, cron=f"{minute_field} {','.join(map(str, sorted(hours)))} * * *")
    expected = searched(zone, lambda _: True, {hour * 60 + minute for hour in hours for minute in minutes})
    assert times == [time for time in expected if start <= time <= end]
    times = slots(zone, start, end, cron=f"{minute_field} * * * *")
    assert times == [time for time, local in calendar(zone) if local.minute in minutes and start <= time <= end]


def test_year_of_an_hourly_schedule_is_fast() -> None:
    start = process_time()
    assert len(slots("Europe/Berlin", cron="0 * * * *")) == 8760
    assert process_time() - start < 3  # seconds, on a slow machine; 0.4 on a usual one

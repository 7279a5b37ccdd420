"""Local times in the order of their file: the two changes of the clock, clocks that disagree, and orders of dates."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.archives.formats.local_times import (
    DAY_FIRST,
    MAX_STEP_BACK,
    MONTH_FIRST,
    YEAR_FIRST,
    DatePlaces,
    DateSurvey,
    Direction,
    gregorian_year,
    in_file_order,
    local_date,
)

BERLIN = ZoneInfo("Europe/Berlin")


def times(*stamps: str, newest_first: bool = False, zone: ZoneInfo = BERLIN) -> list[str]:
    """The times in UTC of local stamps; day and clock only."""
    parsed = [datetime.fromisoformat(stamp) for stamp in stamps]
    ordered = in_file_order(parsed, lambda stamp: stamp, zone, is_newest_first=newest_first)
    return [f"{sent_at:%d %H:%M}" for _, _, sent_at in ordered]


def test_the_hour_that_comes_twice() -> None:
    stamps = ["2023-10-29T01:59", "2023-10-29T02:00", "2023-10-29T02:59", "2023-10-29T02:00", "2023-10-29T02:30"]
    after = ["2023-10-29T03:00", "2023-10-29T03:01"]
    expected = ["28 23:59", "29 00:00", "29 00:59", "29 01:00", "29 01:30", "29 02:00", "29 02:01"]
    assert times(*stamps, *after) == expected
    assert times(*reversed(after), *reversed(stamps), newest_first=True) == expected[::-1]
    assert times("2023-10-29T02:40", "2023-10-29T02:00", "2023-10-29T02:59") == ["29 00:40", "29 01:00", "29 01:59"]
    assert times("2023-10-29T02:30", "2023-10-29T02:30", "2023-10-29T02:29") == ["29 00:30", "29 00:30", "29 00:30"]
    new_york = ["2023-11-05T01:50", "2023-11-05T01:10", "2023-11-05T02:00"]
    assert times(*new_york, zone=ZoneInfo("America/New_York")) == ["05 05:50", "05 06:10", "05 07:00"]


def test_another_chat_in_the_file_is_no_sign_of_the_second_time() -> None:
    assert times("2024-03-01T10:00", "2023-10-29T02:10") == ["01 09:00", "29 00:10"]


def test_the_hour_that_never_was_changes_no_order() -> None:
    stamps = ["2023-03-26T01:50", "2023-03-26T02:10", "2023-03-26T02:50", "2023-03-26T03:05", "2023-03-26T03:06"]
    assert times(*stamps) == ["26 00:50", "26 00:50", "26 00:50", "26 01:05", "26 01:06"]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (["14:05", "14:03", "14:06"], ["14:05", "14:05", "14:06"]),  # the second is behind
        (["14:05", "16:40", "14:06", "14:07"], ["14:05", "14:06", "14:06", "14:07"]),  # the second is ahead
        (["14:05", "14:03"], ["14:05", "14:05"]),
        (["09:00", "12:00", "10:00", "12:01"], ["09:00", "12:00", "12:00", "12:01"]),  # delivered late
        (["14:05", "14:06", "14:02", "14:03", "14:07"], ["14:05", "14:06", "14:06", "14:06", "14:07"]),
        (["20:00", "10:00", "10:01"], ["20:00", "10:00", "10:01"]),  # another part of the file
    ],
)
def test_clocks_that_disagree(stamps: list[str], expected: list[str]) -> None:
    assert times(*(f"2023-01-05T{stamp}" for stamp in stamps), zone=ZoneInfo("UTC")) == [f"05 {at}" for at in expected]


def test_the_newest_first_within_a_minute_too() -> None:
    stamps = [datetime(2023, 1, 5, 14, minute, tzinfo=UTC) for minute in (9, 9, 8, 8, 8)]
    ordered = in_file_order(enumerate(stamps), lambda item: item[1], BERLIN, is_newest_first=True)
    # Sorted by time, what was written first comes first.
    assert [number for (number, _), _, _ in sorted(ordered, key=lambda item: item[2])] == [4, 3, 2, 1, 0]


def test_the_time_as_written_is_the_same_in_every_export() -> None:
    stamps = [datetime.fromisoformat(f"2023-10-29T{clock}:00") for clock in ("02:59", "02:00", "01:58")]
    written = [written for _, written, _ in in_file_order(stamps, lambda stamp: stamp, BERLIN)]
    alone = [next(in_file_order([stamp], lambda stamp: stamp, BERLIN))[1] for stamp in stamps]
    assert written == alone == [stamp.replace(tzinfo=BERLIN).astimezone(UTC) for stamp in stamps]


@given(
    st.lists(st.integers(-200, 200), min_size=1, max_size=60),
    st.datetimes(datetime.fromisoformat("2009-01-01"), datetime.fromisoformat("2030-01-01")),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
    st.booleans(),
)
def test_sorting_by_time_keeps_the_order_of_the_file(
    steps: list[int], start: datetime, zone: str, is_newest_first: bool
) -> None:
    stamps, stamp = [], start
    for step in steps:
        stamp += timedelta(minutes=abs(step) if step > -60 else -60)
        stamps.append(stamp)
    file = list(enumerate(reversed(stamps) if is_newest_first else stamps))
    ordered = list(in_file_order(file, lambda item: item[1], ZoneInfo(zone), is_newest_first=is_newest_first))
    assert sorted(number for (number, _), _, _ in ordered) == list(range(len(stamps)))
    by_time = [number for (number, _), _, _ in sorted(ordered, key=lambda item: item[2])]
    jumps = any((a - b).total_seconds() > MAX_STEP_BACK for a, b in pairwise(stamps))
    falls = sum(step <= -60 for step in steps)  # of an hour each; together too large, they are another part of the file
    if not jumps and falls * 3600 <= MAX_STEP_BACK:
        assert by_time == (list(range(len(stamps)))[::-1] if is_newest_first else list(range(len(stamps))))


@pytest.mark.parametrize(
    ("written", "year"),
    [(2023, 2023), (23, 2023), (9, 2009), (2566, 2023), (66, 2023), (113, 2024), (1970, 1970)],
)
def test_calendars(written: int, year: int) -> None:
    assert gregorian_year(written) == year


@pytest.mark.parametrize("written", [1402, 1445, 1969, 2101, 3000, 0 - 5])
def test_years_that_cannot_be_meant(written: int) -> None:
    with pytest.raises(ValueError, match=str(written)):
        gregorian_year(written)


def survey(*dates: str, weekdays: tuple[str, ...] = ()) -> DateSurvey:
    found = DateSurvey()
    for number, text in enumerate(dates):
        a, b, c = map(int, text.split("/"))
        found.add((a, b, c), weekdays[number] if weekdays else "")
    return found


@pytest.mark.parametrize(
    ("dates", "places"),
    [
        (["13/3/21"], DAY_FIRST),
        (["3/13/21"], MONTH_FIRST),
        (["2021/3/4"], YEAR_FIRST),
        (["3/4/21", "4/4/21"], DAY_FIRST),
        (["1/9/21", "1/10/21", "2/1/21", "2/2/21", "2/11/21"], MONTH_FIRST),  # it runs forward in one order only
        (["1/2/21", "2/2/21", "1/3/21"], DAY_FIRST),
        (["23/3/5", "23/3/30", "24/1/2", "24/2/1"], YEAR_FIRST),
        (["9/3/2566", "13/3/2566"], DAY_FIRST),
        (["23/3/5", "23/3/6"], YEAR_FIRST),  # no chat app is from 2005
        (["1/2/03", "2/2/03"], DAY_FIRST),
        (["13/3/1999"], DAY_FIRST),
    ],
)
def test_the_order_of_a_date_is_that_of_the_whole_file(dates: list[str], places: DatePlaces) -> None:
    assert survey(*dates).places() == places
    assert survey(*reversed(dates)).places() == places
    assert survey(*dates).misfits(places) == 0


def test_weekdays_tell_in_any_language() -> None:
    assert survey("3/4/2024", weekdays=("Mon",)).places() == MONTH_FIRST
    assert survey("4/3/2024", "11/3/2024", weekdays=("lundi", "lundi")).places(MONTH_FIRST) == DAY_FIRST


def test_a_file_that_fits_no_order_is_told() -> None:
    mixed = survey("13/3/21", "14/3/21", "3/15/21", "3/16/21", "17/3/21")
    assert mixed.misfits(mixed.places()) == 2
    damaged = survey(*(f"{day}/3/21" for day in range(1, 31)), "99/99/21")
    assert damaged.misfits(damaged.places()) == 0


def test_the_direction_of_a_file() -> None:
    def of(*days: int) -> bool:
        direction = Direction()
        for day in days:
            direction.add(date(2023, 1, day))
        return direction.is_newest_first

    assert of(9, 8, 8, 7)
    assert not of(9, 8)
    assert not of(1, 2, 1, 2, 1)
    assert not of(*range(1, 20))


@given(st.dates(date(2009, 1, 1), date(2051, 12, 31)), st.sampled_from([DAY_FIRST, MONTH_FIRST, YEAR_FIRST]))
def test_dates_come_back(day: date, places: DatePlaces) -> None:
    numbers = [0, 0, 0]
    for place, number in zip(places, (day.year, day.month, day.day), strict=True):
        numbers[place] = number
    assert local_date((numbers[0], numbers[1], numbers[2]), places) == day


def test_of_two_possible_orders_the_one_that_runs_forwards_is_meant() -> None:
    for dates, places in (
        (((1, 5, 23), (2, 3, 23), (3, 1, 23)), MONTH_FIRST),
        (((5, 1, 23), (3, 2, 23), (1, 3, 23)), DAY_FIRST),
    ):
        survey = DateSurvey()
        for numbers in dates:
            survey.add(numbers)
        assert survey.places() == places
        assert not survey.is_newest_first(places)

"""Turns the dates and clock times of an export, which have no zone, into times in UTC that keep the file's order.

A file is in the order in which its messages arrived, and its stamps are the clocks of phones: the hour that comes twice
at the end of summer time, and clocks that disagree by minutes or hours, must not change that order. What order the
numbers of a date have, and whether the newest message comes first, is found from the whole file.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

import msgspec

from doppel.i18n import tr

Record = TypeVar("Record")

DatePlaces = tuple[int, int, int]
"""Positions of year, month and day among the three numbers of a date."""

DAY_FIRST: DatePlaces = (2, 1, 0)
MONTH_FIRST: DatePlaces = (2, 0, 1)
YEAR_FIRST: DatePlaces = (0, 1, 2)
ALL_PLACES = (DAY_FIRST, MONTH_FIRST, YEAR_FIRST)

_NEARBY = timedelta(hours=6)
MAX_STEP_BACK = _NEARBY.total_seconds()
"""Seconds that clocks may disagree; a longer step back begins another part of the file."""
_MAX_RAISED = 200
"""So many messages in a row with a stamp before the last one's are another part of the file, too."""
_TOLERANCE = timedelta(minutes=2)
"""In the hour that comes twice, a shorter step back is a disagreement, and a longer one the second time."""

_WEEKDAYS = {day: number for number, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}

_FIRST_YEAR, _LAST_YEAR = 1970, 2100
_BUDDHIST, _MINGUO = 543, 1911
_MAX_SHORT_YEAR = 51
"""Chat apps are from 2009 on: the two last digits of a year above this are of the Buddhist year 2552 or later."""
_MAX_MISFITS = 0.05
"""Share of dates that may be impossible in the order of numbers that fits a file best."""
_DAY = timedelta(days=1)
_NEVER = datetime.combine(date.min, time.min)


def gregorian_year(year: int) -> int:
    """The year of a date as written: with two digits, or by the calendar of Thailand or Taiwan. Raises ValueError."""
    full_year = year
    if 0 <= year < 100:
        full_year = year + (2000 if year <= _MAX_SHORT_YEAR else 2500 - _BUDDHIST)
    elif 100 <= year < 200:
        full_year = year + _MINGUO
    elif year > _LAST_YEAR:
        full_year = year - _BUDDHIST
    if not _FIRST_YEAR <= full_year <= _LAST_YEAR:
        raise ValueError(f"{year}")
    return full_year


def local_date(numbers: tuple[int, int, int], places: DatePlaces) -> date:
    """The date of three numbers in this order. Raises ValueError for an impossible one."""
    return date(gregorian_year(numbers[places[0]]), numbers[places[1]], numbers[places[2]])


def local_time(text: str) -> datetime:
    """A time in ISO 8601, with or without a zone. Raises ValueError, also for a year that cannot be meant."""
    stamp = datetime.fromisoformat(text)
    return stamp if _FIRST_YEAR <= stamp.year <= _LAST_YEAR else stamp.replace(year=gregorian_year(stamp.year))


def dates_do_not_fit(count: int) -> str:
    """The report on a file whose dates have no common order; `count` of them do not fit the best one."""
    return tr(
        "the file was left out, as {count} of its dates fit neither day/month/year nor month/day/year nor "
        "year/month/day like the others; export the chat again, or split a file that was joined from several",
        count=f"{count:,}",
    )


def as_written(stamp: datetime, zone: ZoneInfo) -> datetime:
    """A time in UTC by its stamp alone: of an hour that comes twice the first."""
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=zone, fold=0)).astimezone(UTC)


class Direction(msgspec.Struct):
    """Counts in which direction the times of a file run."""

    forward: int = 0
    backward: int = 0
    last: date | None = None

    def add(self, moment: date) -> None:
        """Takes the next date or time of the file; all must be of one kind."""
        last, self.last = self.last, moment
        if last is None or moment == last:
            return
        if moment > last:
            self.forward += 1
        else:
            self.backward += 1

    @property
    def is_newest_first(self) -> bool:
        """Whether nearly every step goes back. A single one may be a disagreement of clocks."""
        return self.backward > 1 and self.backward > 10 * self.forward


class DateSurvey:
    """Finds the order of the numbers of a file's dates, from all of them.

    Args:
        first_year: dates before it are hardly meant.
    """

    def __init__(self, first_year: int = 2009) -> None:
        self._first_year = first_year
        self._last: tuple[int, int, int] | None = None
        self._weekday = ""
        self._total = 0
        self._misfits = dict.fromkeys(ALL_PLACES, 0)
        self._improbable = dict.fromkeys(ALL_PLACES, 0)
        self._directions = {places: Direction() for places in ALL_PLACES}
        self._weekdays: dict[DatePlaces, dict[str, int]] = {places: dict(_WEEKDAYS) for places in ALL_PLACES}

    def add(self, numbers: tuple[int, int, int], weekday: str = "") -> None:
        """Takes the next date of the file; the same one again says nothing.

        Args:
            numbers: the three numbers as written.
            weekday: the weekday as written, in any language.
        """
        if numbers == self._last and weekday == self._weekday:
            return
        word = short if (short := weekday[:3].lower()) in _WEEKDAYS else weekday
        self._last, self._weekday = numbers, weekday
        self._total += 1
        for places in ALL_PLACES:
            try:
                day = local_date(numbers, places)
            except ValueError:
                self._misfits[places] += 1
                continue
            # A word for a weekday stands for one weekday only.
            is_other_day = bool(word) and self._weekdays[places].setdefault(word, day.weekday()) != day.weekday()
            if is_other_day:
                self._misfits[places] += 1
                continue
            self._improbable[places] += day.year < self._first_year
            self._directions[places].add(day)

    def places(self, preferred: DatePlaces = DAY_FIRST) -> DatePlaces:
        """The order in which most dates are possible; of equals the one that runs in one direction, best forwards."""

        def cost(places: DatePlaces) -> tuple[int, int, bool, bool, int]:
            direction = self._directions[places]
            disorder = min(direction.forward, direction.backward)
            unfit = self._misfits[places] + self._improbable[places]
            is_backward = direction.backward > direction.forward
            return unfit, disorder, is_backward, places != preferred, ALL_PLACES.index(places)

        return min(ALL_PLACES, key=cost)

    def misfits(self, places: DatePlaces) -> int:
        """How many different dates are impossible in this order; 0 if they are so few that each may be damaged."""
        count = self._misfits[places]
        return count if count > max(1, _MAX_MISFITS * self._total) else 0

    def is_newest_first(self, places: DatePlaces) -> bool:
        """Whether the dates run backwards in this order."""
        return self._directions[places].is_newest_first


def in_file_order(
    records: Iterable[Record],
    stamp_of: Callable[[Record], datetime],
    zone: ZoneInfo,
    *,
    is_newest_first: bool = False,
) -> Iterator[tuple[Record, datetime, datetime]]:
    """Yields the records with their times in UTC: as written, which is the same in every export, and in order.

    The times in order never go back by less than `MAX_STEP_BACK`; sorted by them, the records keep their order.

    Args:
        records: in the order of the file.
        stamp_of: the time of a record; one without a zone is local.
        zone: the zone of local times.
        is_newest_first: whether the file is in reverse order.
    """
    clock = LocalClock(zone, is_newest_first=is_newest_first)
    timed = ((record, *clock.read(stamp_of(record))) for record in records)
    if is_newest_first:
        return _reversed_moments(_without_steps_back(timed, -1))
    return _without_steps_back(timed, 1)


class LocalClock:
    """A clock on the wall, read in the order of a file.

    Args:
        zone: where it hangs.
        is_newest_first: whether the file is in reverse order.
    """

    def __init__(self, zone: ZoneInfo, *, is_newest_first: bool = False) -> None:
        self._zone = zone
        self._is_newest_first = is_newest_first
        self._start = self._end = _NEVER
        self._offset = timedelta(0)
        self._last: datetime | None = None
        self._is_past_change = False

    def read(self, stamp: datetime) -> tuple[datetime, datetime]:
        """The time in UTC as written, and as meant in this file."""
        if stamp.tzinfo is not None:
            moment = self._last = stamp.astimezone(UTC)
            return moment, moment
        if not self._start <= stamp < self._end:
            self._find_interval(stamp)
        if self._start <= stamp < self._end:
            moment = self._last = (stamp - self._offset).replace(tzinfo=UTC)
            return moment, moment
        first = stamp.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        second = stamp.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        if second > first:
            self._is_past_change = self._is_past_change or self._is_changed(first, second)
            is_second = self._is_past_change != self._is_newest_first
        else:  # if the second is earlier, this hour never was: the phone's clock was not put forward yet
            self._is_past_change = False
            is_second = second < first
        self._last = second if is_second else first
        return first, self._last

    def _is_changed(self, first: datetime, second: datetime) -> bool:
        """Whether the clock was changed between the message before and this one, in an hour that comes twice."""
        if self._last is None:
            return False
        if self._is_newest_first:
            return first - _NEARBY < self._last < second - _TOLERANCE
        return first + _TOLERANCE < self._last < second + _NEARBY

    def _find_interval(self, stamp: datetime) -> None:
        """Finds the day of a stamp, if its clock is not changed then or on the days around it."""
        day = datetime.combine(stamp.date(), time.min)
        around = (day - _DAY, day, day + _DAY, day + 2 * _DAY)
        offsets = [moment.replace(tzinfo=self._zone).utcoffset() for moment in around]
        offset = offsets[0]
        if offset is not None and all(other == offset for other in offsets):
            self._start, self._end, self._offset = day, day + _DAY, offset
            self._is_past_change = False
        else:
            self._start = self._end = _NEVER


_Timed = tuple[Record, datetime, datetime]


def _without_steps_back(timed: Iterable[_Timed[Record]], sign: int) -> Iterator[_Timed[Record]]:
    """The records with times that do not step back a little.

    Of a record and the one before it that is later, the one that does not fit between its neighbours is moved.

    Args:
        timed: records with the time as written and as meant.
        sign: -1 if times run backwards.
    """
    held: _Timed[Record] | None = None
    last = 0.0  # of `held`
    floor = float("-inf")  # the time of the last record that was yielded
    behind: tuple[_Timed[Record], float] | None = None  # the record after `held`, if it is earlier
    raised = 0
    for item in timed:
        position = sign * item[2].timestamp()
        if held is None:
            held, last = item, position
            continue
        if behind is not None:
            earlier, earlier_position = behind
            behind = None
            if position < last:  # so `held` is ahead of both
                yield held[0], held[1], earlier[2]
                held, last = earlier, earlier_position
            else:
                yield held
                held = (earlier[0], earlier[1], held[2])
            floor = last
        if position >= last:
            yield held
            floor, raised = last, 0
            held, last = item, position
        elif last - position > MAX_STEP_BACK or raised >= _MAX_RAISED:
            yield held
            floor, raised = float("-inf"), 0
            held, last = item, position
        elif position >= floor:
            behind = item, position
        else:
            yield held
            floor, raised = last, raised + 1
            held = (item[0], item[1], held[2])
    if held is not None:
        yield held
    if held is not None and behind is not None:
        yield behind[0][0], behind[0][1], held[2]


def _reversed_moments(timed: Iterable[_Timed[Record]]) -> Iterator[_Timed[Record]]:
    """The records of a file with the newest first: those of one moment the other way round."""
    moment: list[_Timed[Record]] = []
    for item in timed:
        if moment and item[2] != moment[-1][2]:
            yield from reversed(moment)
            moment.clear()
        moment.append(item)
    yield from reversed(moment)

"""Reads the times of a table's column, whatever program wrote or reformatted them.

Whether days or months come first in `03/04/2021` is inferred once, from the whole column.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

from doppel.i18n import tr
from training.archives.formats.local_times import (
    DAY_FIRST,
    MONTH_FIRST,
    YEAR_FIRST,
    DatePlaces,
    DateSurvey,
    LocalClock,
    local_date,
    local_time,
)
from training.archives.formats.timestamps import AM_PM, from_epoch, hour_24, month_number

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
_CLOCK = (
    rf"(?:[ T,]+(?:at |um |à )?(?P<before>{AM_PM})?\s?(?P<hour>\d{{1,2}})[:.h](?P<minute>\d\d)"
    rf"(?:[:.](?P<second>\d\d)(?:[.,]\d+)?)?\s?(?P<after>{AM_PM})?)?"
)
_ZONE = r"\s*\(?(?P<zone>Z|[A-Z]{2,5}|(?:GMT|UTC)?[+-]\d\d?:?\d\d)?\)?"
_NUMERIC = re.compile(
    rf"(?P<first>\d{{1,4}})\s?[-/.年]\s?(?P<second_part>\d{{1,2}})\s?[-/.月]\s?(?P<third>\d{{1,4}})[日.]?{_CLOCK}{_ZONE}",
    re.IGNORECASE,
)
_WEEKDAY = r"(?:[a-z]{3,9},?\s+)?"
_NAMED = tuple(
    re.compile(_WEEKDAY + day + _CLOCK + _ZONE + year, re.IGNORECASE)
    for day, year in (
        (r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\.?[ -](?P<month>[a-z]{3,9})\.?,?[ -](?P<year>\d{2,4})", ""),
        (r"(?P<month>[a-z]{3,9})\.? (?P<day>\d{1,2})(?:st|nd|rd|th)?,? (?P<year>\d{4})", ""),
        (r"(?P<month>[a-z]{3,9}) +(?P<day>\d{1,2})", r"\s+(?P<year>\d{4})"),  # Twitter and ctime
    )
)
_HOURS = {
    **{"Z": 0, "UTC": 0, "GMT": 0, "WET": 0, "BST": 1, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3},
    **{"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7},
    **{"HKT": 8, "SGT": 8, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11},
}
"""Hours east of Greenwich of usual abbreviations; those of the owner's own zone come first."""

_FIRST_YEAR = 1990
_CENTURY_FROM = 70


class TimeColumn:
    """The times in one column.

    Args:
        zone: of times without one.
        values: the whole column, from the beginning; looked at when it is not clear whether days or months come first.
        note: is told when that cannot be inferred.
    """

    def __init__(self, zone: ZoneInfo, values: Callable[[], Iterable[str]], note: Callable[[str], None]) -> None:
        self._zone = zone
        self._values = values
        self._note = note
        self._clock = LocalClock(zone)
        self._places: DatePlaces | None = None

    def parse(self, text: str) -> datetime:
        """The next time of the column in UTC. Raises ValueError, OverflowError or OSError."""
        return self._clock.read(self.read(text))[1]

    def read(self, text: str) -> datetime:
        """A time as written: local if it names no zone. Raises ValueError, OverflowError or OSError."""
        text = text.strip()
        if _NUMBER.fullmatch(text):
            return from_epoch(float(text.replace(",", ".")))
        with suppress(ValueError):
            return local_time(text)
        text = _plain(text)
        if match := _NUMERIC.fullmatch(text):
            return self._at(match, self._date(match))
        for pattern in _NAMED:
            if match := pattern.fullmatch(text):
                day = date(_year(match["year"]), month_number(match["month"]), int(match["day"]))
                return self._at(match, day)
        raise ValueError(tr("{text} is no time in a known form", text=repr(text[:40])))

    def _date(self, match: re.Match[str]) -> date:
        if len(match["first"]) > 2:
            return local_date(_numbers(match), YEAR_FIRST)
        if self._places is None:
            self._places = self._infer()
        return local_date(_numbers(match), self._places)

    def _at(self, match: re.Match[str], day: date) -> datetime:
        hour = hour_24(int(match["hour"] or 0), match["before"] or match["after"])
        local = datetime.combine(day, time(hour, int(match["minute"] or 0), int(match["second"] or 0)))
        return local.replace(tzinfo=self._offset(match["zone"], local))

    def _offset(self, name: str | None, local: datetime) -> timezone | None:
        """The zone that is named; None for the owner's own."""
        if not name or name.upper() == local.replace(tzinfo=self._zone).tzname():
            return None
        if name.upper() in _HOURS:
            return timezone(timedelta(hours=_HOURS[name.upper()]))
        if name[-1].isdecimal():
            sign, digits = name[-5 - (":" in name) :][:1], re.sub(r"\D", "", name)
            minutes = int(digits[:-2]) * 60 + int(digits[-2:])
            return timezone(timedelta(minutes=-minutes if "-" in name else minutes)) if sign else None
        raise ValueError(tr("unknown time zone {name}", name=name))

    def _infer(self) -> DatePlaces:
        """The order of the numbers of a date, from all dates of the column."""
        survey, is_american = DateSurvey(_FIRST_YEAR), False
        for value in self._values():
            match = _NUMERIC.fullmatch(_plain(value))
            if match is None or len(match["first"]) > 2:
                continue
            survey.add(_numbers(match))
            is_american = is_american or ("/" in value and (match["before"] or match["after"]) is not None)
        places = survey.places(MONTH_FIRST if is_american else DAY_FIRST)
        if misfits := survey.misfits(places):
            self._note(
                tr(
                    "{count} dates fit neither day/month nor month/day throughout; those that do not fit the more "
                    "frequent order are left out",
                    count=f"{misfits:,}",
                )
            )
        return places


def _numbers(match: re.Match[str]) -> tuple[int, int, int]:
    return int(match["first"]), int(match["second_part"]), int(match["third"])


def _plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\xa0", " ").replace("\u200e", "").strip()


def _year(text: str) -> int:
    """A year of four digits, or of two, which is in the last decades."""
    year = int(text)
    return year if len(text) > 2 else year + (1900 if year >= _CENTURY_FROM else 2000)

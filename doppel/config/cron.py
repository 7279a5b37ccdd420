"""Cron expressions of five fields: what is accepted, and which local times they name.

APScheduler parses the fields and searches the times. It is given local times as if they were UTC, since its own
handling of clock changes posts twice in a repeated hour. What a local time means where clocks change is decided by
`bot.posts.triggers`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.triggers.cron import CronTrigger

from doppel.i18n import tr

_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day": "1-31",
    "month": "1-12, jan-dec",
    "weekday": "0-7, sun-sat",
}
"""The fields in their order, and what each may hold."""

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_ALL_CALENDARS = (datetime(2000, 1, 1), datetime(2028, 1, 1))  # noqa: DTZ001 - local times have no zone
"""In 28 years, every day of the year, also 29 February, falls on every weekday."""


class CronExpression:
    """The local times that match `minute hour day month weekday`.

    Attributes:
        is_hourly: it matches in every hour of the day.
        has_open_hours: its hour field is `*` or `*/n`: it names a pace and no times of day.

    Raises:
        ValueError: the text is not a cron expression; the message says which field is wrong and what it may hold.
    """

    def __init__(self, text: str) -> None:
        values = text.split()
        if len(values) != len(_FIELDS):
            raise ValueError(tr("five fields are needed: minute hour day month weekday"))
        for field, value in zip(_FIELDS, values, strict=True):
            _check_field(field, value)
        minute, hour, day, month, weekday = values
        self.is_hourly = hour in ("*", "*/1", "0-23")
        self.has_open_hours = self.is_hourly or hour.startswith("*")
        times = {"minute": minute, "hour": hour, "month": month}
        days, weekdays = {"day": day}, {"day_of_week": _weekdays(weekday)}
        # If both fields are set, cron matches either; APScheduler would match only days that satisfy both.
        alternatives = [days | weekdays] if "*" in (day[:1], weekday[:1]) else [days, weekdays]
        self._triggers = [_trigger(**times, **alternative) for alternative in alternatives]

    def local_times(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The matching times from `start` to `end`, both included, in order. All are local times without a zone."""
        last, following = end.replace(tzinfo=UTC), start.replace(tzinfo=UTC)
        while following <= last and (found := self._next(following, last)) is not None:
            yield found.replace(tzinfo=None)
            following = found + timedelta(minutes=1)

    def ever_matches(self) -> bool:
        """Whether any day matches; 30 February does not."""
        return next(self.local_times(*_ALL_CALENDARS), None) is not None

    def _next(self, start: datetime, last: datetime) -> datetime | None:
        for trigger in self._triggers:
            trigger.end_date = last  # without an end, it searches until the year 9999 for a day like 30 February
        times = (trigger.get_next_fire_time(None, start) for trigger in self._triggers)
        return min((time for time in times if time is not None), default=None)


def _trigger(**arguments: Any) -> CronTrigger:
    return CronTrigger(timezone=UTC, **arguments)


def _check_field(field: str, value: str) -> None:
    try:
        if field == "weekday":
            _weekdays(value)
        else:
            _trigger(**{field: value})
    except ValueError:
        raise ValueError(
            tr(
                "`{value}` is not a valid {field}: write {allowed}, a range 1-5, a step */5 or a list 1,5",
                value=value,
                field=tr(field),
                allowed=_FIELDS[field],
            )
        ) from None


def _weekdays(field: str) -> str:
    """Translates cron's weekday field, where 0 and 7 are Sunday, to names: APScheduler counts from Monday."""
    if field == "*":
        return field
    chosen: set[int] = set()
    for part in field.lower().split(","):
        match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", part)
        if match is None or match[3] == "0":
            raise ValueError(part)
        first, last, step = match.groups()
        start = 0 if first is None else _weekday(first)
        open_end = 6 if first is None or step else start
        end = open_end if last is None else _weekday(last)
        end += 7 if end < start else 0
        chosen.update(day % 7 for day in range(start, end + 1, int(step or 1)))
    return ",".join(_DAYS[day] for day in sorted(chosen))


def _weekday(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    if text.isdecimal() and int(text) <= 7:
        return int(text)
    raise ValueError(text)

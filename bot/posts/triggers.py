"""When posts are due: slots from a cron expression or an interval, the same ones after every restart.

A slot is the scheduled time; its fire time is the slot plus a jitter. The jitter is drawn from the schedule's name and
the slot, so a restart does not change it.

Cron expressions are in the owner's time zone. Where its clocks change, they follow what cron daemons do:

- An expression that names hours fires once for each time it names: in a repeated hour at the first occurrence, and for
  a time that does not exist as soon as the clocks have gone forward.
- `*` and `*/n` in the hour field name a pace, which goes on in both passes of a repeated hour.
"""

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol
from zoneinfo import ZoneInfo

from doppel.config import PostSettings, parse_duration
from doppel.config.cron import CronExpression

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Start of all intervals, so that `6h` has the same slots whenever the daemon was started."""

_DAY = 24 * 60 * 60
_MOMENT = timedelta(microseconds=1)


class PostTrigger:
    """The slots of one schedule.

    Raises:
        ValueError: `cron` is not a valid cron expression; `doppel.config.scheduled_posts` checks it beforehand.
    """

    def __init__(self, post: PostSettings, zone: ZoneInfo) -> None:
        self._name = post.name
        self.jitter = timedelta(minutes=post.jitter_minutes)
        """The longest delay between a slot and its fire time."""
        self._times: _Times = (
            _Interval(parse_duration(post.every)) if post.every else _ZonedCron(CronExpression(post.cron or ""), zone)
        )
        self.text = f"{post.every or post.cron} {zone.key} {post.jitter_minutes:g}"
        """Everything the slots depend on; the schedule has changed if this differs from the stored text."""

    def slots(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The slots from `start` to `end`, both included, in UTC: each once, in order."""
        return self._times.between(start.astimezone(UTC), end.astimezone(UTC))

    def fire_time(self, slot: datetime) -> datetime:
        """When the post of a slot is made: the slot plus its jitter."""
        return slot + self.jitter * Random(f"{self._name} {slot.isoformat()}").random()

    def firing(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The slots whose fire time is later than `after` and not later than `until`, in the order of the slots."""
        return (slot for slot in self.slots(after - self.jitter, until) if after < self.fire_time(slot) <= until)


class _Times(Protocol):
    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The times from `start` to `end`, both included; all are in UTC."""
        ...


class _Interval:
    """Multiples of a period since `EPOCH`."""

    def __init__(self, period: timedelta) -> None:
        self._period = period

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        time = EPOCH - (EPOCH - start) // self._period * self._period
        while time <= end:
            yield time
            time += self._period


class _ZonedCron:
    """The moments at which the clocks of a time zone show what a cron expression names."""

    def __init__(self, cron: CronExpression, zone: ZoneInfo) -> None:
        self._cron = cron
        self._zone = zone

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        offset, begin = self._offset(start - _MOMENT), start
        for change in self._offset_changes(start, end):
            yield from self._at_one_offset(begin, change - _MOMENT, offset)
            before, offset, begin = offset, self._offset(change), change
            if self._names_skipped_time(change, before, offset):
                yield change
                begin += _MOMENT
        yield from self._at_one_offset(begin, end, offset)

    def _at_one_offset(self, start: datetime, end: datetime, offset: timedelta) -> Iterator[datetime]:
        for local in self._cron.local_times(_local(start, offset), _local(end, offset)):
            time = local.replace(tzinfo=UTC) - offset
            if self._cron.has_open_hours or not time.astimezone(self._zone).fold:
                yield time

    def _names_skipped_time(self, change: datetime, before: timedelta, after: timedelta) -> bool:
        """Whether it names a time of day that the clocks skip at `change`, when the offset grows."""
        if self._cron.is_hourly:  # the skipped hour did not take place; the next one has its own time
            return False
        skipped = self._cron.local_times(_local(change, before), _local(change - _MOMENT, after))
        return next(skipped, None) is not None

    def _offset_changes(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The moments from `start` to `end` at which the zone's offset from UTC changes; whole seconds."""
        day = start.replace(microsecond=0) - timedelta(seconds=1)
        while day < end:
            before = self._offset(day)
            if self._offset(day + timedelta(seconds=_DAY)) != before:
                seconds = bisect_left(
                    range(_DAY), True, key=lambda number: self._offset(day + timedelta(seconds=number)) != before
                )
                change = day + timedelta(seconds=seconds)
                if start <= change <= end:
                    yield change
            day += timedelta(seconds=_DAY)

    def _offset(self, time: datetime) -> timedelta:
        return time.astimezone(self._zone).utcoffset() or timedelta()


def _local(time: datetime, offset: timedelta) -> datetime:
    return (time + offset).replace(tzinfo=None)

"""When posts are due: slots from a cron expression or an interval, the same ones after every restart.

A slot is the scheduled time; its fire time is the slot plus a jitter. The jitter is drawn from the schedule's name and
the slot, so a restart does not change it.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from doppel.config import PostSettings, parse_duration
from doppel.errors import UserError
from doppel.i18n import tr

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Start of all intervals, so that `6h` has the same slots whenever the daemon was started."""

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class PostTrigger:
    """The slots of one schedule.

    Raises:
        UserError: `cron` is not a valid cron expression of five fields.
    """

    def __init__(self, post: PostSettings, zone: ZoneInfo) -> None:
        self._name = post.name
        self.jitter = timedelta(minutes=post.jitter_minutes)
        """The longest delay between a slot and its fire time."""
        self._trigger = _interval(post.every) if post.every else _cron(post, zone)
        self.text = f"{post.every or post.cron} {zone.key} {post.jitter_minutes:g}"
        """Everything the slots depend on; the schedule has changed if this differs from the stored text."""

    def slots(self, start: datetime) -> Iterator[datetime]:
        """The slots from `start` on, in UTC; usually endless."""
        following = self._trigger.get_next_fire_time(None, start)
        while following is not None:
            yield following.astimezone(UTC)
            following = self._trigger.get_next_fire_time(following, following + timedelta(microseconds=1))

    def fire_time(self, slot: datetime) -> datetime:
        """When the post of a slot is made: the slot plus its jitter."""
        return slot + self.jitter * Random(f"{self._name} {slot.isoformat()}").random()

    def due(self, since: datetime, now: datetime) -> list[datetime]:
        """The slots at or after `since` whose fire time is not after `now`, oldest first."""
        due_slots = []
        for slot in self.slots(since):
            if slot > now:
                break
            if self.fire_time(slot) <= now:
                due_slots.append(slot)
        return due_slots

    def next_fire_time(self, after: datetime) -> datetime | None:
        """The first fire time later than `after`."""
        earliest: datetime | None = None
        for slot in self.slots(after - self.jitter):
            if earliest is not None and slot >= earliest:
                break
            fire_time = self.fire_time(slot)
            if fire_time > after and (earliest is None or fire_time < earliest):
                earliest = fire_time
        return earliest


class ApschedulerTrigger(BaseTrigger):  # type: ignore[misc]
    """Adapts a `PostTrigger` to APScheduler."""

    def __init__(self, trigger: PostTrigger) -> None:
        self._trigger = trigger

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first fire time later than both arguments."""
        return self._trigger.next_fire_time(max(now, previous_fire_time or now))


def _interval(every: str) -> BaseTrigger:
    return IntervalTrigger(seconds=parse_duration(every).total_seconds(), start_date=EPOCH, timezone=UTC)


def _cron(post: PostSettings, zone: ZoneInfo) -> BaseTrigger:
    fields = (post.cron or "").split()
    if len(fields) != 5:
        raise UserError(
            tr("config.yaml: post `{name}`: cron needs five fields: minute hour day month weekday", name=post.name)
        )
    minute, hour, day, month, weekday = fields
    try:
        parts = {"minute": minute, "hour": hour, "month": month}
        if "*" in (day[:1], weekday[:1]):
            return CronTrigger(**parts, day=day, day_of_week=_weekdays(weekday), timezone=zone)
        # If both fields are set, cron fires on either; APScheduler would fire only when both match.
        days = CronTrigger(**parts, day=day, timezone=zone)
        return OrTrigger([days, CronTrigger(**parts, day_of_week=_weekdays(weekday), timezone=zone)])
    except ValueError as error:
        raise UserError(tr("config.yaml: post `{name}`: cron: {error}", name=post.name, error=error)) from None


def _weekdays(field: str) -> str:
    """Translates cron's weekday field, where 0 and 7 are Sunday, to names: APScheduler counts from Monday."""
    if field == "*":
        return field
    chosen: set[int] = set()
    for part in field.lower().split(","):
        match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", part)
        if match is None:
            raise ValueError(tr("unknown weekday {part}", part=part))
        first, last, step = match.groups()
        start = 0 if first is None else _weekday(first)
        open_end = 6 if first is None or step else start
        end = open_end if last is None else _weekday(last)
        end += 7 if end < start else 0
        chosen.update(day % 7 for day in range(start, end + 1, max(1, int(step or 1))))
    return ",".join(_DAYS[day] for day in sorted(chosen))


def _weekday(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    if text.isdecimal() and int(text) <= 7:
        return int(text)
    raise ValueError(tr("unknown weekday {part}", part=text))

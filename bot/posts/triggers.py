"""When a post is due: slots from a cron line or an interval, the same ones after every restart.

A slot is the moment as written in config.yaml; its `moment` is the slot plus the jitter, which is drawn from the
schedule's name and the slot, so that a restart does not draw again. Knows neither store nor persona.
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
"""Intervals count from here, so that `6h` means the same moments whenever the daemon was started."""

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class PostTrigger:
    """The slots of one schedule.

    Raises:
        UserError: `cron` is not five fields of cron.
    """

    def __init__(self, post: PostSettings, zone: ZoneInfo) -> None:
        self._name = post.name
        self.jitter = timedelta(minutes=post.jitter_minutes)
        """The longest delay of a slot's moment."""
        self._trigger = _interval(post.every) if post.every else _cron(post, zone)
        self.text = f"{post.every or post.cron} {zone.key} {post.jitter_minutes:g}"
        """What the slots depend on; another text means other slots."""

    def slots(self, start: datetime) -> Iterator[datetime]:
        """The slots from `start` on, in UTC, without end as far as the rhythm has none."""
        following = self._trigger.get_next_fire_time(None, start)
        while following is not None:
            yield following.astimezone(UTC)
            following = self._trigger.get_next_fire_time(following, following + timedelta(microseconds=1))

    def fire_time(self, slot: datetime) -> datetime:
        """When the post of a slot is made: up to the jitter later."""
        return slot + self.jitter * Random(f"{self._name} {slot.isoformat()}").random()

    def due(self, since: datetime, now: datetime) -> list[datetime]:
        """The slots at or after `since` whose moment has come by `now`, oldest first."""
        passed = []
        for slot in self.slots(since):
            if slot > now:
                break
            if self.fire_time(slot) <= now:
                passed.append(slot)
        return passed

    def next_fire_time(self, after: datetime) -> datetime | None:
        """The first moment later than `after`."""
        best: datetime | None = None
        for slot in self.slots(after - self.jitter):
            if best is not None and slot >= best:
                break
            fire_time = self.fire_time(slot)
            if fire_time > after and (best is None or fire_time < best):
                best = fire_time
        return best


class ApschedulerTrigger(BaseTrigger):  # type: ignore[misc]
    """A rhythm as APScheduler wants it."""

    def __init__(self, trigger: PostTrigger) -> None:
        self._rhythm = trigger

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The next moment later than now and than the one before."""
        return self._rhythm.next_fire_time(max(now, previous_fire_time or now))


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
        # Where both name days, cron means either; APScheduler would mean both.
        days = CronTrigger(**parts, day=day, timezone=zone)
        return OrTrigger([days, CronTrigger(**parts, day_of_week=_weekdays(weekday), timezone=zone)])
    except ValueError as error:
        raise UserError(tr("config.yaml: post `{name}`: cron: {error}", name=post.name, error=error)) from None


def _weekdays(field: str) -> str:
    """Cron's weekday field, where 0 and 7 are Sunday, as the names APScheduler counts otherwise."""
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

"""When a post is due."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.posts.triggers import PostTrigger
from doppel.config import PostSettings

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
YEAR = timedelta(days=366)


def post_trigger(zone: str = "UTC", **post: Any) -> PostTrigger:
    return PostTrigger(PostSettings(name="daily", to="web:posts", **post), ZoneInfo(zone))


def first(count: int, trigger: PostTrigger, start: datetime = MONDAY) -> list[str]:
    return [f"{slot:%a %d %H:%M:%S}" for slot in islice(trigger.slots(start, start + YEAR), count)]


def test_cron_is_in_the_owners_zone() -> None:
    assert first(2, post_trigger("Asia/Shanghai", cron="30 9 * * *")) == ["Mon 02 01:30:00", "Tue 03 01:30:00"]


def test_both_ends_of_the_range_belong_to_it() -> None:
    for trigger in (post_trigger(cron="0 * * * *"), post_trigger(every="1h")):
        assert len(list(trigger.slots(MONDAY, MONDAY + timedelta(hours=2)))) == 3
        assert list(trigger.slots(MONDAY + timedelta(seconds=1), MONDAY + timedelta(minutes=59))) == []


def test_cron_that_never_matches_has_no_slots() -> None:
    for zone in ("UTC", "Europe/Berlin"):
        assert list(post_trigger(zone, cron="0 0 30 2 *").slots(MONDAY, MONDAY + 10 * YEAR)) == []


def test_interval_has_the_same_slots_whenever_the_range_begins() -> None:
    trigger = post_trigger(every="6h")
    assert first(2, trigger, MONDAY + timedelta(hours=1)) == first(2, trigger, MONDAY + timedelta(hours=5))
    assert first(2, trigger, MONDAY + timedelta(hours=6)) == ["Mon 02 06:00:00", "Mon 02 12:00:00"]


@given(st.integers(0, 59), st.integers(0, 10**6), st.integers(1, 90))
def test_fire_times_are_drawn_once_and_bounded(minute: int, offset: int, jitter: int) -> None:
    trigger, again = (post_trigger(cron=f"{minute} * * * *", jitter_minutes=jitter) for _ in range(2))
    start = MONDAY + timedelta(seconds=offset)
    slot = next(trigger.slots(start, start + YEAR))
    assert trigger.fire_time(slot) == again.fire_time(slot)
    assert slot <= trigger.fire_time(slot) <= slot + timedelta(minutes=jitter)


@given(st.integers(0, 10**6), st.integers(1, 86400), st.sampled_from([0, 20, 150]))
def test_firing_slots_are_those_whose_fire_time_is_in_the_range(offset: int, length: int, jitter: int) -> None:
    trigger = post_trigger(every="1h", jitter_minutes=jitter)
    after = MONDAY + timedelta(seconds=offset)
    until = after + timedelta(seconds=length)
    around = trigger.slots(after - timedelta(hours=4), until + timedelta(hours=4))
    assert list(trigger.firing(after, until)) == [slot for slot in around if after < trigger.fire_time(slot) <= until]


def test_text_changes_with_what_slots_depend_on() -> None:
    triggers = [
        post_trigger(every="6h"),
        post_trigger("Asia/Tokyo", every="6h"),
        post_trigger(every="6h", jitter_minutes=3),
        post_trigger(every="7h"),
    ]
    assert len({trigger.text for trigger in triggers}) == 4
    assert post_trigger("Asia/Tokyo", cron="30 8 * * 1-5", jitter_minutes=20).text == "30 8 * * 1-5 Asia/Tokyo 20"


def test_invalid_cron_is_refused() -> None:
    with pytest.raises(ValueError, match="hour"):
        post_trigger(cron="0 24 * * *")

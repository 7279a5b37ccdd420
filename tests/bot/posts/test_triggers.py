"""When a post is due."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.posts.triggers import ApschedulerTrigger, PostTrigger
from doppel.config import PostSettings
from doppel.errors import UserError

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


def post_trigger(zone: str = "UTC", **post: Any) -> PostTrigger:
    return PostTrigger(PostSettings(name="daily", to="web:posts", **post), ZoneInfo(zone))


def first(count: int, one: PostTrigger, start: datetime = MONDAY) -> list[str]:
    return [f"{slot:%a %d %H:%M:%S}" for slot in islice(one.slots(start), count)]


def test_cron_is_in_the_owners_zone() -> None:
    assert first(2, post_trigger("Asia/Shanghai", cron="30 9 * * *")) == ["Mon 02 01:30:00", "Tue 03 01:30:00"]


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", ["Sun"]),
        ("7", ["Sun"]),
        ("1-5", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("sat,sun", ["Sat", "Sun"]),
        ("FRI-MON", ["Mon", "Fri", "Sat", "Sun"]),
        ("*/2", ["Tue", "Thu", "Sat", "Sun"]),
        ("1-5/2", ["Mon", "Wed", "Fri"]),
        ("5/1", ["Fri", "Sat"]),
    ],
)
def test_weekdays_are_crons(field: str, days: list[str]) -> None:
    one = post_trigger(cron=f"0 0 * * {field}")
    found = [slot for slot in islice(one.slots(MONDAY), 14) if slot < MONDAY + timedelta(days=7)]
    assert [f"{slot:%a}" for slot in found] == days


def test_day_and_weekday_together_mean_either() -> None:
    assert first(3, post_trigger(cron="0 0 5 * sun")) == ["Thu 05 00:00:00", "Sun 08 00:00:00", "Sun 15 00:00:00"]


def test_interval_has_the_same_slots_whenever_it_is_asked() -> None:
    one = post_trigger(every="6h")
    assert first(2, one, MONDAY + timedelta(hours=1)) == first(2, one, MONDAY + timedelta(hours=5))
    assert first(2, one, MONDAY + timedelta(hours=6)) == ["Mon 02 06:00:00", "Mon 02 12:00:00"]


@pytest.mark.parametrize("cron", ["* * * *", "61 * * * *", "0 0 * * 8", "0 0 * * funday", "x y z a b", "0 0 0 * *"])
def test_wrong_cron_names_the_post(cron: str) -> None:
    with pytest.raises(UserError, match=r"config\.yaml: post `daily`: cron"):
        post_trigger(cron=cron)


@given(st.integers(0, 59), st.integers(0, 10**6), st.integers(1, 90))
def test_moments_are_drawn_once_and_bounded(minute: int, offset: int, jitter: int) -> None:
    one, again = (post_trigger(cron=f"{minute} * * * *", jitter_minutes=jitter) for _ in range(2))
    slot = next(one.slots(MONDAY + timedelta(seconds=offset)))
    assert one.fire_time(slot) == again.fire_time(slot)
    assert slot <= one.fire_time(slot) <= slot + timedelta(minutes=jitter)


@given(st.integers(0, 10**6), st.sampled_from([0, 20, 150]))
def test_trigger_meets_every_moment_in_order(offset: int, jitter: int) -> None:
    one = post_trigger(every="1h", jitter_minutes=jitter)
    start = MONDAY + timedelta(seconds=offset)
    end = start + timedelta(hours=12)
    expected = sorted(
        fire_time
        for slot in islice(one.slots(start - timedelta(hours=3)), 20)
        if start < (fire_time := one.fire_time(slot)) < end
    )
    trigger, met, now = ApschedulerTrigger(one), [], start
    while (fire := trigger.get_next_fire_time(met[-1] if met else None, now)) is not None and fire < end:
        met.append(fire)
        now = fire
    assert met == expected


def test_due_slots_are_those_whose_moment_has_come() -> None:
    one = post_trigger(every="1h", jitter_minutes=30)
    now = MONDAY + timedelta(hours=3, minutes=10)
    due = one.due(MONDAY, now)
    assert [slot.hour for slot in due][:3] == [0, 1, 2]
    assert all(one.fire_time(slot) <= now for slot in due)

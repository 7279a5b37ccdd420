"""Timing that is learned is the timing that the messages were made with."""

import math
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median
from zoneinfo import ZoneInfo

import pytest

from doppel.adapters.timing import Moment
from training.dataset.timing import MIN_ANSWERED, TimingCollector, learn_activity, learn_delay, learn_gap

ZONE = ZoneInfo("Europe/Berlin")
START = datetime(2024, 1, 1, 12, tzinfo=UTC)

Line = tuple[datetime, bool, str]


def warm_chat(count: int, seed: int = 0, *, seconds: float = 20, silent: float = 0.0) -> list[Line]:
    """Exchanges: the owner answers after about so many seconds, or never; somebody writes again ten minutes later."""
    random, lines, at = Random(seed), list[Line](), START
    for _ in range(count):
        lines.append((at, False, "and you?"))
        if random.random() >= silent:
            lines.append((at + timedelta(seconds=seconds * math.exp(random.gauss(0, 0.5))), True, "fine"))
        at += timedelta(minutes=10, seconds=seconds)
    return lines


def collect(*chats: list[Line], is_group: bool = False, contact: str | None = None) -> TimingCollector:
    collector = TimingCollector()
    for chat in chats:
        collector.add_chat(chat, is_group=is_group, contact=contact)
    return collector


def learned_median(collector: TimingCollector, since_own: float = 600) -> float:
    model = learn_delay(collector.observations, learn_activity(collector.own_times, ZONE), ZONE)
    assert model is not None
    moment = Moment(at=START, is_group=False, since_own=since_own, characters=8, is_question=True)
    return model.quantile(moment, 0.5, ZONE)


def test_the_delays_are_learned() -> None:
    assert learned_median(collect(warm_chat(600))) == pytest.approx(20, rel=0.15)


def test_what_was_never_answered_does_not_make_answers_slower() -> None:
    collector = collect(warm_chat(1000, silent=0.4))
    assert sum(not one.is_answered for one in collector.observations) > 300
    assert learned_median(collector, since_own=700) == pytest.approx(20, rel=0.2)


def test_a_burst_is_answered_as_one() -> None:
    burst: list[Line] = [(START + timedelta(seconds=20 * number), False, "x" * 5) for number in range(3)]
    collector = collect([*burst, (START + timedelta(seconds=70), True, "ok")])
    (one,) = collector.observations
    assert (one.seconds, one.is_answered, one.moment.characters, one.moment.since_own) == (30, True, 15, None)


def test_what_others_write_after_a_pause_ends_the_wait_for_an_answer() -> None:
    later = START + timedelta(minutes=10)
    collector = collect([(START, False, "hi"), (later, False, "hello?"), (later + timedelta(seconds=9), True, "yes")])
    first, second = collector.observations
    assert (first.seconds, first.is_answered) == (600, False)
    assert (second.seconds, second.is_answered, second.moment.is_question) == (9, True, True)


def test_with_few_answers_nothing_is_learned() -> None:
    collector = collect(warm_chat(MIN_ANSWERED - 1))
    assert learn_delay(collector.observations, learn_activity(collector.own_times, ZONE), ZONE) is None


def test_activity_follows_the_hours_of_the_owners_zone() -> None:
    days = [START + timedelta(days=day, minutes=minute) for day in range(100) for minute in range(0, 60, 10)]
    activity = learn_activity([at.timestamp() for at in days], ZONE)
    assert sum(activity.by_hour) == pytest.approx(168, rel=1e-3)
    by_hour = [activity.by_hour[hour] for hour in range(24)]
    assert by_hour.index(max(by_hour)) == 13  # 12 h UTC in winter
    assert min(by_hour) > 0
    assert learn_activity([], ZONE).by_hour == (1.0,) * 168


def test_slow_contacts_are_known_by_name() -> None:
    collector = collect(warm_chat(300), contact="Ramito")
    collector.add_chat(warm_chat(300, 1, seconds=200), is_group=False, contact="Delosi")
    model = learn_delay(collector.observations, learn_activity(collector.own_times, ZONE), ZONE)
    assert model is not None
    assert model.contacts["Delosi"] > 0.5 > model.contacts["Ramito"]


def test_gaps_between_bubbles_grow_with_their_length() -> None:
    random, lines, at = Random(3), list[Line](), START
    for _ in range(400):
        text = "x" * random.randint(1, 80)
        at += timedelta(seconds=0.2 * (1 + len(text)) * math.exp(random.gauss(0, 0.2)))
        lines.append((at, True, text))
    collector = collect(lines)
    gap = learn_gap(collector.gaps, collector.gap_characters)
    assert gap is not None
    assert median(gap.sample(49, Random(seed)) for seed in range(200)) == pytest.approx(10, rel=0.15)
    assert learn_gap(collector.gaps[:50], collector.gap_characters[:50]) is None
    assert learn_gap([60.0] * 500, [10.0] * 500) is None

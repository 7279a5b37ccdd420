"""The distribution of delays and gaps, on numbers that can be followed by hand."""

import math
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median
from zoneinfo import ZoneInfo

import pytest

from doppel.adapters.timing import (
    HOURS_OF_WEEK,
    LONGEST_DELAY,
    Activity,
    BubbleGap,
    DelayRegime,
    Moment,
    ReplyDelay,
)

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
DAYS_ONLY = Activity(tuple(0.01 if hour % 24 < 8 else 1.0 for hour in range(HOURS_OF_WEEK)))


def delay(activity: Activity = DAYS_ONLY, *, spread: float = 0.0, seconds: float = 60.0) -> ReplyDelay:
    """Delays of about so many seconds of activity in a direct chat, an hour where the owner is away."""
    regimes = {
        "dm, warm": DelayRegime((math.log(seconds), 0.0, 0.0, 0.0), (-spread - 1e-9, 0.0, spread + 1e-9), 100),
        "dm, cold": DelayRegime((math.log(3600), 0.0, 0.0, 0.0), (-spread - 1e-9, 0.0, spread + 1e-9), 100),
    }
    return ReplyDelay(activity=activity, regimes=regimes, contacts={"Ramito": math.log(2)})


def moment(hours: float, since_own: float | None = None, **values: object) -> Moment:
    return Moment(
        **{
            "at": MONDAY + timedelta(hours=hours),
            "is_group": False,
            "since_own": since_own,
            "characters": 10,
            "is_question": False,
            **values,
        }  # type: ignore[arg-type]
    )


def test_somebody_who_is_at_hand_answers_at_any_hour() -> None:
    assert delay().quantile(moment(3, since_own=30), 0.5, UTC_ZONE) == pytest.approx(60)


def test_a_message_of_the_night_waits_for_the_morning() -> None:
    at_noon, at_night = (delay().quantile(moment(hours), 0.5, UTC_ZONE) for hours in (12, 3))
    assert at_noon == pytest.approx(3600)
    assert at_night == pytest.approx(5 * 3600 + (3600 - 5 * 3600 * 0.01))


def test_who_goes_away_is_first_at_hand_and_then_asleep() -> None:
    slow = delay(seconds=1200)
    assert slow.quantile(moment(2, since_own=0), 0.5, UTC_ZONE) == pytest.approx(
        6 * 3600 + 300 - (6 * 3600 - 900) * 0.01
    )


def test_contacts_have_effects_of_their_own() -> None:
    assert delay().quantile(moment(12, contact="Ramito"), 0.5, UTC_ZONE) == pytest.approx(7200)


@pytest.mark.parametrize("at", [datetime(2024, 3, 31, 0, tzinfo=UTC), datetime(2024, 10, 27, 0, tzinfo=UTC)])
def test_elapsed_and_seconds_are_inverse_over_both_changes_of_the_clock(at: datetime) -> None:
    for seconds in (1.0, 1800.0, 7200.0, 86_400.0):
        active = DAYS_ONLY.elapsed(at, seconds, BERLIN)
        assert DAYS_ONLY.seconds(at, active, BERLIN) == pytest.approx(seconds)
    # From 1 h in Berlin to 8 h are six hours when one is left out, from 2 h to 8 h seven when one comes twice.
    hours_of_night = 6 if at.month == 3 else 7
    assert DAYS_ONLY.elapsed(at, 3600 * hours_of_night, BERLIN) == pytest.approx(36 * hours_of_night)
    assert DAYS_ONLY.elapsed(at, 3600 * (hours_of_night + 1), BERLIN) == pytest.approx(36 * hours_of_night + 3600)


def test_probability_is_the_inverse_of_quantile() -> None:
    spread = delay(spread=1.0)
    for probability in (0.1, 0.5, 0.9):
        seconds = spread.quantile(moment(20), probability, BERLIN)
        assert spread.probability(moment(20), seconds, BERLIN) == pytest.approx(probability, abs=1e-6)


def test_samples_have_the_distribution() -> None:
    spread, random = delay(spread=1.0), Random(1)
    samples = [spread.sample(moment(12, since_own=5), random, UTC_ZONE) for _ in range(400)]
    assert median(samples) == pytest.approx(60, rel=0.15)
    assert min(samples) < 40 < 100 < max(samples)


def test_no_delay_is_longer_than_a_week() -> None:
    assert delay(seconds=1e12).quantile(moment(0, since_own=1), 0.5, UTC_ZONE) == LONGEST_DELAY.total_seconds()


def test_a_regime_that_was_not_learned_is_replaced_by_the_most_similar() -> None:
    assert delay().quantile(moment(12, since_own=5, is_group=True), 0.5, UTC_ZONE) == pytest.approx(60)


def test_longer_bubbles_take_longer() -> None:
    gap = BubbleGap(constant=0.0, by_length=1.0, residuals=(-0.1, 0.0, 0.1))
    assert gap.sample(99, Random(1)) > 5 * gap.sample(9, Random(1))

"""The owner's timing: how long an answer takes, by the hour, the chat and what is answered; and how bubbles follow.

Somebody who is not at hand answers by the hours of a day: time then passes at the speed of the owner's activity, and an
hour of the night is worth minutes (the time warp of Navaroli and Smyth, Modeling response time in digital human
communication, 2015). In that time the logarithm of a delay is a sum of effects and a residual, whose distribution is
that of the owner's own delays.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import msgspec

HOURS_OF_WEEK = 168
LONGEST_DELAY = timedelta(days=7)
WARM_SECONDS = 900.0
"""Who wrote in the last quarter of an hour is at hand, whatever the hour."""
_LARGEST = math.log(LONGEST_DELAY.total_seconds() * HOURS_OF_WEEK)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when somebody has written and may be answered.

    Attributes:
        at: when the last message came; with a time zone.
        is_group: whether it is a group.
        since_own: seconds since the owner last wrote in this chat; None if never.
        characters: of the messages to answer.
        is_question: whether they end with a question mark.
        contact: pseudonym of who wrote, in a direct message.
    """

    at: datetime
    is_group: bool
    since_own: float | None
    characters: int
    is_question: bool
    contact: str | None = None

    @property
    def is_warm(self) -> bool:
        """Whether the owner is at hand."""
        return self.since_own is not None and self.since_own < WARM_SECONDS

    @property
    def regime(self) -> str:
        """Delays of one regime have one distribution."""
        return f"{'group' if self.is_group else 'dm'}, {'warm' if self.is_warm else 'cold'}"

    def features(self) -> list[float]:
        """(F,) what the effects are multiplied by; the first is 1."""
        since = LONGEST_DELAY.total_seconds() if self.since_own is None else max(1.0, self.since_own)
        return [1.0, math.log(since), math.log1p(self.characters), float(self.is_question)]


class Activity(msgspec.Struct, frozen=True):
    """How active the owner is in each hour of the week.

    Attributes:
        by_hour: (168,) from Monday 0 h in the owner's time zone; above 0, 1 on average.
    """

    by_hour: tuple[float, ...]

    def elapsed(self, start: datetime, seconds: float, zone: ZoneInfo) -> float:
        """Seconds of activity in `seconds` from `start` on."""
        total, at, left = 0.0, start.astimezone(UTC), seconds
        while True:
            rate, step = self._rate(at, zone)
            if step >= left:
                return total + rate * left
            total += rate * step
            left -= step
            at += timedelta(seconds=step)

    def seconds(self, start: datetime, active: float, zone: ZoneInfo) -> float:
        """The inverse of `elapsed`: seconds until there were `active` seconds of activity, a week at most."""
        total, at, left = 0.0, start.astimezone(UTC), active
        longest = LONGEST_DELAY.total_seconds()
        while total < longest:
            rate, step = self._rate(at, zone)
            if rate * step >= left:
                return min(total + left / rate, longest)
            left -= rate * step
            total += step
            at += timedelta(seconds=step)
        return longest

    def _rate(self, at: datetime, zone: ZoneInfo) -> tuple[float, float]:
        """The activity at a time, and for how many seconds it stays so."""
        local = at.astimezone(zone)
        into_hour = local.minute * 60 + local.second + local.microsecond / 1e6
        return self.by_hour[local.weekday() * 24 + local.hour], max(1e-3, 3600 - into_hour)


class DelayRegime(msgspec.Struct, frozen=True):
    """The distribution of delays in one regime.

    Attributes:
        effects: (F,) weights of `Moment.features`.
        residuals: quantiles of the residual of the logarithm, at evenly spaced probabilities from 0 to 1.
        answered: replies that it was learned from.
    """

    effects: tuple[float, ...]
    residuals: tuple[float, ...]
    answered: int


class ReplyDelay(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of the owner's delays before the first bubble of a reply.

    Attributes:
        activity: of the owner.
        regimes: by `Moment.regime`; at least one.
        contacts: what is added for contacts who are answered faster or more slowly, by pseudonym.
    """

    activity: Activity
    regimes: Mapping[str, DelayRegime]
    contacts: Mapping[str, float]

    def sample(self, moment: Moment, random: Random, zone: ZoneInfo) -> float:
        """Seconds that the owner would have taken, this time."""
        return self.quantile(moment, random.random(), zone)

    def quantile(self, moment: Moment, probability: float, zone: ZoneInfo) -> float:
        """Seconds within which the owner would have answered with this probability, if at all."""
        regime = self.regime(moment)
        active = math.exp(min(self._level(moment, regime) + _interpolate(regime.residuals, probability), _LARGEST))
        at_hand = at_hand_seconds(moment)
        if active <= at_hand:
            return active
        later = moment.at + timedelta(seconds=at_hand)
        return min(at_hand + self.activity.seconds(later, active - at_hand, zone), LONGEST_DELAY.total_seconds())

    def probability(self, moment: Moment, seconds: float, zone: ZoneInfo) -> float:
        """The inverse of `quantile`."""
        at_hand, regime = at_hand_seconds(moment), self.regime(moment)
        active = min(seconds, at_hand)
        if seconds > at_hand:
            active += self.activity.elapsed(moment.at + timedelta(seconds=at_hand), seconds - at_hand, zone)
        if active <= 0:
            return 0.0
        residual, quantiles = math.log(active) - self._level(moment, regime), regime.residuals
        after = bisect_right(quantiles, residual)
        if after in (0, len(quantiles)):
            return float(after > 0)
        low, high = quantiles[after - 1 : after + 1]
        return (after - 1 + (residual - low) / (high - low)) / (len(quantiles) - 1)

    def regime(self, moment: Moment) -> DelayRegime:
        """The moment's regime, or the one that is most like it."""
        for name in (moment.regime, *(name for name in self.regimes if name.endswith(moment.regime[-4:]))):
            if name in self.regimes:
                return self.regimes[name]
        return next(iter(self.regimes.values()))

    def _level(self, moment: Moment, regime: DelayRegime) -> float:
        """The logarithm of the delay without its residual, in seconds of activity."""
        effects = sum(weight * value for weight, value in zip(regime.effects, moment.features(), strict=True))
        return effects + self.contacts.get(moment.contact or "", 0.0)


class BubbleGap(msgspec.Struct, frozen=True):
    """The distribution of the gap before a further bubble of a turn; its logarithm is a line and a residual.

    Attributes:
        constant: of the line.
        by_length: times the logarithm of one more than the characters of the bubble.
        residuals: quantiles of the residual, at evenly spaced probabilities from 0 to 1.
    """

    constant: float
    by_length: float
    residuals: tuple[float, ...]

    def sample(self, characters: int, random: Random) -> float:
        """Seconds that the owner would have taken for a bubble of this length, this time."""
        level = self.constant + self.by_length * math.log1p(characters)
        return math.exp(min(level + _interpolate(self.residuals, random.random()), _LARGEST))


def at_hand_seconds(moment: Moment) -> float:
    """For how long after a moment the owner is at hand, so that time passes at its usual speed."""
    return max(0.0, WARM_SECONDS - moment.since_own) if moment.since_own is not None else 0.0


def _interpolate(quantiles: Sequence[float], probability: float) -> float:
    position = min(max(probability, 0.0), 1.0) * (len(quantiles) - 1)
    below = min(int(position), len(quantiles) - 2)
    return quantiles[below] + (position - below) * (quantiles[below + 1] - quantiles[below])

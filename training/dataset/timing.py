"""Learns the owner's timing from the times of all messages of the archive: delays of answers, gaps between bubbles.

Each time that others have written and paused is a moment. The delay is the time to the owner's next message; it is
censored where others wrote again first, or nothing came for a week: all that is known then is that it was longer.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from doppel.adapters.habits import Habits
from doppel.adapters.timing import (
    HOURS_OF_WEEK,
    LONGEST_DELAY,
    Activity,
    BubbleGap,
    DelayRegime,
    Moment,
    ReplyDelay,
    at_hand_seconds,
)
from training.archives.message import Mark
from training.dataset.files import CHAT_KINDS
from training.dataset.sessions import SessionMessage

BURST_SECONDS = 120.0
"""Messages of others that follow one another within this are answered together."""
LONGEST_GAP = 300.0
"""Seconds; a bubble after a longer one begins anew."""
MIN_ANSWERED = 100
"""Replies without which nothing is learned."""
_MAX_MOMENTS = 50_000
_LATE = 0.95
"""Share of the replies after which nobody waits for one any more."""
_MIN_OF_CONTACT = 30
_CONTACT_PRIOR = 20.0
"""Replies that a contact's own mean must outweigh."""
_ACTIVITY_PRIOR = 0.3
"""Of a mean hour: an hour in which the owner never wrote is not impossible."""
_RESIDUALS = 41
_ROUNDS = 40
_RIDGE = 1.0
_SHORTEST = 0.3
"""Seconds; nobody answers faster, but clocks of two devices differ."""

Array = NDArray[np.float64]


class DelayObservation(msgspec.Struct, frozen=True):
    """A moment and what came of it.

    Attributes:
        moment: when somebody had written.
        seconds: to the owner's next message, or for how long there was none.
        is_answered: which of the two.
    """

    moment: Moment
    seconds: float
    is_answered: bool


class TimingCollector:
    """Takes the messages of one chat after the other, each in order of time."""

    def __init__(self) -> None:
        self.observations: list[DelayObservation] = []
        self.own_times = array("d")
        self.gaps = array("d")
        """Seconds between two bubbles of the owner's, neither of them 0 nor longer than `LONGEST_GAP`."""
        self.gap_characters = array("d")
        """Of the second bubble."""

    def add_chat(self, messages: Iterable[tuple[datetime, bool, str]], *, is_group: bool, contact: str | None) -> None:
        """Adds the conversation of a chat.

        Args:
            messages: (time, whether the owner wrote it, text).
            is_group: whether it is a group.
            contact: pseudonym of the other person, in a direct chat.
        """
        burst: _Burst | None = None
        last_own: datetime | None = None
        for at, is_mine, text in messages:
            if is_mine:
                self.own_times.append(at.timestamp())
                if burst is not None:
                    self._end(burst, at, is_answered=True)
                elif last_own is not None and 0 < (gap := (at - last_own).total_seconds()) <= LONGEST_GAP:
                    self.gaps.append(gap)
                    self.gap_characters.append(len(text))
                burst, last_own = None, at
                continue
            if burst is not None and (at - burst.last).total_seconds() > BURST_SECONDS:
                self._end(burst, at, is_answered=False)
                burst = None
            if burst is None:
                burst = _Burst(last_own, is_group, contact)
            burst.add(at, text)
        if burst is not None:
            self._end(burst, burst.last + LONGEST_DELAY, is_answered=False)

    def watch(self, sessions: Iterable[list[SessionMessage]], *, contact: str | None) -> Iterator[list[SessionMessage]]:
        """Passes the sessions of a chat on, and learns from all of their messages when the last one has been taken.

        Args:
            sessions: in order of time.
            contact: pseudonym of the other person, in a direct chat.
        """
        messages: list[tuple[datetime, bool, str]] = []
        is_group = False
        for session in sessions:
            for item in session:
                if item.message.kind in CHAT_KINDS and item.message.mark != Mark.REACTION:
                    messages.append((item.message.sent_at, item.is_mine, item.message.text))
                    is_group = item.message.kind == "group"
            yield session
        if messages:
            self.add_chat(messages, is_group=is_group, contact=contact)

    def add_to(self, habits: Habits, zone: ZoneInfo) -> Habits:
        """The habits with the timing that was learned."""
        delay = learn_delay(self.observations, learn_activity(self.own_times, zone), zone)
        return msgspec.structs.replace(habits, reply_delay=delay, bubble_gap=learn_gap(self.gaps, self.gap_characters))

    def _end(self, burst: "_Burst", at: datetime, *, is_answered: bool) -> None:
        delay = min(at - burst.last, LONGEST_DELAY)
        is_answered &= delay < LONGEST_DELAY
        self.observations.append(DelayObservation(burst.moment(), max(0.0, delay.total_seconds()), is_answered))


class _Burst:
    """Messages of others that wait for an answer."""

    def __init__(self, last_own: datetime | None, is_group: bool, contact: str | None) -> None:
        self._last_own = last_own
        self._is_group = is_group
        self._contact = contact
        self._characters = 0
        self._text = ""
        self.last = datetime.min.replace(tzinfo=UTC)

    def add(self, at: datetime, text: str) -> None:
        self.last = at
        self._characters += len(text)
        self._text = text

    def moment(self) -> Moment:
        return Moment(
            at=self.last,
            is_group=self._is_group,
            since_own=None if self._last_own is None else max(0.0, (self.last - self._last_own).total_seconds()),
            characters=self._characters,
            is_question=self._text.rstrip().endswith(("?", "？")),
            contact=self._contact,
        )


def learn_activity(own_times: Sequence[float], zone: ZoneInfo) -> Activity:
    """How active the owner is in each hour of the week: counts, smoothed with the hours beside and the other days.

    Args:
        own_times: of the owner's messages, in seconds.
        zone: the owner's time zone.
    """
    counts = np.zeros((7, 24))
    for seconds in own_times:
        local = datetime.fromtimestamp(seconds, zone)
        counts[local.weekday(), local.hour] += 1
    total = counts.sum()
    if not total:
        return Activity((1.0,) * HOURS_OF_WEEK)
    week = counts.reshape(-1)
    near = (np.roll(week, 1) + 2 * week + np.roll(week, -1)) / 4
    daily = np.tile(near.reshape(7, 24).mean(axis=0), 7)
    trust = total / (total + 10 * HOURS_OF_WEEK)  # few messages say more about the day than about the week
    rates = trust * near + (1 - trust) * daily
    rates = rates / rates.mean() + _ACTIVITY_PRIOR / (1 + total / HOURS_OF_WEEK) + 0.02
    return Activity(tuple(round(float(rate), 4) for rate in rates / rates.mean()))


def learn_delay(observations: Sequence[DelayObservation], activity: Activity, zone: ZoneInfo) -> ReplyDelay | None:
    """Fits the distribution of delays; None if there are fewer than `MIN_ANSWERED` replies in any regime.

    What was never answered says nothing about delays: a moment counts as censored only if others wrote again sooner
    than most replies come. The effects are those of a censored normal regression of the logarithm, the residual's
    distribution is the Kaplan-Meier estimate, among what was answered.
    """
    regimes: dict[str, DelayRegime] = {}
    contact_residuals: dict[str, list[float]] = {}
    by_regime: dict[str, list[DelayObservation]] = {}
    for one in observations:
        by_regime.setdefault(one.moment.regime, []).append(one)
    for name, group in sorted(by_regime.items()):
        answered = [one.seconds for one in group if one.is_answered]
        if len(answered) < MIN_ANSWERED:
            continue
        limit = float(np.quantile(answered, _LATE))
        usable = [one for one in group if one.is_answered or one.seconds < limit]
        regimes[name] = _learn_regime(usable[:: -(-len(usable) // _MAX_MOMENTS)], activity, zone, contact_residuals)
    if not regimes:
        return None
    contacts = {
        contact: round(sum(residuals) / (len(residuals) + _CONTACT_PRIOR), 3)
        for contact, residuals in sorted(contact_residuals.items())
        if len(residuals) >= _MIN_OF_CONTACT
    }
    return ReplyDelay(activity=activity, regimes=regimes, contacts=contacts)


def learn_gap(gaps: Sequence[float], characters: Sequence[float]) -> BubbleGap | None:
    """Fits the gaps between bubbles; None if there are fewer than `MIN_ANSWERED`, or times are only to the minute."""
    if len(gaps) < MIN_ANSWERED or all(gap % 60 == 0 for gap in gaps):
        return None
    logarithms = np.log(np.asarray(gaps))
    features = np.stack([np.ones(len(gaps)), np.log1p(np.asarray(characters))], axis=1)
    is_known = np.ones(len(gaps), dtype=bool)
    constant, by_length = _fit(features, logarithms, is_known)
    residuals = _quantiles(logarithms - features @ [constant, by_length], is_known)
    return BubbleGap(round(float(constant), 4), round(float(by_length), 4), _rounded(residuals))


def _rounded(values: Array) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _learn_regime(
    observations: Sequence[DelayObservation],
    activity: Activity,
    zone: ZoneInfo,
    contact_residuals: dict[str, list[float]],
) -> DelayRegime:
    """Fits one regime, and adds what the effects leave to the residuals of each contact."""
    is_answered = np.array([one.is_answered for one in observations])
    logarithms = np.log(_active_seconds(observations, activity, zone))
    features = np.array([one.moment.features() for one in observations])
    effects = _fit(features, logarithms, is_answered)
    residuals = logarithms - features @ effects
    centred = residuals - residuals[is_answered].mean()
    for one, residual in zip(observations, centred, strict=True):
        if one.is_answered and one.moment.contact:
            contact_residuals.setdefault(one.moment.contact, []).append(float(residual))
    return DelayRegime(
        _rounded(effects),
        _rounded(_quantiles(residuals, is_answered)),
        int(is_answered.sum()),
    )


def _active_seconds(observations: Sequence[DelayObservation], activity: Activity, zone: ZoneInfo) -> Array:
    """(N,) the delays in seconds of activity; while the owner is at hand, every second counts."""
    delays = np.array([max(one.seconds, _SHORTEST) for one in observations])
    at_hand = np.minimum(delays, [at_hand_seconds(one.moment) for one in observations])
    starts = np.array([one.moment.at.timestamp() for one in observations]) + at_hand
    ends = starts + delays - at_hand
    first = int(starts.min() // 3600)
    hours = np.arange(first, int(ends.max() // 3600) + 2)
    rates = []
    for hour in hours[:-1]:
        local = datetime.fromtimestamp(float(hour) * 3600, zone)
        rates.append(activity.by_hour[local.weekday() * 24 + local.hour])
    total = np.concatenate([[0.0], np.cumsum(rates)]) * 3600
    at_start, at_end = (np.interp(times / 3600, hours, total) for times in (starts, ends))
    return np.asarray(np.maximum(at_hand + at_end - at_start, 1e-3), dtype=np.float64)


def _fit(features: Array, values: Array, is_known: NDArray[np.bool_]) -> Array:
    """(F,) weights of a normal regression of values that are known, or only known to be larger."""
    gram = features.T @ features + _RIDGE * np.diag([0.0] + [1.0] * (features.shape[1] - 1))
    expected, variance = values.copy(), float(values.var()) + 1e-6
    weights: Array = np.zeros(features.shape[1])
    for _ in range(_ROUNDS):
        weights = np.asarray(np.linalg.solve(gram, features.T @ expected), dtype=np.float64)
        means, deviation = features @ weights, math.sqrt(variance)
        limits = (values - means) / deviation
        # the mean of a normal distribution beyond a limit exceeds its mean by the inverse Mills ratio
        mills = np.exp(-(limits**2) / 2 - 0.5 * math.log(2 * math.pi) - log_ndtr(-limits))
        expected = np.where(is_known, values, means + deviation * mills)
        spread = np.where(is_known, (values - means) ** 2, variance * (1 + limits * mills))
        variance = max(1e-6, float(spread.mean()))
    return weights


def _quantiles(residuals: Array, is_answered: NDArray[np.bool_]) -> Array:
    """(`_RESIDUALS`,) quantiles among what was answered, of the distribution that censored data have (Kaplan-Meier)."""
    order = np.argsort(residuals, kind="stable")
    values, events = residuals[order], is_answered[order].astype(float)
    at_risk = np.arange(len(values), 0, -1)
    answered_by = 1 - np.cumprod(1 - events / at_risk)
    values, answered_by = values[events > 0], answered_by[events > 0]
    probabilities = np.linspace(0, answered_by[-1], _RESIDUALS)
    quantiles = np.interp(probabilities, np.concatenate([[0.0], answered_by]), np.concatenate([values[:1], values]))
    return np.asarray(np.maximum.accumulate(quantiles + np.arange(_RESIDUALS) * 1e-4), dtype=np.float64)

"""The measures on cases whose answer is known: the same author, another one, a parrot, one who always says the same."""

from collections import Counter

import numpy as np
import pytest

from doppel.reports.metrics import Interval, Metric, by_name, check_goal
from tests.training.fidelity.cases import casual, formal, situation
from training.fidelity.generate import EvaluationReply
from training.fidelity.measures.authorship import authorship_metrics
from training.fidelity.measures.choice import combine
from training.fidelity.measures.habits import distinct, habit_metrics, jensen_shannon, self_bleu, words
from training.fidelity.measures.memorisation import LONG_RUN, WordRuns, memorisation_metrics
from training.fidelity.measures.two_sample import cross_validated_auc, two_sample_metrics, within_fold_auc
from training.fidelity.statistics import bootstrap, difference_of_changes, jackknife, mean, ratio, relative_change
from training.fidelity.texts import EvaluationData


class TestIntervals:
    def test_a_ratio_is_of_sums_and_its_interval_holds_it(self) -> None:
        estimate = ratio([1.0, 3.0, 2.0, 2.0] * 20, [1.0, 1.0, 1.0, 1.0] * 20)
        assert estimate.value == 2.0
        assert estimate.low < 2.0 < estimate.high

    def test_more_data_narrows_it(self) -> None:
        few, many = (mean([0.0, 1.0] * count) for count in (10, 1000))
        assert many.high - many.low < few.high - few.low

    def test_groups_that_agree_within_widen_it(self) -> None:
        values = [0.0] * 50 + [1.0] * 50
        alone, grouped = mean(values), mean(values, [number // 25 for number in range(100)])
        assert grouped.high - grouped.low > alone.high - alone.low

    def test_changes(self) -> None:
        assert relative_change([1.0, 1.0], [2.0, 2.0]).value == -0.5
        assert difference_of_changes(([3.0] * 9, [4.0] * 9), ([2.0] * 9, [4.0] * 9)).value == pytest.approx(0.25)

    def test_nothing_is_not_a_number(self) -> None:
        assert np.isnan(mean([]).value)

    def test_any_statistic(self) -> None:
        values = np.arange(50.0)
        estimate = bootstrap(list(range(50)), lambda rows: float(np.median(values[rows])))
        assert estimate.low < 24.5 < estimate.high


class TestFigures:
    def test_likeness_is_the_place_between_floor_and_ceiling(self) -> None:
        one, two, three = (Interval(value, value, value) for value in (1.0, 2.0, 3.0))
        assert Metric(name="x", estimate=two, floor=one, ceiling=three).normalized == 0.5
        assert Metric(name="x", estimate=two, floor=three, ceiling=one).normalized == 0.5
        assert Metric(name="x", estimate=two).normalized is None

    def test_what_could_not_be_measured_fails(self) -> None:
        assert check_goal("x", 0.5, ">= 0.5").ok
        assert not check_goal("x", 0.5, "> 0.5").ok
        assert not check_goal("x", float("nan"), "<= 1").ok


class TestTwoSample:
    def test_the_same_author_is_the_ceiling_and_another_the_floor(self) -> None:
        figures = by_name(two_sample_metrics(casual(90, 1), formal(90), casual(90, 2), casual(90, 3)))
        found = figures["two_sample_auc"]
        assert found.floor is not None
        assert found.ceiling is not None
        assert found.estimate.value < 0.65
        assert found.ceiling.value < 0.65
        assert found.floor.value > 0.95

    def test_only_pairs_of_one_fold_are_compared(self) -> None:
        truth, folds = np.array([1, 0, 1, 0, 1, 0]), np.array([0, 0, 1, 1, -1, -1])
        assert within_fold_auc(truth, np.array([0.2, 0.1, 9.0, 8.0, 0.0, 5.0]), folds) == 1
        assert within_fold_auc(truth, np.array([0.2, 0.1, 8.0, 8.0, 0.0, 5.0]), folds) == 0.75
        assert np.isnan(within_fold_auc(truth[::2], np.zeros(3), folds[::2]))

    def test_at_equal_lengths_length_gives_nothing_away(self) -> None:
        short = [
            EvaluationReply(reply.exchange, (word,))
            for reply, word in zip(casual(90), ["ab", "ab ab"] * 45, strict=True)
        ]
        long = [
            EvaluationReply(reply.exchange, (word,))
            for reply, word in zip(casual(90), ["ab", "ab ab ab ab ab"] * 45, strict=True)
        ]
        figures = by_name(two_sample_metrics(long, long, short, short))
        assert figures["two_sample_auc_matched"].estimate.value < figures["two_sample_auc"].estimate.value

    def test_lengths_are_matched_within_each_fold(self) -> None:
        # One side writes long in three of the four conversations, the other in one: only what both have there is left.
        groups = [group for group in "abcd" for _ in range(40)]
        texts, labels = [], []
        for group in "abcd":
            for number in range(40):
                is_mine = number % 2 == 0
                is_long = number % 20 < 2 if is_mine == (group == "a") else number % 20 >= 2
                texts.append("hm " * (9 if is_long else 1))
                labels.append(int(is_mine))
        assert cross_validated_auc(texts, labels, groups).value != pytest.approx(0.5, abs=0.05)
        assert cross_validated_auc(texts, labels, groups, match_lengths=True).value == pytest.approx(0.5)


class TestWriting:
    def test_the_same_author_is_near_and_another_far(self) -> None:
        figures = by_name(habit_metrics(casual(90, 1), formal(90), casual(90, 2), casual(90, 3)))
        found = figures["habits_distance"]
        assert found.floor is not None
        assert found.normalized is not None
        assert found.estimate.value < 0.35 * found.floor.value
        assert found.normalized > 0.8
        for name in ("habit_emoji", "habit_opening_words", "habit_length"):
            one = figures[name]
            assert one.floor is not None
            assert one.estimate.value < one.floor.value

    def test_one_who_always_says_the_same_shows_it(self) -> None:
        constant = [EvaluationReply(reply.exchange, ("sounds good to me",)) for reply in casual(90)]
        figures = by_name(habit_metrics(constant, formal(90), casual(90, 2), casual(90, 3)))
        assert figures["distinct_2"].estimate.value < 0.5
        assert figures["length_spread"].estimate.value == 0
        assert figures["self_bleu"].estimate.value > 1

    def test_divergence(self) -> None:
        assert jensen_shannon(Counter("ab"), Counter("ab")) == 0
        assert jensen_shannon(Counter("a"), Counter("b")) == 1

    def test_words_of_several_scripts(self) -> None:
        assert words("Don't, 你好 OK_2!") == ["don't", "你", "好", "ok", "2"]
        assert distinct(["a b a b"]) == pytest.approx(2 / 3)
        assert self_bleu(["a b", "a b", "c d"]) == pytest.approx(2 / 3)


class TestMemorisation:
    def test_the_longest_run_is_found_and_goes_over_no_message(self) -> None:
        runs = WordRuns(["one two three four five", "six seven"])
        assert runs.longest("then two three four came") == 3
        assert runs.longest("five six seven") == 2
        assert runs.longest("nothing") == 0
        assert runs.longest("") == 0

    def test_a_parrot_is_heard(self) -> None:
        verse = "the quick brown fox jumps over the lazy dog and runs far away"
        parrot = [EvaluationReply(situation(number), (verse,)) for number in range(40)]
        figures = by_name(memorisation_metrics(parrot, casual(40), [verse]))
        assert figures["recited"].estimate.value == 1
        assert figures["verbatim_run"].estimate.value > LONG_RUN
        assert figures["recited"].ceiling is not None
        assert figures["recited"].ceiling.value == 0


def test_authorship_knows_the_author() -> None:
    from datetime import UTC, datetime

    from doppel.transcript import ME, Header, Turn
    from training.dataset.files import Session

    def session(number: int, mine: EvaluationReply, theirs: EvaluationReply) -> Session:
        return Session(
            id=str(number),
            split="train",
            chat="c",
            started_at=datetime(2020, 1, 1, tzinfo=UTC),
            header=Header(),
            turns=(Turn("Ramito", theirs.bubbles), Turn(ME, mine.bubbles)),
        )

    sessions = [session(number, *pair) for number, pair in enumerate(zip(casual(300), formal(300), strict=True))]
    held = EvaluationData(sessions[:200], sessions[200:], [])
    good = by_name(authorship_metrics(casual(90, 5), formal(90, 6), held))
    assert good["authorship"].estimate.value > 0.8
    assert good["authorship_prompted"].estimate.value < 0.2


def test_the_combination_finds_the_feature_that_tells() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 4, 3))
    features[:, 0, 1] -= 2.0  # the right one is low in the second
    groups = [str(number // 4) for number in range(200)]
    scores = combine(features, groups)
    assert (scores.argmax(1) == 0).mean() > 0.7
    assert (combine(rng.normal(size=(200, 4, 3)), groups).argmax(1) == 0).mean() < 0.45


def test_an_interval_of_variety_holds_its_value() -> None:
    written = casual(90, 1)
    found = by_name(habit_metrics(written, formal(90), casual(90, 2), casual(90, 3)))["distinct_2"].estimate
    assert found.low < found.value < found.high
    assert jackknife(["one"] * 5, lambda rows: 1.0).value == 1.0
    values = np.random.default_rng(0).normal(size=400)
    spread = jackknife(list(range(400)), lambda rows: float(values[rows].mean()))
    assert spread.high - spread.low == pytest.approx(2 * 1.96 / 400**0.5, rel=0.3)

"""Titles of metrics and goals."""

from doppel.i18n import set_language
from doppel.reports.metrics import Interval, Metric
from tests.training.fidelity.cases import casual, formal
from training.fidelity.goals import check_gate, check_goals
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.report.titles import title_of, title_of_goal


def test_every_habit_metric_has_a_title() -> None:
    metrics = habit_metrics(casual(20), formal(20), casual(20, 1), casual(20, 2))
    assert all(title_of(metric.name) != metric.name for metric in metrics)


def test_every_goal_has_a_title_in_both_languages() -> None:
    interval = Interval(0.5, 0.4, 0.6)
    names = (
        *("bits_change", "bits_change_prompted", "choice", "choice_others", "specificity", "recited"),
        *("recited_from_contacts", "parroted", "commonest_reply", "silent", "habits_distance"),
        *("habits_distance_prompted", "habits_within", "two_sample_auc_informed", "authorship"),
    )
    metrics = [Metric(name=name, estimate=interval, floor=interval, ceiling=interval) for name in names]
    goals = [*check_goals(metrics), *check_gate(metrics)]
    assert all(title_of_goal(goal.name) != goal.name for goal in goals)
    set_language("zh")
    assert all(any("\u4e00" <= character <= "\u9fff" for character in title_of_goal(goal.name)) for goal in goals)

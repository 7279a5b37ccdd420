"""Runs all measures on an adapter, in order, with a progress bar and a timing for each stage.

Everything runs offline: the judges are the base model, counting, and classifiers trained on the spot.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import torch

from doppel.engine import Sampling
from doppel.i18n import tr
from doppel.reports.metrics import Metric
from training.dataset.files import Session
from training.fidelity.adapted_model import AdaptedModel
from training.fidelity.best_of import choose_best_replies
from training.fidelity.generate import EvaluationReply, actual_replies, generate, generate_replies
from training.fidelity.measures.authorship import authorship_metrics
from training.fidelity.measures.choice import choice_metrics
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.measures.likelihood import PROMPT_TOKENS, likelihood_metrics
from training.fidelity.measures.memorisation import memorisation_metrics
from training.fidelity.measures.relevance import relevance_metrics
from training.fidelity.measures.two_sample import (
    best_of_metric,
    curve_metrics,
    informed_metric,
    two_sample_metrics,
)
from training.fidelity.served import Exchange, Serving
from training.fidelity.stages import StageProgress
from training.fidelity.texts import (
    EvaluationData,
    few_shot_prompt,
    other_person_exchanges,
    other_texts,
    owner_exchanges,
    owner_pieces,
    owner_texts,
    select_evaluation_data,
)
from training.lora.examples import sample_evenly
from training.lora.threads import choose_threads, use_threads

_THREAD_TRIAL_TOKENS = 192
_MAX_EXCHANGES_PER_SESSION = 6


class ExaminationSize(msgspec.Struct, frozen=True):
    """How much an examination reads and generates.

    Attributes:
        tokens: of the owner's unseen replies to read.
        questions: multiple-choice questions.
        replies: to generate, by the adapter and again by the base with a prompt.
        judged_replies: how many of them are judged for relevance.
        detected_replies: how many of them the stronger detector sees.
        best_of: whether to also choose the best of several replies for the judged ones.
    """

    tokens: int
    questions: int
    replies: int
    judged_replies: int = 24
    detected_replies: int = 28
    best_of: bool = False


FULL = ExaminationSize(tokens=10_500, questions=252, replies=112, judged_replies=36, detected_replies=56, best_of=True)
QUICK = ExaminationSize(tokens=2_000, questions=24, replies=28, judged_replies=20)


class ExaminationResult(msgspec.Struct, frozen=True):
    """The outcome of an examination.

    Attributes:
        metrics: in the order of the report.
        adapter: the adapter's replies.
        prompted: the base's with a prompt, to the same exchanges.
        actual: the owner's to the same exchanges.
        other: another person's, the floor of the metrics on replies; empty when the prompted base is that floor.
        seconds: by stage.
    """

    metrics: list[Metric]
    adapter: list[EvaluationReply]
    prompted: list[EvaluationReply]
    actual: list[EvaluationReply]
    other: list[EvaluationReply]
    seconds: dict[str, float]


def examine(
    adapted: AdaptedModel,
    sessions: list[Session],
    serving: Serving,
    sampling: Sampling,
    size: ExaminationSize,
    *,
    now: Callable[[], float] = time.monotonic,
) -> ExaminationResult:
    """Measures an adapter.

    Args:
        adapted: the adapter on its base.
        sessions: the data set it was trained on; its test split is what the adapter has not seen.
        serving: how the daemon would write prompts.
        sampling: the sampling settings the daemon would use.
        size: how much to read and generate.
        now: returns the time in seconds.

    Raises:
        UserError: the test split has too few replies of the owner.
    """
    data = select_evaluation_data(sessions, adapted.transcript, serving)
    with _fastest_threads(adapted, data):
        return _examine(adapted, data, sampling, size, StageProgress(now))


@contextmanager
def _fastest_threads(adapted: AdaptedModel, data: EvaluationData) -> Iterator[None]:
    """A context that computes with the number of threads that is fastest now."""
    threads_before = torch.get_num_threads()
    if adapted.model.device.type == "cpu":
        pieces = owner_pieces(data.test, adapted.transcript, _THREAD_TRIAL_TOKENS, _THREAD_TRIAL_TOKENS)
        trial = [piece for _, piece in pieces]
        choose_threads(lambda: adapted.example_losses(trial))
    try:
        yield
    finally:
        use_threads(threads_before)


def _examine(
    adapted: AdaptedModel, data: EvaluationData, sampling: Sampling, size: ExaminationSize, stages: StageProgress
) -> ExaminationResult:
    exchanges = sample_evenly(data.exchanges, size.replies)
    metrics: list[Metric] = []
    with stages("read", tr("Reading unseen messages"), tr("tokens")) as start:
        metrics += likelihood_metrics(adapted, data, size.tokens, start)
    with stages("choose", tr("Choosing replies"), tr("tokens")) as start:
        metrics += choice_metrics(adapted, data, size.questions, start)
    with stages("write", tr("Writing replies"), tr("replies")) as start:
        on_progress = start(2 * len(exchanges))
        completions = generate(adapted, exchanges, sampling, on_progress)
        with adapted.adapter_disabled():
            prompt = few_shot_prompt(data.train, adapted.transcript, PROMPT_TOKENS)
            prompted = generate_replies(adapted, exchanges, sampling, on_progress, prompt=prompt)
    adapter = [completion.reply for completion in completions]
    actual = actual_replies(exchanges)
    earlier = actual_replies(_earlier_exchanges(data, len(exchanges)))
    other = actual_replies(other_person_exchanges(data, len(exchanges)))
    judged_adapter, judged_prompted, judged_actual, judged_earlier = (
        sample_evenly(replies, size.judged_replies) for replies in (adapter, prompted, actual, earlier)
    )
    best: list[EvaluationReply] = []
    if size.best_of:
        with stages("candidates", tr("Choosing the best of several replies"), "") as start:
            best = choose_best_replies(adapted, sample_evenly(completions, size.judged_replies), sampling, start)
    with stages("compare", tr("Comparing replies"), tr("tokens")) as start:
        metrics += relevance_metrics(
            adapted, data, judged_adapter, judged_prompted, judged_actual, best=best, start=start
        )
        metrics += two_sample_metrics(adapter, prompted, actual, earlier, other)
        if best:
            metrics += curve_metrics(adapter, actual, earlier)
            metrics.append(best_of_metric(best, judged_adapter, judged_actual, judged_earlier))
        metrics += habit_metrics(adapter, prompted, actual, earlier, other)
        metrics += authorship_metrics(adapter, prompted, data)
        all_actual = actual_replies(data.exchanges)
        metrics += memorisation_metrics(adapter, all_actual, owner_texts(data.train), other_texts(data.train))
    with stages("detect", tr("Testing with a stronger detector"), tr("tokens")) as start:
        detected, real, trained = (
            sample_evenly(replies, size.detected_replies) for replies in (adapter, actual, _trained(data))
        )
        metrics.append(informed_metric(adapted, detected, real, trained, start))
    return ExaminationResult(metrics, adapter, prompted, actual, other, stages.seconds)


def _trained(data: EvaluationData) -> list[EvaluationReply]:
    """The owner's replies of the training split with the daemon's prompts."""
    return actual_replies(data.trained_exchanges)


def _earlier_exchanges(data: EvaluationData, count: int) -> list[Exchange]:
    """As many exchanges of the training split, from many conversations, as those of the test split are."""
    rng = random.Random(0)
    sessions = list(data.train)
    rng.shuffle(sessions)
    earlier: list[Exchange] = []
    for session in sessions:
        exchanges = owner_exchanges(session)
        earlier += rng.sample(exchanges, min(len(exchanges), _MAX_EXCHANGES_PER_SESSION))
        if len(earlier) >= count:
            break
    return earlier[:count]

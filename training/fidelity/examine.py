"""One whole examination of an adapter: every measure of the package, in one order, with progress and a time for each.

Everything is weight-free and offline: what judges is the base model, counting, and classifiers fitted on the spot.
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
from training.fidelity.best_of import best_of
from training.fidelity.generate import Reply, drafts, real, write
from training.fidelity.judge import Subject
from training.fidelity.measures.authorship import authorship
from training.fidelity.measures.choice import choice
from training.fidelity.measures.habits import writing
from training.fidelity.measures.likelihood import likelihood
from training.fidelity.measures.memorisation import memorisation
from training.fidelity.measures.relevance import relevance
from training.fidelity.measures.two_sample import candidates_told_apart, two_sample
from training.fidelity.stages import Stages
from training.fidelity.texts import (
    HeldOut,
    Situation,
    evenly,
    few_shot,
    held_out,
    owner_examples,
    second_speaker,
    situations,
    texts_of_owner,
)
from training.lora.threads import choose_threads, use_threads

_PROMPT_TOKENS = 256
_TRIAL_TOKENS = 192  # to time threads with


class Effort(msgspec.Struct, frozen=True):
    """How much is read and written.

    Attributes:
        tokens: of held-out text to read.
        questions: of choice.
        replies: to write, each by the adapter and by the prompted base.
        judged: of them, whose relevance is judged.
        candidates: whether those are also written as the best of several.
    """

    tokens: int
    questions: int
    replies: int
    judged: int = 24
    candidates: bool = False


FULL = Effort(tokens=3_000, questions=504, replies=168, judged=36, candidates=True)
QUICK = Effort(tokens=1_300, questions=24, replies=28, judged=20)


class Examination(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        figures: in the order of the report.
        written: the adapter's replies.
        prompted: the base's.
        actual: the owner's to the same situations.
        other: somebody else's, who is the floor of what is written; nobody's where the prompted base is it.
        seconds: by measure.
    """

    figures: list[Metric]
    written: list[Reply]
    prompted: list[Reply]
    actual: list[Reply]
    other: list[Reply]
    seconds: dict[str, float]


def examine(
    subject: Subject,
    sessions: list[Session],
    sampling: Sampling,
    effort: Effort,
    now: Callable[[], float] = time.monotonic,
) -> Examination:
    """Measures an adapter.

    Args:
        subject: the adapter on its base.
        sessions: the data set it was trained on; its test split is what it has not seen.
        sampling: how the daemon would let it speak.
        effort: how thoroughly.
        now: gives seconds.

    Raises:
        UserError: too little of the owner's is held out.
    """
    held = held_out(sessions, subject.transcript)
    with _threads(subject, held):
        return _examined(subject, held, sampling, effort, Stages(now))


@contextmanager
def _threads(subject: Subject, held: HeldOut) -> Iterator[None]:
    """Within it as many threads compute as are fastest now."""
    before = torch.get_num_threads()
    if subject.model.device.type == "cpu":
        trial = owner_examples(held.future, subject.transcript, _TRIAL_TOKENS, _TRIAL_TOKENS)
        choose_threads(lambda: subject.score(trial))
    try:
        yield
    finally:
        use_threads(before)


def _examined(subject: Subject, held: HeldOut, sampling: Sampling, effort: Effort, stages: Stages) -> Examination:
    asked = evenly(held.situations, effort.replies)
    figures: list[Metric] = []
    with stages("read", tr("Reading unseen messages"), tr("tokens")) as begin:
        figures += likelihood(subject, held, effort.tokens, begin)
    with stages("choose", tr("Choosing replies"), tr("tokens")) as begin:
        figures += choice(subject, held, effort.questions, begin)
    with stages("write", tr("Writing replies"), tr("replies")) as begin:
        advance = begin(2 * len(asked))
        written = drafts(subject, asked, sampling, advance)
        with subject.base_alone():
            prompt = few_shot(held.past, subject.transcript, _PROMPT_TOKENS)
            prompted = write(subject, asked, sampling, advance, prompt=prompt)
    replies, actual, past = [one.reply for one in written], real(asked), real(_past(held, subject, len(asked)))
    other = real(second_speaker(held, subject.transcript, len(asked)))
    judged = [evenly(side, effort.judged) for side in (replies, prompted, actual, past)]
    chosen: list[Reply] = []
    if effort.candidates:
        with stages("candidates", tr("Writing several replies to choose from"), "") as begin:
            chosen = best_of(subject, evenly(written, effort.judged), sampling, begin)
    with stages("compare", tr("Comparing replies"), tr("tokens")) as begin:
        figures += relevance(subject, judged[0], judged[1], judged[2], chosen, begin=begin)
        figures += two_sample(replies, prompted, actual, past, other)
        if chosen:
            figures.append(candidates_told_apart(chosen, judged[0], judged[2], judged[3]))
        figures += writing(replies, prompted, actual, past, other)
        figures += authorship(replies, prompted, held)
        figures += memorisation(replies, actual, texts_of_owner(held.past))
    return Examination(figures, replies, prompted, actual, other, stages.seconds)


def _past(held: HeldOut, subject: Subject, count: int) -> list[Situation]:
    """As many situations of the owner's past."""
    rng = random.Random(0)
    sessions = list(held.past)
    rng.shuffle(sessions)
    found: list[Situation] = []
    for session in sessions:
        some = situations(session, subject.transcript)
        found += rng.sample(some, min(len(some), 6))  # from many conversations, as those of the future are
        if len(found) >= count:
            break
    return found[:count]

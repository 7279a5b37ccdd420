"""One whole examination of an adapter: every measure of the package, in one order, with progress and a time for each.

Everything is weight-free and offline: what judges is the base model, counting, and classifiers fitted on the spot.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from doppel.engine import Sampling
from doppel.figures import Figure
from doppel.i18n import tr
from doppel.terminal import progress
from training.dataset import Session
from training.fidelity.authorship import authorship
from training.fidelity.choice import choice
from training.fidelity.heldout import HeldOut, Situation, evenly, few_shot, held_out, situations, texts_of_owner
from training.fidelity.likelihood import likelihood
from training.fidelity.memorisation import memorisation
from training.fidelity.relevance import relevance
from training.fidelity.replies import Reply, real, write
from training.fidelity.subject import Subject
from training.fidelity.twosample import two_sample
from training.fidelity.writing import writing

_PROMPT_TOKENS = 256


class Effort(msgspec.Struct, frozen=True):
    """How much is read and written.

    Attributes:
        tokens: of held-out text to read.
        questions: of choice.
        replies: to write, each by the adapter and by the prompted base.
    """

    tokens: int
    questions: int
    replies: int


FULL = Effort(tokens=8_000, questions=520, replies=160)
QUICK = Effort(tokens=2_000, questions=60, replies=40)


class Examination(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        figures: in the order of the report.
        written: the adapter's replies.
        prompted: the base's.
        actual: the owner's to the same situations.
        seconds: by measure.
    """

    figures: list[Figure]
    written: list[Reply]
    prompted: list[Reply]
    actual: list[Reply]
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
    stages = _Stages(now)
    asked = evenly(held.situations, effort.replies)
    figures: list[Figure] = []
    with stages(tr("Reading unseen messages")) as advance:
        figures += likelihood(subject, held, effort.tokens, advance)
    with stages(tr("Choosing replies")) as advance:
        figures += choice(subject, held, effort.questions, advance)
    with stages(tr("Writing replies"), total=2 * len(asked)) as advance:
        written = write(subject, asked, sampling, advance)
        with subject.base_alone():
            prompt = few_shot(held.past, subject.transcript, _PROMPT_TOKENS)
            prompted = write(subject, asked, sampling, advance, prompt=prompt)
    actual, past = real(asked), real(_past(held, subject, len(asked)))
    with stages(tr("Comparing replies")) as advance:
        figures += two_sample(written, prompted, actual, past)
        figures += writing(written, prompted, actual, past)
        figures += authorship(written, prompted, held)
        figures += relevance(subject, written, prompted, actual, advance)
        figures += memorisation(written, actual, texts_of_owner(held.past))
    return Examination(figures, written, prompted, actual, stages.seconds)


def _past(held: HeldOut, subject: Subject, count: int) -> list[Situation]:
    """As many situations of the owner's past."""
    rng = random.Random(0)
    sessions = list(held.past)
    rng.shuffle(sessions)
    found: list[Situation] = []
    for session in sessions:
        some = situations(session, subject.transcript)
        found += rng.sample(some, min(len(some), 12))  # from many conversations, as those of the future are
        if len(found) >= count:
            break
    return found[:count]


class _Stages:
    """Shows how far each measure is, and keeps how long it took."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        began = self._now()
        with progress() as bar:
            task = bar.add_task(title, total=total, rate="")
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                bar.update(task, completed=done)

            yield advance
            bar.update(task, completed=done, total=done or 1)
        self.seconds[title] = round(self._now() - began, 2)

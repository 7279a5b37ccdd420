"""Questions for the blind quiz: the owner's held-out replies, and as many and as long ones that the adapter wrote."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from doppel.adapters.versions import read_manifest, version_folder
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import load_tokenizer, prepare_base
from doppel.persona import read_persona
from doppel.reports.quiz import QuestionSet, QuizQuestion, QuizSession
from doppel.terminal import print_status, progress
from doppel.transcript import open_transcript
from training.dataset.files import read_sessions
from training.fidelity.generate import Reply, real, write
from training.fidelity.judge import open_subject
from training.fidelity.stored import digest, kept_replies, read_kept
from training.fidelity.texts import Situation, evenly, held_out

PAGE_SESSIONS = 3
"""Sessions for which replies are written where no examination has kept any; what is kept may give more."""

_MAX_SESSIONS = 10


class QuizMaterial(msgspec.Struct, frozen=True):
    """What questions about a version are made of.

    Attributes:
        folder: of the version.
        situations: that the owner answered and the adapter never saw.
        generated: what the adapter answered in some of them.
        seed: that no earlier quiz of the version had.
    """

    folder: Path
    situations: Sequence[Situation]
    generated: Sequence[Reply]
    seed: int

    def session(self, rounds: int, seed: int | None) -> QuizSession:
        """As many questions, chosen by the seed; None takes the material's own."""
        return make_session(self.generated, self.situations, rounds, self.seed if seed is None else seed)

    def question_set(self, rounds: int) -> QuestionSet:
        """Sessions for the web page that share no situation, at least one."""
        sessions: list[QuizSession] = []
        generated, situations = self.generated, self.situations
        while len(sessions) < _MAX_SESSIONS:
            seed = self.seed + len(sessions)
            session, used = _draw(generated, situations, rounds, seed)
            if sessions and len(session.questions) < rounds:
                break
            sessions.append(session)
            generated = [one for one in generated if digest(one.situation) not in used]
            situations = [one for one in situations if digest(one) not in used]
        return QuestionSet(self.folder.name, tuple(sessions))


def prepare_quiz(config: Config, version: str | None, count: int) -> QuizMaterial:
    """What `count` questions about a version can be made of; replies are written where too few were kept.

    Args:
        config: says which persona.
        version: its number; None is the one in use.
        count: questions wanted; fewer come where too little is held out.

    Raises:
        UserError: no such version, or too little is held out. AdapterRefused: it is damaged, or of another base.
    """
    folder = version_folder(config.adapters_dir, None if version is None else version.zfill(4))
    manifest, kept = read_manifest(folder), read_kept(folder)
    transcript = open_transcript(load_tokenizer(prepare_base(config.model, print_status)), manifest.transcript)
    situations = held_out(read_sessions(config.data_dir), transcript).situations
    generated = kept_replies(kept, situations)
    wanted = math.ceil(count / 2)
    if len(generated) < min(wanted, len(situations) // 2):
        generated = _generate(config, folder, evenly(situations, 2 * wanted))
    if not generated:
        raise UserError(tr("version {version} wrote no replies to ask about", version=folder.name))
    return QuizMaterial(folder, situations, generated, 1 + max((one.seed for one in kept.quizzes), default=-1))


def make_session(generated: Sequence[Reply], situations: Sequence[Situation], rounds: int, seed: int) -> QuizSession:
    """As many real as generated replies (one more of either when `rounds` is odd), in an order that follows from the
    seed; each real one is the nearest in length to a generated one, and answers something else.
    """
    return _draw(generated, situations, rounds, seed)[0]


def _draw(
    generated: Sequence[Reply], situations: Sequence[Situation], rounds: int, seed: int
) -> tuple[QuizSession, set[str]]:
    """A session, and the digests of the situations in it."""
    rng = random.Random(f"quiz {seed}")
    pairs = min(math.ceil(rounds / 2), len(generated), len(situations) // 2)
    chosen = rng.sample(generated, pairs)
    taken = {digest(one.situation) for one in chosen}
    pool = real([one for one in situations if digest(one) not in taken])
    rng.shuffle(pool)  # of several that are as near, any
    questions = []
    for one in chosen:
        if pool:
            other = pool.pop(min(range(len(pool)), key=lambda place: _distance(one, pool[place])))
            taken.add(digest(other.situation))
            questions += [_question(one, is_real=False), _question(other, is_real=True)]
    rng.shuffle(questions)
    return QuizSession(seed, tuple(questions[:rounds])), taken


def _question(reply: Reply, *, is_real: bool) -> QuizQuestion:
    return QuizQuestion(reply.situation.context, reply.bubbles, is_real)


def _generate(config: Config, folder: Path, asked: Sequence[Situation]) -> list[Reply]:
    subject = open_subject(config, folder)
    with progress() as bar:
        task = bar.add_task(tr("Writing replies"), total=len(asked), rate="")
        sampling = read_persona(folder).sampling(config.reply, subject.transcript)
        written = write(subject, asked, sampling, lambda count: bar.advance(task, count))
    return [one for one in written if one.bubbles]


def _distance(one: Reply, other: Reply) -> float:
    lengths = abs(math.log1p(len(one.text)) - math.log1p(len(other.text)))
    return lengths + 0.5 * abs(len(one.bubbles) - len(other.bubbles))

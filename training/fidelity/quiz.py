"""Makes the questions of the blind quiz: the owner's held-out replies, and as many generated ones of similar length."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
from transformers import AutoConfig

from doppel.adapters.versions import read_manifest, version_folder
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import load_tokenizer, prepare_base
from doppel.persona import read_persona
from doppel.reports.quiz import QuestionSet, QuizQuestion, QuizSession, read_results
from doppel.terminal import print_status, progress
from doppel.transcript import open_transcript
from training.dataset.files import read_sessions
from training.fidelity.adapted_model import load_adapted_model
from training.fidelity.generate import EvaluationReply, actual_replies, generate_replies
from training.fidelity.served import Exchange, serving_of
from training.fidelity.stored import exchange_digest, find_stored_replies, read_stored_data
from training.fidelity.texts import select_evaluation_data
from training.lora.examples import sample_evenly

PAGE_SESSIONS = 3
"""Sessions on the web page for which replies are generated if none are stored; stored ones may allow more."""

_MAX_PAGE_SESSIONS = 10
_SHOWN_TURNS = 6  # of what was written before
_BUBBLE_WEIGHT = 0.5  # of one bubble more or less, in terms of log length


class QuizMaterial(msgspec.Struct, frozen=True):
    """What questions about a version are made from.

    Attributes:
        folder: of the version.
        exchanges: the owner's held-out replies.
        generated: the adapter's replies to some of them.
        seed: one that no earlier quiz of the version used.
    """

    folder: Path
    exchanges: Sequence[Exchange]
    generated: Sequence[EvaluationReply]
    seed: int

    def session(self, rounds: int, seed: int | None) -> QuizSession:
        """At most `rounds` questions, drawn with the seed; None for the material's own seed."""
        return make_session(self.generated, self.exchanges, rounds, self.seed if seed is None else seed)

    def question_set(self, rounds: int) -> QuestionSet:
        """Sessions for the web page that share no exchange, at least one."""
        sessions: list[QuizSession] = []
        generated, exchanges = self.generated, self.exchanges
        while len(sessions) < _MAX_PAGE_SESSIONS:
            seed = self.seed + len(sessions)
            session, used = _draw_session(generated, exchanges, rounds, seed)
            if sessions and len(session.questions) < rounds:
                break
            sessions.append(session)
            generated = [reply for reply in generated if exchange_digest(reply.exchange) not in used]
            exchanges = [exchange for exchange in exchanges if exchange_digest(exchange) not in used]
        return QuestionSet(self.folder.name, tuple(sessions))


def prepare_quiz(config: Config, version: str | None, count: int) -> QuizMaterial:
    """The material for `count` questions about a version. Generates replies if too few are stored.

    Args:
        config: says which persona.
        version: its number; None for the one in use.
        count: of questions wanted; there may be fewer if too little is held out.

    Raises:
        UserError: no such version, or too little is held out.
        AdapterRefused: the version is damaged or belongs to another base.
    """
    folder = version_folder(config.adapters_dir, None if version is None else version.zfill(4))
    manifest, stored = read_manifest(folder), read_stored_data(folder)
    base = prepare_base(config.model, print_status)
    transcript = open_transcript(load_tokenizer(base), manifest.transcript)
    serving = serving_of(config, manifest, AutoConfig.from_pretrained(base).get_text_config().max_position_embeddings)
    exchanges = select_evaluation_data(list(read_sessions(config.data_dir)), transcript, serving).exchanges
    generated = find_stored_replies(stored, exchanges)
    needed = math.ceil(count / 2)
    if len(generated) < min(needed, len(exchanges) // 2):
        generated = _generate(config, folder, sample_evenly(exchanges, 2 * needed))
    if not generated:
        raise UserError(tr("version {version} wrote no replies to ask about", version=folder.name))
    seed = 1 + max((result.seed for result in read_results(folder)), default=-1)
    return QuizMaterial(folder, exchanges, generated, seed)


def make_session(
    generated: Sequence[EvaluationReply], exchanges: Sequence[Exchange], rounds: int, seed: int
) -> QuizSession:
    """As many real as generated replies (one more of either if `rounds` is odd), in an order that the seed determines.

    Each real reply is the nearest in length to a generated one, and answers another exchange.
    """
    return _draw_session(generated, exchanges, rounds, seed)[0]


def _draw_session(
    generated: Sequence[EvaluationReply], exchanges: Sequence[Exchange], rounds: int, seed: int
) -> tuple[QuizSession, set[str]]:
    """A session, and the digests of the exchanges in it."""
    rng = random.Random(f"quiz {seed}")
    pairs = min(math.ceil(rounds / 2), len(generated), len(exchanges) // 2)
    chosen = rng.sample(generated, pairs)
    used = {exchange_digest(reply.exchange) for reply in chosen}
    pool = actual_replies([exchange for exchange in exchanges if exchange_digest(exchange) not in used])
    rng.shuffle(pool)  # among equally near ones, any may be chosen
    questions = []
    for reply in chosen:
        if pool:
            nearest = min(range(len(pool)), key=lambda index: _length_distance(reply, pool[index]))
            real = pool.pop(nearest)
            used.add(exchange_digest(real.exchange))
            questions += [_question(reply, is_real=False), _question(real, is_real=True)]
    rng.shuffle(questions)
    return QuizSession(seed, tuple(questions[:rounds])), used


def _question(reply: EvaluationReply, *, is_real: bool) -> QuizQuestion:
    return QuizQuestion(reply.exchange.context[-_SHOWN_TURNS:], reply.bubbles, is_real)


def _generate(config: Config, folder: Path, exchanges: Sequence[Exchange]) -> list[EvaluationReply]:
    adapted = load_adapted_model(config.model, folder)
    with progress() as bar:
        task = bar.add_task(tr("Writing replies"), total=len(exchanges), rate="")
        sampling = read_persona(folder).sampling(config.reply, adapted.transcript)
        replies = generate_replies(adapted, exchanges, sampling, lambda count: bar.advance(task, count))
    return [reply for reply in replies if reply.bubbles]


def _length_distance(first: EvaluationReply, second: EvaluationReply) -> float:
    characters = abs(math.log1p(len(first.text)) - math.log1p(len(second.text)))
    return characters + _BUBBLE_WEIGHT * abs(len(first.bubbles) - len(second.bubbles))

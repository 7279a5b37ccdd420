"""A blind quiz: a person sees what was said and one reply, and says whether the owner or the adapter wrote it.

Half of the replies are real and as long as the generated ones. The right answers show only at the end, so that
nobody learns from them on the way. Knows no keyboard: it is given the answers.
"""

import math
import random
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from doppel.adapter import Manifest, published, read_manifest
from doppel.amend import amend, replace_file
from doppel.base import load_tokenizer, prepare_base
from doppel.config import Config
from doppel.errors import UserError
from doppel.figures import as_json, share_of
from doppel.i18n import tr
from doppel.persona import read_persona
from doppel.report import FILE as REPORT
from doppel.report import Section, table, with_sections
from doppel.terminal import printable, progress, say
from doppel.transcript import open_transcript
from training.dataset import read_sessions
from training.fidelity.heldout import Situation, evenly, held_out
from training.fidelity.kept import FILE, Quiz, digest, kept_replies, quiz_figures, read_kept
from training.fidelity.replies import Reply, real, write
from training.fidelity.subject import open_subject

_REAL = {"r", "real", "真"}
_GENERATED = {"g", "generated", "假"}
_STOP = {"q", "quit", "退出"}
Answer = Callable[[], str | None]
"""Gives the next line of the person; None when there is none."""


class Question(msgspec.Struct, frozen=True):
    """A reply to judge."""

    reply: Reply
    is_real: bool


def prepare(config: Config, version: str | None, rounds: int, seed: int | None) -> tuple[Path, list[Question], int]:
    """The version's folder, questions about it, and their seed.

    Args:
        config: says which persona.
        version: its number; None is the one in use.
        rounds: questions wanted; fewer come where too little is held out.
        seed: of the choice; None takes one that no earlier quiz of the version had.

    Raises:
        UserError: no such version, or too little is held out. AdapterRefused: it is damaged, or of another base.
    """
    folder = published(config.adapters_dir, None if version is None else version.zfill(4))
    manifest, kept = read_manifest(folder), read_kept(folder)
    transcript = open_transcript(load_tokenizer(prepare_base(config.model, say)), manifest.transcript)
    situations = held_out(read_sessions(config.data_dir), transcript).situations
    generated = kept_replies(kept, situations)
    wanted = math.ceil(rounds / 2)
    if len(generated) < min(wanted, len(situations) // 2):
        generated = _generate(config, folder, evenly(situations, 2 * wanted))
    if seed is None:
        seed = 1 + max((one.seed for one in kept.quizzes), default=-1)
    questions = make_questions(generated, situations, rounds, seed)
    if not questions:
        raise UserError(tr("version {version} says nothing that could be asked about", version=folder.name))
    return folder, questions, seed


def make_questions(
    generated: Sequence[Reply], situations: Sequence[Situation], rounds: int, seed: int
) -> list[Question]:
    """As many real as generated replies (one more of either when `rounds` is odd), in an order that follows from the
    seed; each real one is the nearest in length to a generated one, and answers something else.
    """
    rng = random.Random(f"quiz {seed}")
    pairs = min(math.ceil(rounds / 2), len(generated), len(situations) // 2)
    chosen = rng.sample(generated, pairs)
    taken = {digest(one.situation) for one in chosen}
    pool = real([one for one in situations if digest(one) not in taken])
    rng.shuffle(pool)  # of several that are as near, any
    questions = []
    for one in chosen:
        if pool:
            nearest = min(range(len(pool)), key=lambda place: _distance(one, pool[place]))
            questions += [Question(one, False), Question(pool.pop(nearest), True)]
    rng.shuffle(questions)
    return questions[:rounds]


def take(questions: Sequence[Question], owner: str, name: str, seed: int, answer: Answer) -> Quiz:
    """Shows one question after the other until all are answered, or the person stops.

    Args:
        questions: to ask.
        owner: what the owner is called before their own lines.
        name: of the person.
        seed: of the questions.
        answer: gives what the person typed.
    """
    asked = right = generated = taken_for_real = 0
    for number, question in enumerate(questions, 1):
        say(tr("\n— {number} of {count} —", number=number, count=len(questions)))
        _show(question, owner)
        verdict = _verdict(answer)
        if verdict is None:
            break
        asked += 1
        right += verdict == question.is_real
        generated += not question.is_real
        taken_for_real += verdict and not question.is_real
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Quiz(
        name=name,
        at=now,
        seed=seed,
        asked=asked,
        right=right,
        generated=generated,
        taken_for_real=taken_for_real,
    )


def record(folder: Path, quiz: Quiz) -> None:
    """Adds a quiz to the version's fidelity.json, its manifest and report.html."""
    amend(folder, lambda staging, manifest: _recorded(staging, manifest, quiz))


def quiz_section(quizzes: Sequence[Quiz]) -> Section:
    """The quizzes as a part of report.html."""
    titles = (tr("who"), tr("when"), tr("judged"), tr("right (half: they guess)"), tr("generated ones taken for real"))
    rows = [
        (one.name, one.at[:10], str(one.asked), share_of(one.share), f"{one.taken_for_real} / {one.generated}")
        for one in quizzes
    ]
    return Section(tr("Can people tell it from you?"), table(titles, rows))


def _recorded(staging: Path, manifest: Manifest, quiz: Quiz) -> Manifest:
    path = staging / FILE
    content: dict[str, Any] = {"version": manifest.version}
    if path.is_file():
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    quizzes = [*read_kept(staging).quizzes, quiz]
    figures = quiz_figures(quizzes)
    content = {
        **content,
        "figures": {**content.get("figures", {}), **as_json(figures)},
        "quizzes": msgspec.to_builtins(quizzes),
    }
    replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=2))
    page = staging / REPORT
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    title = tr("{persona}: the blind quiz", persona=manifest.persona)
    replace_file(page, with_sections(before, title, [quiz_section(quizzes)], mark="quiz").encode())
    known = {**manifest.fidelity.get("figures", {}), **{one.name: round(one.value.value, 4) for one in figures}}
    return msgspec.structs.replace(manifest, fidelity={**manifest.fidelity, "figures": known})


def _generate(config: Config, folder: Path, asked: Sequence[Situation]) -> list[Reply]:
    subject = open_subject(config, folder)
    with progress() as bar:
        task = bar.add_task(tr("Writing replies"), total=len(asked), rate="")
        sampling = read_persona(folder).sampling(config.reply)
        written = write(subject, asked, sampling, lambda count: bar.advance(task, count))
    return [one for one in written if one.bubbles]


def _distance(one: Reply, other: Reply) -> float:
    lengths = abs(math.log1p(len(one.text)) - math.log1p(len(other.text)))
    return lengths + 0.5 * abs(len(one.bubbles) - len(other.bubbles))


def _show(question: Question, owner: str) -> None:
    for turn in question.reply.situation.context:
        for bubble in turn.bubbles:
            say(printable(f"{owner if turn.is_mine else turn.speaker}: {bubble}"))
    for bubble in question.reply.bubbles:
        say(printable(f"  → {bubble}"))


def _verdict(answer: Answer) -> bool | None:
    """Whether the person calls it real; None when they stop."""
    while True:
        line = answer()
        said = None if line is None else unicodedata.normalize("NFKC", line).strip().casefold()
        if said is None or said in _STOP:
            return None
        if said in _REAL or said in _GENERATED:
            return said in _REAL
        say(tr("r is for real, g for generated, q to stop."))

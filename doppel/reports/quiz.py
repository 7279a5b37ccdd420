"""The blind quiz: what is asked, what was answered, and the score in the adapter's report.

A person sees what was said and one reply, and says whether the owner or the adapter wrote it. `doppel quiz` makes the
questions; the terminal asks them at once, the web page those that lie in the data set's folder. They hold the owner's
messages: they never lie in an adapter, and a new data set replaces them. Knows no keyboard and no browser.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from doppel.adapters.update import amend, replace_file
from doppel.adapters.versions import Manifest
from doppel.i18n import tr
from doppel.reports.figures import FILE, Estimate, Figure, as_json, share_of, wilson
from doppel.reports.html import FILE as REPORT
from doppel.reports.html import Section, table, with_sections
from doppel.system.write_errors import writing
from doppel.transcript import Turn

OFFER = "quiz.json"
"""The questions of the web page, in data/<persona>/."""

NAME_LENGTH = 40
"""Characters of a name that are kept."""


class Question(msgspec.Struct, frozen=True):
    """A reply to judge: what was said before, oldest first, the reply's bubbles, and whether the owner wrote it."""

    context: tuple[Turn, ...]
    bubbles: tuple[str, ...]
    is_real: bool

    @property
    def text(self) -> str:
        """The reply, a bubble a line."""
        return "\n".join(self.bubbles)


class Sitting(msgspec.Struct, frozen=True):
    """What one person is asked in one go: questions in their order, and the seed they were chosen by."""

    seed: int
    questions: tuple[Question, ...]


class Offer(msgspec.Struct, frozen=True):
    """The questions of the web page.

    Attributes:
        version: of the adapter that wrote the generated replies, and gets the results.
        sittings: at least one; no two ask the same.
    """

    version: str
    sittings: tuple[Sitting, ...]


class Quiz(msgspec.Struct, frozen=True, kw_only=True):
    """One person's answers in a quiz.

    Attributes:
        name: of the person, as they gave it.
        at: when, ISO 8601.
        seed: of the choice of replies.
        asked: replies that were judged.
        right: judgements that were right.
        generated: judged replies that were generated.
        taken_for_real: those of them that were called real.
    """

    name: str
    at: str
    seed: int
    asked: int
    right: int
    generated: int
    taken_for_real: int

    @property
    def share(self) -> Estimate:
        """Share of right judgements; half of them is guessing."""
        return wilson(self.right, self.asked)


class _Record(msgspec.Struct, frozen=True):
    """The part of fidelity.json that is of quizzes."""

    quizzes: list[Quiz] = []


def score(sitting: Sitting, verdicts: Sequence[bool], name: str) -> Quiz:
    """What somebody's verdicts (True: real) on the first questions of a sitting come to."""
    judged = list(zip(sitting.questions, verdicts, strict=False))
    return Quiz(
        name=name,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=sitting.seed,
        asked=len(judged),
        right=sum(verdict == question.is_real for question, verdict in judged),
        generated=sum(not question.is_real for question, _ in judged),
        taken_for_real=sum(verdict and not question.is_real for question, verdict in judged),
    )


def summary(quiz: Quiz) -> str:
    """A score of at least one answer, in words."""
    return tr(
        "{name}: {right} of {asked} right, {share}. Half would be guessing. "
        "{taken} of {generated} generated replies were taken for real.",
        name=quiz.name,
        right=quiz.right,
        asked=quiz.asked,
        share=share_of(quiz.share),
        taken=quiz.taken_for_real,
        generated=quiz.generated,
    )


def write_offer(data_dir: Path, offer: Offer) -> Path:
    """Gives the web page its questions; those it had are gone. Raises DoppelError when they cannot be written."""
    path = data_dir / OFFER
    fresh = path.with_suffix(".tmp")
    with writing(path):
        fresh.write_bytes(msgspec.json.encode(offer))
        fresh.replace(path)
    return path


def remove_offer(data_dir: Path) -> None:
    """Takes the questions out of the web page, if it has any. Raises DoppelError when they cannot be removed."""
    with writing(data_dir / OFFER):
        (data_dir / OFFER).unlink(missing_ok=True)


def read_offer(data_dir: Path) -> Offer | None:
    """The web page's questions; None where there are none, or they cannot be read."""
    try:
        offer = msgspec.json.decode((data_dir / OFFER).read_bytes(), type=Offer)
    except (OSError, msgspec.MsgspecError):
        return None
    return offer if any(one.questions for one in offer.sittings) else None


def next_sitting(offer: Offer, quizzes: Sequence[Quiz]) -> Sitting:
    """The first of the sittings that were taken least often."""
    taken = Counter(one.seed for one in quizzes)
    return min(offer.sittings, key=lambda one: taken[one.seed])


def read_quizzes(folder: Path) -> list[Quiz]:
    """The quizzes about a version, oldest first; none where its record is missing or of an older form."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((folder / FILE).read_bytes(), type=_Record).quizzes
    return []


def record(folder: Path, quiz: Quiz) -> None:
    """Adds a quiz to the version's fidelity.json, its manifest and report.html.

    Raises:
        AdapterRefused: the version is damaged, or gone. DoppelError: its folder cannot be written.
    """
    amend(folder, lambda staging, manifest: _recorded(staging, manifest, quiz))


def together(quizzes: Sequence[Quiz]) -> Quiz:
    """All answers as those of one person."""
    return Quiz(
        name=tr("all together"),
        at="",
        seed=0,
        asked=sum(one.asked for one in quizzes),
        right=sum(one.right for one in quizzes),
        generated=sum(one.generated for one in quizzes),
        taken_for_real=sum(one.taken_for_real for one in quizzes),
    )


def quiz_figures(quizzes: Sequence[Quiz]) -> list[Figure]:
    """How often people told real from generated, all quizzes together; nothing before the first."""
    share = together(quizzes).share
    if share.value != share.value:
        return []
    floor, ceiling = Estimate(1.0, 1.0, 1.0), Estimate(0.5, 0.5, 0.5)
    return [Figure(name="quiz", value=share, floor=floor, ceiling=ceiling, lower_is_better=True, unit="share")]


def _recorded(staging: Path, manifest: Manifest, quiz: Quiz) -> Manifest:
    path = staging / FILE
    content: dict[str, Any] = {"version": manifest.version}
    if path.is_file():
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    quizzes = [*read_quizzes(staging), quiz]
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
    replace_file(page, with_sections(before, title, [_section(quizzes)], mark="quiz").encode())
    known = {**manifest.fidelity.get("figures", {}), **{one.name: round(one.value.value, 4) for one in figures}}
    return msgspec.structs.replace(manifest, fidelity={**manifest.fidelity, "figures": known})


def _section(quizzes: Sequence[Quiz]) -> Section:
    """The quizzes as a part of report.html."""
    titles = (tr("who"), tr("when"), tr("judged"), tr("right (half: they guess)"), tr("generated ones taken for real"))
    listed = [*quizzes, together(quizzes)] if len(quizzes) > 1 else quizzes
    rows = [
        (one.name, one.at[:10], str(one.asked), share_of(one.share), f"{one.taken_for_real} / {one.generated}")
        for one in listed
    ]
    return Section(tr("Can people tell it from you?"), table(titles, rows))

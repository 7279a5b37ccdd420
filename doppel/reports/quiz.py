"""The blind quiz: questions, answers, and the results beside the adapter.

A person reads a conversation and one reply, and says whether the owner or the adapter wrote it. The terminal asks right
away; the web page reads its questions from data/<persona>/quiz.json. Questions contain the owner's messages, so they
are never stored in an adapter, and a new data set replaces them.

Results are in adapters/<persona>/quiz/<version>.json, as visitors of the page must not change an adapter; earlier
versions of doppel stored them in the adapter itself, and those are read, too. The owner's commands put them into its
report.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import Manifest
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.reports.html import REPORT_PAGE, Section, table, with_sections
from doppel.reports.metrics import FIDELITY_FILE, Interval, Metric, format_share, metrics_to_json, wilson_interval
from doppel.system.atomic_file import write_atomically
from doppel.system.file_lock import holding_lock
from doppel.system.private_folder import make_private_folder
from doppel.system.write_errors import translate_write_errors
from doppel.transcript import Turn

QUESTIONS_FILE = "quiz.json"
"""The web page's questions, in data/<persona>/."""

MAX_NAME_LENGTH = 40
"""Characters of a participant's name that are stored."""


class QuizQuestion(msgspec.Struct, frozen=True):
    """A reply to judge.

    Attributes:
        context: the turns before the reply, oldest first.
        bubbles: the reply.
        is_real: whether the owner wrote it.
    """

    context: tuple[Turn, ...]
    bubbles: tuple[str, ...]
    is_real: bool

    @property
    def text(self) -> str:
        """The reply, one bubble per line."""
        return "\n".join(self.bubbles)


class QuizSession(msgspec.Struct, frozen=True):
    """The questions one person answers in a row, in order, and the seed they were drawn with."""

    seed: int
    questions: tuple[QuizQuestion, ...]


class QuestionSet(msgspec.Struct, frozen=True):
    """The web page's questions.

    Attributes:
        version: of the adapter that wrote the generated replies and receives the results.
        sessions: at least one; no question appears twice.
    """

    version: str
    sessions: tuple[QuizSession, ...] = msgspec.field(name="sittings")


class QuizResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one person did in the quiz.

    Attributes:
        name: of the person, as they entered it.
        finished_at: ISO 8601.
        seed: of the quiz session.
        judged: number of replies judged.
        correct: how many of them were judged correctly.
        generated: how many of the judged replies were generated.
        taken_for_real: how many of the generated replies were judged real.
    """

    name: str
    finished_at: str = msgspec.field(name="at")
    seed: int
    judged: int = msgspec.field(name="asked")
    correct: int = msgspec.field(name="right")
    generated: int
    taken_for_real: int

    @property
    def share(self) -> Interval:
        """Share of correct answers; 0.5 is guessing."""
        return wilson_interval(self.correct, self.judged)


MAX_RESULTS = 2000
"""Results of one version; further ones are refused, since anybody who opens the page can make them."""

_RESULTS_FOLDER = "quiz"


class _StoredResults(msgspec.Struct, frozen=True):
    """The quiz results in a version's file of them, or in its fidelity.json."""

    quizzes: list[QuizResult] = []


def score_answers(session: QuizSession, answers: Sequence[bool], name: str) -> QuizResult:
    """The result of a person who answered the first questions of a session; an answer is True for "real"."""
    judged = list(zip(session.questions, answers, strict=False))
    return QuizResult(
        name=name,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=session.seed,
        judged=len(judged),
        correct=sum(answer == question.is_real for question, answer in judged),
        generated=sum(not question.is_real for question, _ in judged),
        taken_for_real=sum(answer and not question.is_real for question, answer in judged),
    )


def summarize(result: QuizResult) -> str:
    """A result with at least one answer, in words."""
    values = {"name": result.name, "correct": result.correct, "judged": result.judged}
    share = format_share(result.share)
    if not result.generated:  # a quiz that was stopped early
        return tr("{name}: {correct} of {judged} right, {share}; guessing gives 50 %.", share=share, **values)
    return tr(
        "{name}: {correct} of {judged} right, {share}; guessing gives 50 %. "
        "{taken} of {generated} generated replies were taken for real.",
        share=share,
        taken=result.taken_for_real,
        generated=result.generated,
        **values,
    )


def write_questions(data_dir: Path, questions: QuestionSet) -> Path:
    """Replaces the web page's questions. Raises DoppelError when the file cannot be written."""
    path = data_dir / QUESTIONS_FILE
    temporary = path.with_suffix(".tmp")
    with translate_write_errors(path):
        temporary.write_bytes(msgspec.json.encode(questions))
        temporary.replace(path)
    return path


def remove_questions(data_dir: Path) -> None:
    """Removes the web page's questions, if there are any. Raises DoppelError when the file cannot be removed."""
    with translate_write_errors(data_dir / QUESTIONS_FILE):
        (data_dir / QUESTIONS_FILE).unlink(missing_ok=True)


def read_questions(data_dir: Path) -> QuestionSet | None:
    """The web page's questions; None when there are none or the file cannot be read."""
    try:
        questions = msgspec.json.decode((data_dir / QUESTIONS_FILE).read_bytes(), type=QuestionSet)
    except (OSError, msgspec.MsgspecError):
        return None
    return questions if any(session.questions for session in questions.sessions) else None


def next_session(questions: QuestionSet, results: Sequence[QuizResult]) -> QuizSession:
    """The session that was taken least often so far; the first of several."""
    times_taken = Counter(result.seed for result in results)
    return min(questions.sessions, key=lambda session: times_taken[session.seed])


def read_results(folder: Path) -> list[QuizResult]:
    """The quiz results of a version, oldest first; a file that is missing, damaged or has none counts as empty.

    `folder` is that of the version. Results that earlier versions of doppel stored in it come first.
    """
    results: list[QuizResult] = []
    for path in (folder / FIDELITY_FILE, _results_path(folder)):
        with suppress(OSError, msgspec.MsgspecError):
            results += _read_file(path)
    return results


def save_result(folder: Path, result: QuizResult) -> None:
    """Adds a result to those of a version, which is not changed itself.

    Raises:
        DoppelError: there are too many, the file of results is damaged, or it cannot be written.
    """
    path = _results_path(folder)
    with translate_write_errors(path):
        make_private_folder(path.parent)
        with holding_lock(path.with_suffix(".lock")):
            try:
                results = _read_file(path)
            except FileNotFoundError:
                results = []
            except msgspec.MsgspecError as error:
                raise DoppelError(tr("{path}: cannot be read: {error}", path=path, error=error)) from None
            if len(results) >= MAX_RESULTS:
                raise DoppelError(tr("this version has {count} quiz results, and takes no more", count=MAX_RESULTS))
            content = _StoredResults([*results, result])
            write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=2))


def rename_results(folder: Path, name_of: Callable[[QuizResult], str]) -> None:
    """Gives the results beside a version other names. Raises DoppelError when their file cannot be written."""
    path = _results_path(folder)
    if not path.is_file():
        return
    damaged = suppress(msgspec.MsgspecError)  # counts as empty, as everywhere
    with translate_write_errors(path), holding_lock(path.with_suffix(".lock")), damaged:
        renamed = [msgspec.structs.replace(result, name=name_of(result)) for result in _read_file(path)]
        write_atomically(path, msgspec.json.format(msgspec.json.encode(_StoredResults(renamed)), indent=2))


def add_results_to_report(folder: Path) -> None:
    """Puts the results so far into the version's report.html and scores.

    Raises:
        AdapterRefused: the version is damaged or gone. DoppelError: its folder cannot be written.
    """
    results = read_results(folder)
    update_version(folder, lambda staging, manifest: _with_results(staging, manifest, results))


def combine_results(results: Sequence[QuizResult]) -> QuizResult:
    """The sum of several results."""
    return QuizResult(
        name=tr("total"),
        finished_at="",
        seed=0,
        judged=sum(result.judged for result in results),
        correct=sum(result.correct for result in results),
        generated=sum(result.generated for result in results),
        taken_for_real=sum(result.taken_for_real for result in results),
    )


def quiz_metrics(results: Sequence[QuizResult]) -> list[Metric]:
    """The share of correct answers over all results; empty before the first answer."""
    share = combine_results(results).share
    if share.value != share.value:
        return []
    return [
        Metric(
            name="quiz",
            estimate=share,
            floor=Interval.exact(1.0),
            ceiling=Interval.exact(0.5),
            lower_is_better=True,
            unit="share",
        )
    ]


def _results_path(folder: Path) -> Path:
    """The file of a version's results."""
    return folder.parent / _RESULTS_FOLDER / f"{folder.name}.json"


def _read_file(path: Path) -> list[QuizResult]:
    return msgspec.json.decode(path.read_bytes(), type=_StoredResults).quizzes


def _with_results(staging: Path, manifest: Manifest, results: Sequence[QuizResult]) -> Manifest:
    path = staging / FIDELITY_FILE
    content: dict[str, Any] = {"version": manifest.version}
    if path.is_file():
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    metrics = quiz_metrics(results)
    content = {**content, "figures": {**content.get("figures", {}), **metrics_to_json(metrics)}}
    replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=2))
    page = staging / REPORT_PAGE
    old_page = page.read_text(encoding="utf-8") if page.is_file() else ""
    title = tr("{persona}: blind quiz", persona=manifest.persona)
    replace_file(page, with_sections(old_page, title, [_section(results)], mark="quiz").encode())
    values = {metric.name: round(metric.estimate.value, 4) for metric in metrics}
    summary = {**manifest.fidelity.get("figures", {}), **values}
    return msgspec.structs.replace(manifest, fidelity={**manifest.fidelity, "figures": summary})


def _section(results: Sequence[QuizResult]) -> Section:
    """The results as a section of report.html."""
    titles = (tr("name"), tr("date"), tr("judged"), tr("correct (guessing: 50 %)"), tr("generated, taken for real"))
    listed = [*results, combine_results(results)] if len(results) > 1 else results
    rows = [
        (
            result.name,
            result.finished_at[:10],
            str(result.judged),
            format_share(result.share),
            f"{result.taken_for_real} / {result.generated}" if result.generated else "–",
        )
        for result in listed
    ]
    return Section(tr("Can people tell it from you?"), table(titles, rows))

"""`doppel quiz`: people who know the owner tell real replies from generated ones, in the terminal or on the web."""

import unicodedata
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer

from doppel.adapters.versions import read_manifest
from doppel.cli.app import Run
from doppel.i18n import tr
from doppel.plugins import page_url
from doppel.reports.quiz import (
    MAX_NAME_LENGTH,
    QuizQuestion,
    QuizSession,
    add_results_to_report,
    remove_questions,
    save_result,
    score_answers,
    summarize,
    write_questions,
)
from doppel.terminal import is_interactive, prepare_input, print_status, printable, read_line

_REAL = {"r", "real", "真"}
_GENERATED = {"g", "generated", "假"}
_QUIT = {"q", "quit", "退出"}
ReadAnswer = Callable[[], str | None]
"""Returns the next line that the person types; None at the end of input."""


def quiz(
    run: Run,
    version: Annotated[str | None, typer.Argument(help="Version number; default: the one in use.")] = None,
    *,
    rounds: Annotated[int, typer.Option(min=2, max=500, help="Number of replies to judge.")] = 20,
    name: Annotated[str, typer.Option(help="Who answers; shown in the report.")] = "friend",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Which replies to show; default: different ones each time.")
    ] = None,
    page: Annotated[
        bool | None,
        typer.Option(help="Put the questions on the web page instead; --no-page removes them."),
    ] = None,
) -> dict[str, Any]:
    """Let someone who knows you tell your replies from generated ones."""
    if page is not None:
        return _publish_questions(run, version, rounds) if page else _remove_questions(run)
    from training.fidelity.quiz import prepare_quiz  # imports torch, which is slow

    material = prepare_quiz(run.config, version, rounds)
    session = material.session(rounds, seed)
    persona = read_manifest(material.folder).persona
    if len(session.questions) < rounds:
        print_status(
            tr("Only {count} questions: too few messages are held out for more.", count=len(session.questions))
        )
    print_status(tr("Did {persona} write the reply marked →, or was it generated?", persona=persona))
    prompts = is_interactive() and not run.as_json
    prompt = tr("r real, g generated, q quit: ")
    prepare_input(prompts)
    if not prompts:
        print_status(prompt)
    answers = ask(session, persona, lambda: read_line(prompt if prompts else ""))
    result = score_answers(session, answers, name[:MAX_NAME_LENGTH])
    if result.judged:
        save_result(material.folder, result)
        add_results_to_report(material.folder)
        print_status("\n" + summarize(result))
    else:
        print_status(tr("No answers, so no result is saved."))
    share = msgspec.structs.asdict(result.share.rounded()) if result.judged else None
    return {"version": material.folder.name, **msgspec.to_builtins(result), "share": share}


def ask(session: QuizSession, owner: str, read_answer: ReadAnswer) -> list[bool]:
    """Asks the questions one by one, until all are answered or the person quits. Returns which were called real.

    Args:
        session: the questions.
        owner: the name shown before the owner's messages.
        read_answer: returns what the person typed.
    """
    answers: list[bool] = []
    for number, question in enumerate(session.questions, 1):
        print_status(tr("\n— {number} of {count} —", number=number, count=len(session.questions)))
        _show(question, owner)
        answer = _parse_answer(read_answer)
        if answer is None:
            break
        answers.append(answer)
    return answers


def _publish_questions(run: Run, version: str | None, rounds: int) -> dict[str, Any]:
    from training.fidelity.quiz import PAGE_SESSIONS, prepare_quiz

    config = run.config
    questions = prepare_quiz(config, version, PAGE_SESSIONS * rounds).question_set(rounds)
    path = write_questions(config.data_dir, questions)
    count = sum(len(session.questions) for session in questions.sessions)
    print_status(
        tr(
            "{count} questions about version {version} in {sessions} sessions are on the web page: "
            "{url}/quiz/ while `doppel run` is running.",
            count=count,
            version=questions.version,
            sessions=len(questions.sessions),
            url=page_url(config.platforms) or "",
        )
    )
    print_status(
        tr(
            "Anyone who opens it can read messages of yours and of your contacts; "
            "`doppel quiz --no-page` removes the questions."
        )
    )
    return {
        "version": questions.version,
        "page": str(path),
        "sittings": len(questions.sessions),
        "questions": count,
    }


def _remove_questions(run: Run) -> dict[str, Any]:
    remove_questions(run.config.data_dir)
    print_status(tr("The quiz is no longer on the web page."))
    return {"page": None}


def _show(question: QuizQuestion, owner: str) -> None:
    for turn in question.context:
        for bubble in turn.bubbles:
            print_status(printable(f"{owner if turn.is_mine else turn.speaker}: {bubble}"))
    for bubble in question.bubbles:
        print_status(printable(f"  → {bubble}"))


def _parse_answer(read_answer: ReadAnswer) -> bool | None:
    """Asks until the answer is valid: True for real, False for generated, None to quit."""
    while True:
        line = read_answer()
        answer = None if line is None else unicodedata.normalize("NFKC", line).strip().casefold()
        if answer is None or answer in _QUIT:
            return None
        if answer in _REAL or answer in _GENERATED:
            return answer in _REAL
        print_status(tr("Type r for real, g for generated, or q to quit."))

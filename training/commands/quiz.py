"""`doppel quiz`: somebody who knows the owner tells real replies from generated ones, or cannot.

Asks in the terminal, or gives the web page what to ask.
"""

import unicodedata
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer

from doppel.adapters.versions import read_manifest
from doppel.cli.app import Run
from doppel.i18n import tr
from doppel.reports.quiz import NAME_LENGTH, Question, Sitting, record, remove_offer, score, summary, write_offer
from doppel.terminal import is_interactive, prepare_input, print_status, printable, read_line

_REAL = {"r", "real", "真"}
_GENERATED = {"g", "generated", "假"}
_STOP = {"q", "quit", "退出"}
Answer = Callable[[], str | None]
"""Gives the next line of the person; None when there is none."""


def quiz(
    run: Run,
    version: Annotated[str | None, typer.Argument(help="A version; nothing: the one in use.")] = None,
    *,
    rounds: Annotated[int, typer.Option(min=2, max=500, help="How many replies to judge.")] = 20,
    name: Annotated[str, typer.Option(help="Who answers; stands in the report.")] = "friend",
    seed: Annotated[int | None, typer.Option(min=0, help="Which replies; nothing: others than last time.")] = None,
    page: Annotated[
        bool | None,
        typer.Option(help="Ask in the web page instead, whoever opens it; --no-page: no more."),
    ] = None,
) -> dict[str, Any]:
    """Let somebody who knows you tell your replies from generated ones."""
    if page is not None:
        return _offer(run, version, rounds) if page else _withdraw(run)
    from training.fidelity.quiz import gather  # torch, behind it, takes seconds to import

    material = gather(run.config, version, rounds)
    sitting = material.sitting(rounds, seed)
    persona = read_manifest(material.folder).persona
    if len(sitting.questions) < rounds:
        print_status(tr("There are only {count} replies to ask about.", count=len(sitting.questions)))
    print_status(tr("Did {persona} write the reply after the arrow, or was it generated?", persona=persona))
    prompt = is_interactive() and not run.as_json
    asking = tr("r real, g generated, q stop: ")
    prepare_input(prompt)
    if not prompt:
        print_status(asking)
    verdicts = ask(sitting, persona, lambda: read_line(asking if prompt else ""))
    result = score(sitting, verdicts, name[:NAME_LENGTH])
    if result.asked:
        record(material.folder, result)
        print_status("\n" + summary(result))
    else:
        print_status(tr("Nothing was judged, so nothing is noted."))
    share = msgspec.structs.asdict(result.share.rounded()) if result.asked else None
    return {"version": material.folder.name, **msgspec.structs.asdict(result), "share": share}


def ask(sitting: Sitting, owner: str, answer: Answer) -> list[bool]:
    """Shows one question after the other until all are answered, or the person stops; which were called real.

    Args:
        sitting: what to ask.
        owner: what the owner is called before their own lines.
        answer: gives what the person typed.
    """
    verdicts: list[bool] = []
    for number, question in enumerate(sitting.questions, 1):
        print_status(tr("\n— {number} of {count} —", number=number, count=len(sitting.questions)))
        _show(question, owner)
        verdict = _verdict(answer)
        if verdict is None:
            break
        verdicts.append(verdict)
    return verdicts


def _offer(run: Run, version: str | None, rounds: int) -> dict[str, Any]:
    from training.fidelity.quiz import WRITTEN_SITTINGS, gather

    config = run.config
    offer = gather(config, version, WRITTEN_SITTINGS * rounds).offer(rounds)
    path = write_offer(config.data_dir, offer)
    count = sum(len(one.questions) for one in offer.sittings)
    print_status(
        tr(
            "The web page asks {count} questions about version {version}, in {sittings} sittings: "
            "http://{host}:{port}/quiz/ while `doppel run` runs.",
            count=count,
            version=offer.version,
            sittings=len(offer.sittings),
            host=config.web.host,
            port=config.web.port,
        )
    )
    print_status(tr("Whoever opens it reads messages of yours and of others; `doppel quiz --no-page` ends that."))
    return {"version": offer.version, "page": str(path), "sittings": len(offer.sittings), "questions": count}


def _withdraw(run: Run) -> dict[str, Any]:
    remove_offer(run.config.data_dir)
    print_status(tr("The web page asks nothing now."))
    return {"page": None}


def _show(question: Question, owner: str) -> None:
    for turn in question.context:
        for bubble in turn.bubbles:
            print_status(printable(f"{owner if turn.is_mine else turn.speaker}: {bubble}"))
    for bubble in question.bubbles:
        print_status(printable(f"  → {bubble}"))


def _verdict(answer: Answer) -> bool | None:
    """Whether the person calls it real; None when they stop."""
    while True:
        line = answer()
        said = None if line is None else unicodedata.normalize("NFKC", line).strip().casefold()
        if said is None or said in _STOP:
            return None
        if said in _REAL or said in _GENERATED:
            return said in _REAL
        print_status(tr("r is for real, g for generated, q to stop."))

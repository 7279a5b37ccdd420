"""`doppel quiz`: somebody who knows the owner tells real replies from generated ones, or cannot."""

from typing import Annotated, Any

import msgspec
import typer

from doppel.cli import Run
from doppel.i18n import tr
from doppel.terminal import is_interactive, prepare_input, read_line, say


def quiz(
    run: Run,
    version: Annotated[str | None, typer.Argument(help="A version; nothing: the one in use.")] = None,
    *,
    rounds: Annotated[int, typer.Option(min=2, max=500, help="How many replies to judge.")] = 20,
    name: Annotated[str, typer.Option(help="Who answers; stands in the report.")] = "friend",
    seed: Annotated[int | None, typer.Option(min=0, help="Which replies; nothing: others than last time.")] = None,
) -> dict[str, Any]:
    """Let somebody who knows you tell your replies from generated ones."""
    from doppel.adapter import read_manifest  # torch, behind the next, takes seconds to import
    from doppel.figures import share_of
    from training.fidelity.quiz import prepare, record, take

    folder, questions, seed = prepare(run.config, version, rounds, seed)
    manifest = read_manifest(folder)
    if len(questions) < rounds:
        say(tr("There are only {count} replies to ask about.", count=len(questions)))
    say(tr("Did {persona} write the reply after the arrow, or was it generated?", persona=manifest.persona))
    prompt = is_interactive() and not run.as_json
    asking = tr("r real, g generated, q stop: ")
    prepare_input(prompt)
    if not prompt:
        say(asking)
    result = take(questions, manifest.persona, name, seed, lambda: read_line(asking if prompt else ""))
    if result.asked:
        record(folder, result)
        say(
            tr(
                "\n{name}: {right} of {asked} right, {share}. Half would be guessing. "
                "{taken} of {generated} generated replies were taken for real.",
                name=name,
                right=result.right,
                asked=result.asked,
                share=share_of(result.share),
                taken=result.taken_for_real,
                generated=result.generated,
            )
        )
    else:
        say(tr("Nothing was judged, so nothing is noted."))
    share = msgspec.structs.asdict(result.share.rounded()) if result.asked else None
    return {"version": folder.name, **msgspec.structs.asdict(result), "share": share}

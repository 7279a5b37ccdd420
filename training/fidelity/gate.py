"""The gate: a newly trained version is examined first, and comes into use only if it passes."""

from typing import Any

import msgspec

from doppel.adapters.versions import use_version
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import print_status
from training.fidelity.evaluate import evaluate_version
from training.fidelity.report.titles import title_of_goal


def examine_and_use(config: Config, version: str, *, force: bool) -> dict[str, Any]:
    """Examines a version that is published but not in use, and puts it in use if it passes.

    Args:
        config: the configuration.
        version: the new version.
        force: whether to put it in use even if it fails.

    Returns:
        What `doppel train --json` adds: the results of the gate, and whether the version is in use.
    """
    try:
        report = evaluate_version(config, version, quick=True)
    except UserError as error:  # a small archive holds out too little; the version is not to blame
        print_status(tr("Not examined: {error}", error=error))
        use_version(config.adapters_dir, version)
        return {"gate": [], "in_use": True}
    failed = [result for result in report.gate if not result.ok]
    for result in failed:
        print_status(
            tr(
                "Version {version} fails: {name} is {value}, must be {goal}.",
                version=version,
                name=title_of_goal(result.name),
                value=result.value,
                goal=result.goal,
            )
        )
    in_use = force or not failed
    if in_use:
        use_version(config.adapters_dir, version)
    else:
        print_status(tr("It is not in use; `doppel adapters use {version}` puts it in use anyway.", version=version))
    return {"gate": [msgspec.structs.asdict(result) for result in report.gate], "in_use": in_use}

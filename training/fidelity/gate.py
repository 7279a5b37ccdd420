"""Whether a newly trained version comes into use: it is examined first, and one that fails stays published, unused."""

from typing import Any

import msgspec

from doppel.adapters.versions import use_version
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import print_status
from training.fidelity.evaluate import evaluate_version
from training.fidelity.report.titles import title_of_check


def admit(config: Config, version: str, *, force: bool) -> dict[str, Any]:
    """Examines a version that is published but not in use, and puts it in use if it passes.

    Args:
        config: the configuration.
        version: the new one.
        force: put it in use whatever comes out.

    Returns:
        What `doppel train --json` adds: the gate's checks, and whether the version is in use.
    """
    try:
        outcome = evaluate_version(config, version, quick=True)
    except UserError as error:  # a small archive has too little to examine on; that is no fault of the version
        print_status(tr("Not examined: {error}", error=error))
        use_version(config.adapters_dir, version)
        return {"gate": [], "in_use": True}
    failed = [check for check in outcome.gate if not check.ok]
    for check in failed:
        print_status(
            tr(
                "Version {version} fails: {name} is {value}, asked is {goal}.",
                version=version,
                name=title_of_check(check.name),
                value=check.value,
                goal=check.goal,
            )
        )
    in_use = force or not failed
    if in_use:
        use_version(config.adapters_dir, version)
    else:
        print_status(tr("It is not put in use; `doppel adapters use {version}` does so all the same.", version=version))
    return {"gate": [msgspec.structs.asdict(check) for check in outcome.gate], "in_use": in_use}

"""`doppel forget`: removes one person from everything that doppel holds."""

from typing import Annotated, Any

import typer

from doppel.cli.app import Run
from doppel.personal_data import find_person, installed_stores
from doppel.terminal import print_status


def forget(
    run: Run,
    *,
    name: Annotated[
        str, typer.Argument(help="Id, name or pseudonym of the person, as in contacts.json, or platform:id.")
    ],
) -> dict[str, Any]:
    """Remove one person from the data set and from the bot's conversations, permanently."""
    stores = installed_stores(run.config)
    person = find_person(run.config, stores.values(), name)
    details = {}
    for store_name, store in stores.items():
        erased = store.erase(person)
        for line in erased.lines:
            print_status(line)
        details[store_name] = {"records": erased.records, **erased.details}
    return {"accounts": sorted(map(str, person.accounts)), "erased": details}

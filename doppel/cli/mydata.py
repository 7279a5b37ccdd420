"""`doppel mydata`: writes everything that doppel holds of one person as JSON."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from doppel.cli.app import Run
from doppel.i18n import tr
from doppel.personal_data import find_person, installed_stores
from doppel.system.private_file import write_private
from doppel.terminal import print_status


def mydata(
    run: Run,
    *,
    name: Annotated[
        str, typer.Argument(help="Id, name or pseudonym of the person, as in contacts.json, or platform:id.")
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file, readable for you alone, not to stdout.")
    ] = None,
) -> dict[str, Any]:
    """Export everything that is held of one person as JSON: data set, bot conversations, quiz results."""
    stores = installed_stores(run.config)
    person = find_person(run.config, stores.values(), name)
    records = {store_name: store.export(person) for store_name, store in stores.items()}
    content = {
        "name": name,
        "accounts": sorted(map(str, person.accounts)),
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **records,
    }
    text = msgspec.json.format(msgspec.json.encode(content), indent=2)
    count = sum(map(len, records.values()))
    if output is not None:
        write_private(output.expanduser(), text + b"\n")
        print_status(tr("{name}: {count} records in {path}", name=name, count=f"{count:,}", path=output))
        return {"path": str(output), "records": count}
    if not run.as_json:
        typer.echo(text.decode())
    return content

"""The data set as a store of personal data: contacts, their messages, and the list of whom to leave out."""

from collections.abc import Iterable
from typing import ClassVar

import msgspec

from doppel.config import Config
from doppel.i18n import tr
from doppel.personal_data import Account, Erased, KnownAccount, Person, Record
from doppel.reports.html import REPORT_PAGE
from training.dataset.forget import export_accounts, forget_accounts
from training.dataset.parent_fetcher import fetched_posts
from training.dataset.report.build_report import read_report
from training.dataset.report.page import length_settings, write_report_page
from training.lora.settings import planned_length
from training.people.contacts import read_contacts
from training.run.folders import run_folder, tuning_folder


class DataSet:
    """The persona's data set, and what lies beside it; also one that is not there."""

    holds_names: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self._config = config

    def accounts(self) -> Iterable[KnownAccount]:
        """The data set's contacts, and the authors of fetched posts. Raises UserError if the contacts are damaged."""
        authors = {author for author, _ in fetched_posts(self._config.data_dir)}
        contacts = [
            KnownAccount(
                account=Account(contact.platform, account),
                name=contact.name if account == contact.account else "",
                person=contact.pseudonym if contact.is_linked or contact.other_accounts else None,
            )
            for contact in read_contacts(self._config.data_dir)
            for account in (contact.account, *contact.other_accounts)
        ]
        known = {contact.account for contact in contacts}
        return [*contacts, *(KnownAccount(account=author) for author in sorted(authors - known))]

    def erase(self, person: Person) -> Erased:
        """Removes the person from the data set and from every later build; adapters and trainings are only named."""
        config = self._config
        result = forget_accounts(config.data_dir, person.name, person.accounts)
        lines = []
        if result.sessions:
            self._write_page()
            lines += [
                tr(
                    "{name}: removed {messages} messages from {sessions} sessions",
                    name=person.name,
                    messages=f"{result.messages:,}",
                    sessions=f"{result.sessions:,}",
                ),
                tr("Report with charts: {path}", path=config.data_dir / REPORT_PAGE),
            ]
        lines.append(tr("Later builds leave them out, too. They are listed in {path}, as a hash.", path=result.path))
        if result.messages:
            lines += self._learned_from()
        return Erased(records=result.messages, lines=tuple(lines), details=msgspec.to_builtins(result))

    def export(self, person: Person) -> list[Record]:
        """Entries in the list of contacts, turns, and fetched posts."""
        return export_accounts(self._config.data_dir, person.accounts)

    def _learned_from(self) -> list[str]:
        """What was made from the data set and still contains what the person wrote."""
        config = self._config
        lines = []
        if config.adapters_dir.is_dir():
            lines.append(
                tr(
                    "Existing adapters were trained with their messages. Run `doppel train`, then delete the old "
                    "versions in {path}",
                    path=config.adapters_dir,
                )
            )
        folders = (run_folder(config.data_dir), tuning_folder(config.data_dir))
        if unfinished := [path for path in folders if path.is_dir()]:
            lines.append(
                tr(
                    "Unfinished training contains their messages, too: delete {paths}",
                    paths=", ".join(map(str, unfinished)),
                )
            )
        return lines

    def _write_page(self) -> None:
        config = self._config
        length = planned_length(config.training, config.model.device)
        settings = length_settings(config.model, length.value, length.reason)
        write_report_page(config.data_dir, config.persona.name, config.zone, read_report(config.data_dir), settings)

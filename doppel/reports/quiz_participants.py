"""Quiz results as a store of personal data: they hold the name that a participant entered."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import Manifest, list_versions
from doppel.config import Config
from doppel.i18n import tr
from doppel.personal_data import Erased, KnownAccount, Person, Record, normalized_name
from doppel.reports.metrics import FIDELITY_FILE
from doppel.reports.quiz import QuizResult, add_results_to_report, read_results, rename_results


class QuizParticipants:
    """The results of all versions. Erasing takes the name away; the score stays, as it then is nobody's."""

    holds_names: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self._folder = config.adapters_dir

    def accounts(self) -> Iterable[KnownAccount]:
        """None: a participant has a name, but no account."""
        return ()

    def erase(self, person: Person) -> Erased:
        """Removes the person's name from results and reports."""
        count = 0
        for folder in self._versions():
            theirs = [result for result in read_results(folder) if _is_by(result, person)]
            if not theirs:
                continue
            rename_results(folder, lambda result: "" if _is_by(result, person) else result.name)
            update_version(folder, lambda staging, manifest: _without_name(staging, manifest, person))
            add_results_to_report(folder)
            count += len(theirs)
        if not count:
            return Erased(records=0)
        line = tr("{name}: removed the name from {count} quiz results", name=person.name, count=f"{count:,}")
        return Erased(records=count, lines=(line,))

    def export(self, person: Person) -> list[Record]:
        """The person's results, with the version that they judged."""
        return [
            {"version": folder.name, **msgspec.to_builtins(result)}
            for folder in self._versions()
            for result in read_results(folder)
            if _is_by(result, person)
        ]

    def _versions(self) -> list[Path]:
        return [self._folder / version for version in list_versions(self._folder)]


def _is_by(result: QuizResult, person: Person) -> bool:
    return normalized_name(result.name) in person.names


def _without_name(staging: Path, manifest: Manifest, person: Person) -> Manifest:
    """Earlier versions of doppel stored the results in the adapter itself."""
    path = staging / FIDELITY_FILE
    if path.is_file():
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        for result in content.get("quizzes", []):
            if normalized_name(str(result.get("name", ""))) in person.names:
                result["name"] = ""
        replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=2))
    return manifest

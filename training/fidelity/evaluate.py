"""`doppel evaluate`: examines published adapters and writes the outcome into them: fidelity.json and report.html."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import Manifest, read_manifest, version_folder
from doppel.config import Config
from doppel.i18n import tr
from doppel.persona import read_persona
from doppel.reports.html import FILE as REPORT
from doppel.reports.html import with_sections
from doppel.reports.metrics import FIDELITY_FILE
from doppel.reports.quiz import quiz_metrics
from doppel.terminal import print_status
from training.dataset.files import dataset_digest, read_sessions
from training.fidelity.examine import FULL, QUICK, examine
from training.fidelity.goals import gate, goals
from training.fidelity.judge import open_subject
from training.fidelity.outcome import Fidelity
from training.fidelity.report.page import STYLE, fidelity_sections
from training.fidelity.stored import Kept, read_kept, to_keep


def evaluate_version(config: Config, version: str | None, *, quick: bool) -> Fidelity:
    """Examines a published version, writes the outcome into it and returns it.

    Args:
        config: says which persona, and how it would speak.
        version: its number; None is the one in use.
        quick: less is read and written, so that the intervals are wide.

    Raises:
        UserError: no such version, or too little is held out. AdapterRefused: it is damaged, or of another base.
    """
    folder = version_folder(config.adapters_dir, None if version is None else version.zfill(4))
    manifest = read_manifest(folder)
    if manifest.dataset.get("digest") != dataset_digest(config.data_dir):
        print_status(
            tr(
                "Version {version} was trained on another data set; it may have seen some of this one.",
                version=folder.name,
            )
        )
    sessions = list(read_sessions(config.data_dir))
    subject = open_subject(config, folder)
    sampling = read_persona(folder).sampling(config.reply, subject.transcript)
    examination = examine(subject, sessions, sampling, QUICK if quick else FULL)
    figures = [*examination.figures, *quiz_metrics(read_kept(folder).quizzes)]
    examination = msgspec.structs.replace(examination, figures=figures)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    outcome = Fidelity(folder.name, folder, quick, examination, goals(figures), gate(figures), now)
    update_version(folder, lambda staging, before: _written(staging, before, outcome))
    print_status(tr("Report in {path}", path=folder / REPORT))
    return outcome


def _written(staging: Path, manifest: Manifest, outcome: Fidelity) -> Manifest:
    kept = Kept(to_keep(outcome.examination.written), read_kept(staging).quizzes)
    content = {**outcome.result(), **msgspec.to_builtins(kept)}
    replace_file(staging / FIDELITY_FILE, msgspec.json.format(msgspec.json.encode(content), indent=2))
    title = tr("{persona}: how much it is like you", persona=manifest.persona)
    page = staging / REPORT
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    sections = fidelity_sections(outcome.examination, outcome.checks)
    replace_file(page, with_sections(before, title, sections, STYLE).encode())
    summary = {
        figure.name: round(figure.estimate.value, 4)
        for figure in outcome.examination.figures
        if figure.estimate.value == figure.estimate.value
    }
    return msgspec.structs.replace(manifest, fidelity={**manifest.fidelity, "figures": summary})

"""Examines a published version and writes the fidelity report into it: fidelity.json, report.html and the manifest."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import Manifest, read_manifest, version_folder
from doppel.config import Config
from doppel.i18n import tr
from doppel.persona import read_persona
from doppel.reports.html import REPORT_PAGE, with_sections
from doppel.reports.metrics import FIDELITY_FILE
from doppel.reports.quiz import add_results_to_report, quiz_metrics, read_results
from doppel.terminal import print_status
from training.dataset.files import dataset_digest, read_sessions
from training.fidelity.adapted_model import load_adapted_model
from training.fidelity.examine import FULL, QUICK, examine
from training.fidelity.goals import check_gate, check_goals
from training.fidelity.report.page import STYLE, fidelity_sections
from training.fidelity.served import serving_of
from training.fidelity.stored import FidelityReport, StoredData, read_stored_data, replies_by_digest


def evaluate_version(config: Config, version: str | None, *, quick: bool) -> FidelityReport:
    """Examines a published version, writes the report into it and returns it.

    Args:
        config: says which persona, and how it would speak.
        version: its number; None for the one in use.
        quick: whether to read and generate less, which makes the intervals wide.

    Raises:
        UserError: no such version, or too few held-out replies.
        AdapterRefused: the version is damaged or belongs to another base.
    """
    folder = version_folder(config.adapters_dir, None if version is None else version.zfill(4))
    manifest = read_manifest(folder)
    if manifest.dataset.get("digest") != dataset_digest(config.data_dir):
        print_status(
            tr(
                "Version {version} was trained on another data set and may have seen the test messages of this one.",
                version=folder.name,
            )
        )
    sessions = list(read_sessions(config.data_dir))
    adapted = load_adapted_model(config.model, folder)
    sampling = read_persona(folder).sampling(config.reply, adapted.transcript)
    serving = serving_of(config, adapted.manifest, adapted.context_length)
    result = examine(adapted, sessions, serving, sampling, QUICK if quick else FULL)
    quiz_results = read_results(folder)
    metrics = [*result.metrics, *quiz_metrics(quiz_results)]
    report = FidelityReport(
        version=folder.name,
        folder=folder,
        is_quick=quick,
        examination=msgspec.structs.replace(result, metrics=metrics),
        goals=check_goals(metrics),
        gate=check_gate(metrics),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    update_version(folder, lambda staging, manifest: _write_report(staging, manifest, report))
    if quiz_results:
        add_results_to_report(folder)
    print_status(tr("Report: {path}", path=folder / REPORT_PAGE))
    return report


def _write_report(staging: Path, manifest: Manifest, report: FidelityReport) -> Manifest:
    stored = StoredData(replies_by_digest(report.examination.adapter), read_stored_data(staging).quizzes)
    content = {**report.to_json(), **msgspec.to_builtins(stored)}
    replace_file(staging / FIDELITY_FILE, msgspec.json.format(msgspec.json.encode(content), indent=2))
    title = tr("{persona}: how much it writes like you", persona=manifest.persona)
    page = staging / REPORT_PAGE
    old_page = page.read_text(encoding="utf-8") if page.is_file() else ""
    sections = fidelity_sections(report.examination, report.goals)
    replace_file(page, with_sections(old_page, title, sections, STYLE).encode())
    summary = {
        metric.name: round(metric.estimate.value, 4)
        for metric in report.examination.metrics
        if metric.estimate.value == metric.estimate.value
    }
    return msgspec.structs.replace(manifest, fidelity={**manifest.fidelity, "figures": summary})

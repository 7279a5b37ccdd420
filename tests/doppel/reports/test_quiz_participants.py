"""Quiz results name people: the name is exported, and taken out of the results and the report."""

import json
from pathlib import Path

import msgspec
import pytest

from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import Manifest, read_manifest
from doppel.config import Config, parse_config
from doppel.personal_data import Person
from doppel.reports.html import REPORT_PAGE
from doppel.reports.metrics import FIDELITY_FILE
from doppel.reports.quiz import QuizResult, add_results_to_report, read_results, save_result
from doppel.reports.quiz_participants import QuizParticipants
from tests.conftest import PublishAdapter

ANA = QuizResult(
    name="@Ana Maria", finished_at="2026-03-02T12:00:00+00:00", seed=0, judged=10, correct=9, generated=5,
    taken_for_real=1,
)  # fmt: skip
TOM = msgspec.structs.replace(ANA, name="Tom", seed=1)
PERSON = Person(name="ana maria", accounts=frozenset(), names=frozenset({"ana maria"}))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({}, tmp_path / "config.yaml")


@pytest.fixture
def folder(config: Config, publish_tiny_adapter: PublishAdapter) -> Path:
    return publish_tiny_adapter(config.adapters_dir)


def with_old_results(staging: Path, manifest: Manifest) -> Manifest:
    """As earlier versions of doppel stored them: in the adapter itself."""
    content = {"version": manifest.version, "quizzes": [msgspec.to_builtins(ANA)]}
    replace_file(staging / FIDELITY_FILE, json.dumps(content).encode())
    return manifest


def test_the_name_goes_and_the_score_stays(config: Config, folder: Path) -> None:
    update_version(folder, with_old_results)
    save_result(folder, ANA)
    save_result(folder, TOM)
    add_results_to_report(folder)
    assert "Ana Maria" in (folder / REPORT_PAGE).read_text(encoding="utf-8")
    assert [record["name"] for record in QuizParticipants(config).export(PERSON)] == ["@Ana Maria"] * 2
    assert QuizParticipants(config).erase(PERSON).records == 2
    assert [result.name for result in read_results(folder)] == ["", "", "Tom"]
    assert [result.correct for result in read_results(folder)] == [9, 9, 9]
    read_manifest(folder)
    for path in config.adapters_dir.rglob("*"):
        assert not path.is_file() or b"Ana" not in path.read_bytes()
    assert "Tom" in (folder / REPORT_PAGE).read_text(encoding="utf-8")


def test_nothing_is_written_for_somebody_who_took_no_quiz(config: Config, folder: Path) -> None:
    save_result(folder, TOM)
    before = (folder / "manifest.json").read_bytes()
    assert QuizParticipants(config).erase(PERSON).records == 0
    assert QuizParticipants(config).export(PERSON) == []
    assert (folder / "manifest.json").read_bytes() == before


def test_without_any_adapter(config: Config) -> None:
    assert QuizParticipants(config).erase(PERSON).records == 0

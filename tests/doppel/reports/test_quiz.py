"""The blind quiz: its score, the web page's questions, and its place in the version's record."""

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from doppel.adapters.update import replace_file, update_version
from doppel.adapters.versions import AdapterRefused, Manifest, list_versions, read_manifest
from doppel.errors import DoppelError
from doppel.i18n import set_language
from doppel.reports.html import REPORT_PAGE, page
from doppel.reports.metrics import FIDELITY_FILE, wilson_interval
from doppel.reports.quiz import (
    QUESTIONS_FILE,
    QuestionSet,
    QuizQuestion,
    QuizResult,
    QuizSession,
    add_results_to_report,
    combine_results,
    next_session,
    quiz_metrics,
    read_questions,
    read_results,
    remove_questions,
    save_result,
    score_answers,
    summarize,
    write_questions,
)
from doppel.transcript import ME, Turn
from tests.conftest import PublishAdapter

JO = QuizResult(
    name="jo", finished_at="2026-03-02T12:00:00+00:00", seed=0, judged=10, correct=9, generated=5, taken_for_real=1
)
KIM = msgspec.structs.replace(JO, name="<b>kim</b>", seed=1, correct=1, taken_for_real=5)


def session(seed: int) -> QuizSession:
    """Four questions, the first and the last of them real."""
    context = (Turn("Ramito", ("lunch?", "or \u2028 later")), Turn(ME, ("yes",)), Turn("Ramito", ("when",)))
    return QuizSession(seed, tuple(QuizQuestion(context, (f"at {place}", "ok"), place in (0, 3)) for place in range(4)))


OFFERED = QuestionSet("0001", (session(4), session(5), session(6)))


@pytest.fixture
def folder(tmp_path: Path, publish_tiny_adapter: PublishAdapter) -> Path:
    return publish_tiny_adapter(tmp_path / "adapters")


class TestScore:
    def test_wilson(self) -> None:
        assert wilson_interval(5, 10).low == pytest.approx(0.2366, abs=1e-4)
        assert wilson_interval(5, 10).high == pytest.approx(0.7634, abs=1e-4)
        assert wilson_interval(0, 10).low == 0
        assert wilson_interval(10, 10).high == pytest.approx(1)
        assert wilson_interval(0, 0).value != wilson_interval(0, 0).value

    def test_answers_are_counted_by_kind(self) -> None:
        quiz = score_answers(session(7), [True, True, False, False], "jo")
        assert (quiz.name, quiz.seed, quiz.judged, quiz.correct) == ("jo", 7, 4, 2)
        assert (quiz.generated, quiz.taken_for_real) == (2, 1)

    def test_a_session_may_end_early(self) -> None:
        quiz = score_answers(session(7), [True, True], "jo")
        assert (quiz.judged, quiz.correct, quiz.generated, quiz.taken_for_real) == (2, 1, 1, 1)
        assert score_answers(session(7), [], "jo").judged == 0

    def test_answers_of_all_people_are_combined(self) -> None:
        both = combine_results([JO, KIM])
        assert (both.judged, both.correct, both.generated, both.taken_for_real) == (20, 10, 10, 6)
        metric = quiz_metrics([JO, KIM])[0]
        assert (metric.estimate.value, metric.normalized) == (0.5, 1)
        assert quiz_metrics([]) == []

    def test_in_words(self) -> None:
        assert summarize(JO) == (
            "jo: 9 of 10 right, 90.0% [59.6%, 98.2%]; guessing gives 50 %. "
            "1 of 5 generated replies were taken for real."
        )
        set_language("zh")
        assert summarize(JO).startswith("jo：10 题答对 9 题，90.0% [59.6%, 98.2%]（")


class TestOffer:
    def test_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        assert read_questions(tmp_path) is None
        assert write_questions(tmp_path, OFFERED) == tmp_path / QUESTIONS_FILE
        assert read_questions(tmp_path) == OFFERED
        assert [path.name for path in tmp_path.iterdir()] == [QUESTIONS_FILE]
        remove_questions(tmp_path)
        remove_questions(tmp_path)
        assert read_questions(tmp_path) is None

    @pytest.mark.parametrize("content", ["", "{}", '{"version": "0001", "sittings": []}', "\udcff"])
    def test_a_damaged_or_an_empty_one_is_none(self, tmp_path: Path, content: str) -> None:
        (tmp_path / QUESTIONS_FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
        assert read_questions(tmp_path) is None

    def test_the_session_taken_least_often_comes_next(self) -> None:
        assert next_session(OFFERED, []).seed == 4
        of = [msgspec.structs.replace(JO, seed=seed) for seed in (4, 5, 4, 6)]
        assert [next_session(OFFERED, of[:count]).seed for count in range(5)] == [4, 5, 6, 6, 5]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results_file(folder: Path) -> Path:
    return folder.parent / "quiz" / f"{folder.name}.json"


class TestResults:
    def test_they_lie_beside_the_adapter_which_stays_as_it_is(self, folder: Path) -> None:
        before = content_of(folder)
        assert read_results(folder) == []
        save_result(folder, JO)
        save_result(folder, KIM)
        assert read_results(folder) == [JO, KIM]
        assert content_of(folder) == before
        assert list_versions(folder.parent) == [folder.name]
        assert results_file(folder).parent.stat().st_mode & 0o077 == 0

    def test_those_in_the_adapter_itself_come_first(self, folder: Path) -> None:
        stored = msgspec.json.encode({"figures": {}, "quizzes": [msgspec.to_builtins(JO)]})

        def as_earlier_versions_did(staging: Path, manifest: Manifest) -> Manifest:
            replace_file(staging / FIDELITY_FILE, stored)
            return manifest

        update_version(folder, as_earlier_versions_did)
        assert read_results(folder) == [JO]
        save_result(folder, KIM)
        add_results_to_report(folder)
        add_results_to_report(folder)
        assert read_results(folder) == [JO, KIM]
        assert read_manifest(folder).fidelity["figures"]["quiz"] == 0.5

    def test_all_that_end_in_the_same_moment_are_kept(self, folder: Path) -> None:
        program = (
            "import sys, msgspec; from pathlib import Path; from doppel.reports.quiz import QuizResult, save_result\n"
            "result = msgspec.json.decode(sys.argv[2], type=QuizResult)\n"
            "for number in range(20): save_result(Path(sys.argv[1]), msgspec.structs.replace(result, seed=number))"
        )
        arguments = [sys.executable, "-c", program, str(folder), msgspec.json.encode(KIM).decode()]
        other = subprocess.Popen(arguments)
        with ThreadPoolExecutor(4) as threads:
            for future in [threads.submit(save_result, folder, JO) for _ in range(40)]:
                future.result()
        assert other.wait(60) == 0
        names = [result.name for result in read_results(folder)]
        assert (names.count(JO.name), names.count(KIM.name)) == (40, 20)

    def test_a_damaged_file_is_not_overwritten(self, folder: Path) -> None:
        save_result(folder, JO)
        results_file(folder).write_text("{")
        with pytest.raises(DoppelError, match=r"quiz/0001\.json: cannot be read"):
            save_result(folder, KIM)
        assert results_file(folder).read_text() == "{"
        assert read_results(folder) == []

    def test_a_folder_that_cannot_be_written_is_one_line(self, folder: Path) -> None:
        results_file(folder).parent.touch()
        with pytest.raises(DoppelError, match="cannot be written"):
            save_result(folder, JO)

    def test_visitors_cannot_fill_the_disk(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("doppel.reports.quiz.MAX_RESULTS", 2)
        save_result(folder, JO)
        save_result(folder, KIM)
        with pytest.raises(DoppelError, match="has 2 quiz results, and takes no more"):
            save_result(folder, JO)
        assert read_results(folder) == [JO, KIM]


class TestReport:
    def test_it_joins_what_the_version_knows_of_itself(self, folder: Path) -> None:
        save_result(folder, JO)
        add_results_to_report(folder)
        content = json.loads((folder / FIDELITY_FILE).read_text(encoding="utf-8"))
        assert content["figures"]["quiz"]["value"] == 0.9
        assert content["figures"]["quiz"]["low"] == pytest.approx(0.596, abs=1e-3)
        save_result(folder, KIM)
        add_results_to_report(folder)
        assert read_results(folder) == [JO, KIM]
        assert read_manifest(folder).fidelity["figures"]["quiz"] == 0.5
        report = (folder / REPORT_PAGE).read_text(encoding="utf-8")
        assert report.count("<!-- quiz -->") == 1
        assert "&lt;b&gt;kim&lt;/b&gt;" in report
        assert "50.0% [29.9%, 70.1%]" in report

    def test_the_metrics_of_an_examination_stay(self, folder: Path) -> None:
        def examined(staging: Path, manifest: Manifest) -> Manifest:
            replace_file(staging / FIDELITY_FILE, b'{"figures": {"choice": {"value": 0.48}}, "replies": {"d": ["hi"]}}')
            replace_file(staging / REPORT_PAGE, page("What was found", "", []).encode())
            return manifest

        update_version(folder, examined)
        save_result(folder, JO)
        add_results_to_report(folder)
        content = json.loads((folder / FIDELITY_FILE).read_text(encoding="utf-8"))
        assert content["figures"].keys() == {"choice", "quiz"}
        assert content["replies"] == {"d": ["hi"]}
        assert "What was found" in (folder / REPORT_PAGE).read_text(encoding="utf-8")

    def test_a_damaged_version_is_refused(self, folder: Path) -> None:
        save_result(folder, JO)
        (folder / "habits.json").write_text("{}", encoding="utf-8")
        with pytest.raises(AdapterRefused):
            add_results_to_report(folder)
        assert read_results(folder) == [JO]

    def test_a_record_of_an_older_form_has_none(self, tmp_path: Path) -> None:
        (tmp_path / FIDELITY_FILE).write_text('{"figures": {}}', encoding="utf-8")
        assert read_results(tmp_path) == []
        (tmp_path / FIDELITY_FILE).write_text('{"quizzes": 3}', encoding="utf-8")
        assert read_results(tmp_path) == []


def test_stored_names_stay() -> None:
    """Files written by earlier versions still open: Python names may change, stored ones may not."""
    stored = msgspec.to_builtins(JO)
    assert stored.keys() == {"name", "at", "seed", "asked", "right", "generated", "taken_for_real"}
    assert msgspec.convert(stored, QuizResult) == JO
    assert msgspec.to_builtins(OFFERED).keys() == {"version", "sittings"}


@pytest.mark.parametrize("trials", [1, 2, 3, 7, 10, 100, 504, 10_000])
def test_wilson_interval_is_the_textbook_formula(trials: int) -> None:
    z = 1.959963984540054
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        share = successes / trials
        middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
        half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
        interval = wilson_interval(successes, trials)
        assert interval.value == share
        assert interval.low == pytest.approx(max(0.0, middle - half), abs=1e-9)
        assert interval.high == pytest.approx(min(1.0, middle + half), abs=1e-9)

"""The blind quiz: its score, the web page's questions, and its place in the version's record."""

import json
from pathlib import Path

import msgspec
import pytest

from doppel.adapters.update import amend, replace_file
from doppel.adapters.versions import AdapterRefused, Manifest, read_manifest
from doppel.i18n import set_language
from doppel.reports.figures import FILE, wilson
from doppel.reports.html import FILE as REPORT
from doppel.reports.html import page
from doppel.reports.quiz import (
    OFFER,
    Offer,
    Question,
    Quiz,
    Sitting,
    next_sitting,
    quiz_figures,
    read_offer,
    read_quizzes,
    record,
    remove_offer,
    score,
    summary,
    together,
    write_offer,
)
from doppel.transcript import ME, Turn
from tests.conftest import PublishAdapter

JO = Quiz(name="jo", at="2026-03-02T12:00:00+00:00", seed=0, asked=10, right=9, generated=5, taken_for_real=1)
KIM = msgspec.structs.replace(JO, name="<b>kim</b>", seed=1, right=1, taken_for_real=5)


def sitting(seed: int) -> Sitting:
    """Four questions, the first and the last of them real."""
    context = (Turn("Ramito", ("lunch?", "or \u2028 later")), Turn(ME, ("yes",)), Turn("Ramito", ("when",)))
    return Sitting(seed, tuple(Question(context, (f"at {place}", "ok"), place in (0, 3)) for place in range(4)))


OFFERED = Offer("0001", (sitting(4), sitting(5), sitting(6)))


@pytest.fixture
def folder(tmp_path: Path, publish_tiny_adapter: PublishAdapter) -> Path:
    return publish_tiny_adapter(tmp_path / "adapters")


class TestScore:
    def test_wilson(self) -> None:
        assert wilson(5, 10).low == pytest.approx(0.2366, abs=1e-4)
        assert wilson(5, 10).high == pytest.approx(0.7634, abs=1e-4)
        assert wilson(0, 10).low == 0
        assert wilson(10, 10).high == pytest.approx(1)
        assert wilson(0, 0).value != wilson(0, 0).value

    def test_what_is_counted(self) -> None:
        quiz = score(sitting(7), [True, True, False, False], "jo")
        assert (quiz.name, quiz.seed, quiz.asked, quiz.right) == ("jo", 7, 4, 2)
        assert (quiz.generated, quiz.taken_for_real) == (2, 1)

    def test_one_who_stops_is_asked_less(self) -> None:
        quiz = score(sitting(7), [True, True], "jo")
        assert (quiz.asked, quiz.right, quiz.generated, quiz.taken_for_real) == (2, 1, 1, 1)
        assert score(sitting(7), [], "jo").asked == 0

    def test_all_answers_together(self) -> None:
        both = together([JO, KIM])
        assert (both.asked, both.right, both.generated, both.taken_for_real) == (20, 10, 10, 6)
        figure = quiz_figures([JO, KIM])[0]
        assert (figure.value.value, figure.likeness) == (0.5, 1)
        assert quiz_figures([]) == []

    def test_in_words(self) -> None:
        assert summary(JO) == (
            "jo: 9 of 10 right, 90.0% [59.6%, 98.2%]. Half would be guessing. "
            "1 of 5 generated replies were taken for real."
        )
        set_language("zh")
        assert summary(JO).startswith("jo：10 次判断对了 9 次，90.0% [59.6%, 98.2%]。")


class TestOffer:
    def test_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        assert read_offer(tmp_path) is None
        assert write_offer(tmp_path, OFFERED) == tmp_path / OFFER
        assert read_offer(tmp_path) == OFFERED
        assert [path.name for path in tmp_path.iterdir()] == [OFFER]
        remove_offer(tmp_path)
        remove_offer(tmp_path)
        assert read_offer(tmp_path) is None

    @pytest.mark.parametrize("content", ["", "{}", '{"version": "0001", "sittings": []}', "\udcff"])
    def test_a_damaged_or_an_empty_one_is_none(self, tmp_path: Path, content: str) -> None:
        (tmp_path / OFFER).write_bytes(content.encode("utf-8", "surrogateescape"))
        assert read_offer(tmp_path) is None

    def test_everybody_gets_what_was_taken_least_often(self) -> None:
        assert next_sitting(OFFERED, []).seed == 4
        of = [msgspec.structs.replace(JO, seed=seed) for seed in (4, 5, 4, 6)]
        assert [next_sitting(OFFERED, of[:count]).seed for count in range(5)] == [4, 5, 6, 6, 5]


class TestRecord:
    def test_it_joins_what_the_version_knows_of_itself(self, folder: Path) -> None:
        assert read_quizzes(folder) == []
        record(folder, JO)
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        assert content["figures"]["quiz"]["value"] == 0.9
        assert content["figures"]["quiz"]["low"] == pytest.approx(0.596, abs=1e-3)
        record(folder, KIM)
        assert read_quizzes(folder) == [JO, KIM]
        assert read_manifest(folder).fidelity["figures"]["quiz"] == 0.5
        report = (folder / REPORT).read_text(encoding="utf-8")
        assert report.count("<!-- quiz -->") == 1
        assert "&lt;b&gt;kim&lt;/b&gt;" in report
        assert "50.0% [29.9%, 70.1%]" in report

    def test_what_an_examination_found_stays(self, folder: Path) -> None:
        def examined(staging: Path, manifest: Manifest) -> Manifest:
            replace_file(staging / FILE, b'{"figures": {"choice": {"value": 0.48}}, "replies": {"d": ["hi"]}}')
            replace_file(staging / REPORT, page("What was found", "", []).encode())
            return manifest

        amend(folder, examined)
        record(folder, JO)
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        assert content["figures"].keys() == {"choice", "quiz"}
        assert content["replies"] == {"d": ["hi"]}
        assert "What was found" in (folder / REPORT).read_text(encoding="utf-8")

    def test_a_damaged_version_is_refused(self, folder: Path) -> None:
        (folder / "habits.json").write_text("{}", encoding="utf-8")
        with pytest.raises(AdapterRefused):
            record(folder, JO)
        assert read_quizzes(folder) == []

    def test_a_record_of_an_older_form_has_none(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text('{"figures": {}}', encoding="utf-8")
        assert read_quizzes(tmp_path) == []
        (tmp_path / FILE).write_text('{"quizzes": 3}', encoding="utf-8")
        assert read_quizzes(tmp_path) == []

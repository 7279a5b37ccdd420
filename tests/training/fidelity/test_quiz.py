"""The blind quiz: balanced, of equal lengths, the same for the same seed, and kept in the version's record."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from doppel.adapter import read_manifest
from doppel.cli import app
from doppel.config import Config
from doppel.figures import wilson
from doppel.i18n import set_language
from doppel.transcript import ME, Turn
from tests.training.fidelity.cases import situation
from tests.training.fidelity.test_admission import config as config  # noqa: PLC0414 a fixture
from tests.training.fidelity.test_admission import published
from training.fidelity.evaluate import evaluate_version
from training.fidelity.examination import Effort
from training.fidelity.heldout import Situation
from training.fidelity.kept import FILE, Kept, Quiz, digest, kept_replies, quiz_figures, read_kept, to_keep
from training.fidelity.quiz import make_questions, take
from training.fidelity.replies import Reply


def heard(number: int, reply: str) -> Situation:
    return msgspec.structs.replace(situation(number, f"what about {number}"), reply=Turn(ME, (reply,)))


SITUATIONS = [heard(number, "x" * (1 + 7 * number % 50)) for number in range(60)]
GENERATED = [Reply(one, ("y" * (1 + 11 * place % 50),)) for place, one in enumerate(SITUATIONS[:30])]


class TestQuestions:
    def test_half_are_real_and_none_answers_what_another_does(self) -> None:
        questions = make_questions(GENERATED, SITUATIONS, 20, seed=0)
        assert sum(one.is_real for one in questions) == 10
        assert len({digest(one.reply.situation) for one in questions}) == 20
        assert all(one.reply.text[0] == ("x" if one.is_real else "y") for one in questions)

    def test_real_and_generated_are_of_equal_length(self) -> None:
        questions = make_questions(GENERATED, SITUATIONS, 20, seed=0)
        sides = [sorted(len(one.reply.text) for one in questions if one.is_real == side) for side in (True, False)]
        assert all(abs(left - right) <= 2 for left, right in zip(*sides, strict=True))

    def test_the_seed_says_which_and_in_what_order(self) -> None:
        first = make_questions(GENERATED, SITUATIONS, 20, seed=3)
        assert make_questions(GENERATED, SITUATIONS, 20, seed=3) == first
        assert make_questions(GENERATED, SITUATIONS, 20, seed=4) != first
        assert [one.is_real for one in first] != sorted(one.is_real for one in first)

    def test_odd_rounds_and_too_few_replies(self) -> None:
        assert len(make_questions(GENERATED, SITUATIONS, 7, seed=0)) == 7
        assert len(make_questions(GENERATED[:2], SITUATIONS, 20, seed=0)) == 4
        assert make_questions([], SITUATIONS, 20, seed=0) == []


class TestAnswers:
    def test_what_is_counted(self, capsys: pytest.CaptureFixture[str]) -> None:
        questions = make_questions(GENERATED, SITUATIONS, 8, seed=0)
        lines = iter(["what?", " R ", *["ｒ"] * 7])
        quiz = take(questions, "ann", "jo", 0, lambda: next(lines))
        assert (quiz.asked, quiz.right, quiz.generated, quiz.taken_for_real) == (8, 4, 4, 4)
        shown = capsys.readouterr().err
        assert "— 8 of 8 —" in shown
        assert "r is for real" in shown
        assert "Ramito: what about" in shown

    @pytest.mark.parametrize("end", ["q", None])
    def test_one_who_stops_keeps_what_was_judged(self, end: str | None) -> None:
        questions = make_questions(GENERATED, SITUATIONS, 8, seed=0)
        lines = iter(["r" if questions[0].is_real else "g", end])
        quiz = take(questions, "ann", "jo", 0, lambda: next(lines))
        assert (quiz.asked, quiz.right) == (1, 1)

    def test_control_characters_do_not_reach_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        questions = make_questions([Reply(SITUATIONS[0], ("a\x1b[2Jb",))], SITUATIONS, 2, seed=0)
        take(questions, "ann", "jo", 0, lambda: "r")
        assert "a[2Jb" in capsys.readouterr().err


class TestRecord:
    def test_wilson(self) -> None:
        assert wilson(5, 10).low == pytest.approx(0.2366, abs=1e-4)
        assert wilson(5, 10).high == pytest.approx(0.7634, abs=1e-4)
        assert wilson(0, 10).low == 0
        assert wilson(10, 10).high == pytest.approx(1)
        assert wilson(0, 0).value != wilson(0, 0).value

    def test_quizzes_are_counted_together(self) -> None:
        one = Quiz(name="jo", at="", seed=0, asked=10, right=9, generated=5, taken_for_real=1)
        figure = quiz_figures([one, msgspec.structs.replace(one, right=1)])[0]
        assert figure.value.value == 0.5
        assert figure.likeness == 1
        assert quiz_figures([]) == []

    def test_replies_are_kept_without_the_messages_they_answer(self) -> None:
        kept = Kept(to_keep([*GENERATED, Reply(SITUATIONS[40], ())]))
        assert "what about" not in msgspec.json.encode(kept).decode()
        assert kept_replies(kept, SITUATIONS) == GENERATED
        assert kept_replies(kept, SITUATIONS[30:]) == []

    def test_a_damaged_or_older_record_is_an_empty_one(self, tmp_path: Path) -> None:
        assert read_kept(tmp_path) == Kept()
        (tmp_path / FILE).write_text('{"replies": 3}', encoding="utf-8")
        assert read_kept(tmp_path) == Kept()
        (tmp_path / FILE).write_text('{"figures": {}}', encoding="utf-8")
        assert read_kept(tmp_path) == Kept()


@pytest.fixture
def settings(config: Config, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    content = {"model": {"base": config.model.base, "dtype": "float32"}, "reply": {"max_tokens": 12}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_command_asks_notes_and_shows(config: Config, settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fidelity.evaluate.QUICK", Effort(tokens=200, questions=4, replies=10))
    folder = config.adapters_dir / published(config, seed=0)

    def run(*options: str, answers: str) -> dict[str, object]:
        arguments = ["quiz", "--rounds", "6", "--json", "--config", str(settings), *options]
        result = CliRunner().invoke(app(), arguments, input=answers)
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout)
        assert isinstance(printed, dict)
        return printed

    first = run("--name", "jo", answers="g\n" * 6)  # nothing is kept yet: replies are written for it
    assert (first["asked"], first["right"], first["generated"], first["taken_for_real"]) == (6, 3, 3, 0)
    assert first["share"] == {"value": 0.5, "low": 0.1876, "high": 0.8124}
    assert "jo" in (folder / "report.html").read_text(encoding="utf-8")

    outcome = evaluate_version(config, folder.name, quick=True)
    assert "quiz" in {one.name for one in outcome.examination.figures}
    assert [one.name for one in read_kept(folder).quizzes] == ["jo"]
    assert "<!-- quiz -->" in (folder / "report.html").read_text(encoding="utf-8")
    second = run("--name", "<b>kim</b>", answers="r\nr\n")  # the input ends early
    assert (second["asked"], second["seed"]) == (2, 1)
    assert run(answers="q\n")["share"] is None

    record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    assert [one["name"] for one in record["quizzes"]] == ["jo", "<b>kim</b>"]
    assert len(record["replies"]) > 3
    assert record["figures"]["quiz"]["value"] == pytest.approx((3 + second["right"]) / 8)  # type: ignore[operator]
    assert "bits_per_byte" in record["figures"]
    assert "quiz" in read_manifest(folder).fidelity["figures"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<!-- quiz -->") == page.count("<!-- added -->") == 1
    assert "&lt;b&gt;kim&lt;/b&gt;" in page
    assert [one.name for one in read_kept(folder).quizzes] == ["jo", "<b>kim</b>"]


def test_the_quiz_speaks_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    set_language("zh")
    take(make_questions(GENERATED, SITUATIONS, 2, seed=0), "ann", "jo", 0, lambda: "真")
    assert "第 2 题，共 2 题" in capsys.readouterr().err

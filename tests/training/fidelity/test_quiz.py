"""The blind quiz: balanced, of equal lengths, the same for the same seed, and kept in the version's record."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner, Result

from doppel.adapters.versions import read_manifest
from doppel.cli.app import app
from doppel.config import Config
from doppel.i18n import set_language
from doppel.reports.metrics import FIDELITY_FILE
from doppel.reports.quiz import QUESTIONS_FILE, QuizQuestion, read_questions, read_results, score_answers
from doppel.transcript import ME, Turn
from tests.training.fidelity.cases import make_exchange
from tests.training.fidelity.test_gate import config as config  # noqa: PLC0414 a fixture
from tests.training.fidelity.test_gate import publish_random
from training.commands.quiz import ask
from training.fidelity.evaluate import evaluate_version
from training.fidelity.examine import ExaminationSize
from training.fidelity.generate import EvaluationReply
from training.fidelity.quiz import QuizMaterial, make_session
from training.fidelity.served import Exchange
from training.fidelity.stored import StoredData, find_stored_replies, read_stored_data, replies_by_digest


def exchange_with(number: int, reply: str) -> Exchange:
    return msgspec.structs.replace(make_exchange(number, f"what about {number}"), reply=Turn(ME, (reply,)))


EXCHANGES = [exchange_with(number, "x" * (1 + 7 * number % 50)) for number in range(60)]
GENERATED = [
    EvaluationReply(exchange, ("y" * (1 + 11 * number % 50),)) for number, exchange in enumerate(EXCHANGES[:30])
]


def make_questions(
    generated: Sequence[EvaluationReply], exchanges: Sequence[Exchange], rounds: int, seed: int
) -> list[QuizQuestion]:
    return list(make_session(generated, exchanges, rounds, seed).questions)


class TestQuestions:
    def test_half_are_real_and_every_context_occurs_once(self) -> None:
        questions = make_questions(GENERATED, EXCHANGES, 20, seed=0)
        assert sum(question.is_real for question in questions) == 10
        assert len({question.context for question in questions}) == 20
        assert all(question.text[0] == ("x" if question.is_real else "y") for question in questions)

    def test_real_and_generated_are_of_equal_length(self) -> None:
        questions = make_questions(GENERATED, EXCHANGES, 20, seed=0)
        sides = [
            sorted(len(question.text) for question in questions if question.is_real == side) for side in (True, False)
        ]
        assert all(abs(left - right) <= 2 for left, right in zip(*sides, strict=True))

    def test_the_seed_decides_questions_and_order(self) -> None:
        first = make_questions(GENERATED, EXCHANGES, 20, seed=3)
        assert make_questions(GENERATED, EXCHANGES, 20, seed=3) == first
        assert make_questions(GENERATED, EXCHANGES, 20, seed=4) != first
        assert [question.is_real for question in first] != sorted(question.is_real for question in first)

    def test_an_odd_number_of_rounds_and_too_few_replies(self) -> None:
        assert len(make_questions(GENERATED, EXCHANGES, 7, seed=0)) == 7
        assert len(make_questions(GENERATED[:2], EXCHANGES, 20, seed=0)) == 4
        assert make_questions([], EXCHANGES, 20, seed=0) == []


class TestQuestionSet:
    def test_no_question_occurs_in_two_sessions(self) -> None:
        questions = QuizMaterial(Path("0007"), EXCHANGES, GENERATED, seed=4).question_set(10)
        assert questions.version == "0007"
        assert [session.seed for session in questions.sessions] == [4, 5, 6, 7]
        contexts = [question.context for session in questions.sessions for question in session.questions]
        assert len(contexts) == len(set(contexts)) == 40

    def test_with_few_replies_a_single_session_is_shorter(self) -> None:
        (session,) = QuizMaterial(Path("0007"), EXCHANGES, GENERATED[:3], seed=0).question_set(10).sessions
        assert len(session.questions) == 6


class TestAnswers:
    def test_answers_are_counted_by_kind(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = make_session(GENERATED, EXCHANGES, 8, seed=0)
        lines = iter(["what?", " R ", *["ｒ"] * 7])
        result = score_answers(session, ask(session, "ann", lambda: next(lines)), "jo")
        assert (result.judged, result.correct, result.generated, result.taken_for_real) == (8, 4, 4, 4)
        shown = capsys.readouterr().err
        assert "— 8 of 8 —" in shown
        assert "Type r for real" in shown
        assert "Ramito: what about" in shown

    @pytest.mark.parametrize("end", ["q", None])
    def test_answers_before_quitting_are_kept(self, end: str | None) -> None:
        session = make_session(GENERATED, EXCHANGES, 8, seed=0)
        lines = iter(["r" if session.questions[0].is_real else "g", end])
        result = score_answers(session, ask(session, "ann", lambda: next(lines)), "jo")
        assert (result.judged, result.correct) == (1, 1)

    def test_control_characters_do_not_reach_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = make_session([EvaluationReply(EXCHANGES[0], ("a\x1b[2Jb",))], EXCHANGES, 2, seed=0)
        ask(session, "ann", lambda: "r")
        assert "a[2Jb" in capsys.readouterr().err


class TestStoredData:
    def test_replies_are_stored_without_their_contexts(self) -> None:
        stored = StoredData(replies_by_digest([*GENERATED, EvaluationReply(EXCHANGES[40], ())]))
        assert "what about" not in msgspec.json.encode(stored).decode()
        assert find_stored_replies(stored, EXCHANGES) == GENERATED
        assert find_stored_replies(stored, EXCHANGES[30:]) == []

    def test_a_damaged_or_older_file_counts_as_empty(self, tmp_path: Path) -> None:
        assert read_stored_data(tmp_path) == StoredData()
        (tmp_path / FIDELITY_FILE).write_text('{"replies": 3}', encoding="utf-8")
        assert read_stored_data(tmp_path) == StoredData()
        (tmp_path / FIDELITY_FILE).write_text('{"figures": {}}', encoding="utf-8")
        assert read_stored_data(tmp_path) == StoredData()


@pytest.fixture
def settings(config: Config, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    content = {"model": {"base": config.model.base, "dtype": "float32"}, "reply": {"max_tokens": 12}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_command_asks_and_stores_the_result(
    config: Config, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fidelity.evaluate.QUICK", ExaminationSize(tokens=200, questions=4, replies=10))
    folder = config.adapters_dir / publish_random(config, seed=0)

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
    assert "quiz" in {metric.name for metric in outcome.examination.metrics}
    assert [quiz.name for quiz in read_results(folder)] == ["jo"]
    assert "<!-- quiz -->" in (folder / "report.html").read_text(encoding="utf-8")
    second = run("--name", "<b>kim</b>", answers="r\nr\n")  # the input ends early
    assert (second["asked"], second["seed"]) == (2, 1)
    assert run(answers="q\n")["share"] is None

    record = json.loads((folder / FIDELITY_FILE).read_text(encoding="utf-8"))
    assert len(record["replies"]) > 3
    assert record["figures"]["quiz"]["value"] == pytest.approx((3 + second["right"]) / 8)  # type: ignore[operator]
    assert "bits_per_byte" in record["figures"]
    assert "quiz" in read_manifest(folder).fidelity["figures"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<!-- quiz -->") == page.count("<!-- added -->") == 1
    assert "&lt;b&gt;kim&lt;/b&gt;" in page
    assert [quiz.name for quiz in read_results(folder)] == ["jo", "<b>kim</b>"]


def test_the_command_publishes_questions_for_the_web_page_and_removes_them(config: Config, settings: Path) -> None:
    folder = config.adapters_dir / publish_random(config, seed=0)

    def run(*options: str) -> Result:
        return CliRunner().invoke(app(), ["quiz", "--rounds", "6", "--json", "--config", str(settings), *options])

    result = run("--page")
    questions = read_questions(config.data_dir)
    assert questions is not None
    assert questions.version == folder.name
    assert json.loads(result.stdout) == {
        "version": folder.name,
        "page": str(config.data_dir / QUESTIONS_FILE),
        "sittings": len(questions.sessions),
        "questions": sum(len(session.questions) for session in questions.sessions),
    }
    assert len(questions.sessions) >= 3
    assert "http://127.0.0.1:7860/quiz/" in result.stderr
    assert [path for path in folder.rglob("*") if path.name == QUESTIONS_FILE] == []
    assert json.loads(run("--no-page").stdout) == {"page": None}
    assert read_questions(config.data_dir) is None


def test_the_quiz_speaks_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    set_language("zh")
    ask(make_session(GENERATED, EXCHANGES, 2, seed=0), "ann", lambda: "真")
    assert "第 2 题，共 2 题" in capsys.readouterr().err

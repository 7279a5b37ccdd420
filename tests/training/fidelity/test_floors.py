"""Who is the floor, what several replies gain, and what a report says of both."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from doppel.engine import Sampling
from doppel.reports.metrics import by_name
from doppel.transcript import ME, Header, Turn
from tests.training.fidelity.cases import casual, formal, situation
from tests.training.fidelity.test_judge import opened
from training.dataset.files import Session
from training.fidelity import best_of
from training.fidelity.adapted_model import AdaptedModel, Continuations
from training.fidelity.best_of import CANDIDATES, choose_best_replies
from training.fidelity.generate import actual_replies, generate, generate_replies
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.measures.relevance import relevance_metrics
from training.fidelity.measures.two_sample import best_of_metric, two_sample_metrics
from training.fidelity.report.titles import title_of
from training.fidelity.texts import MIN_EXCHANGES, EvaluationData, other_person_exchanges


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return opened(tmp_path_factory.mktemp("subject"), "gemma3")


def session(number: int, *turns: tuple[str, str]) -> Session:
    return Session(
        id=f"{number:03}",
        split="test",
        chat="c",
        started_at=datetime(2020, 1, 1, tzinfo=UTC),
        header=Header(),
        turns=tuple(Turn(speaker, (text,)) for speaker, text in turns),
    )


class TestSecondSpeaker:
    def held(self, past: int, future: int) -> EvaluationData:
        talk = (("Lodobo", "once"), (ME, "what?"), ("Ramito", "hello"), (ME, "hi"), ("Ramito", "bye"))
        sessions = [session(number, *talk) for number in range(past + future)]
        return EvaluationData(sessions[:past], sessions[past:], [])

    def test_the_one_who_answers_most(self, subject: AdaptedModel) -> None:
        found = other_person_exchanges(self.held(0, 40), subject.transcript, 50)
        assert {exchange.reply.speaker for exchange in found} == {"Ramito"}
        assert len(found) == 50
        assert len({exchange.session_id for exchange in found}) == 40
        byes = [exchange for exchange in found if exchange.text == "bye"]
        assert all(exchange.context[-1] == Turn(ME, ("hi",)) for exchange in byes)
        assert byes

    def test_the_past_fills_up_what_the_future_lacks(self, subject: AdaptedModel) -> None:
        assert len(other_person_exchanges(self.held(40, 5), subject.transcript, 60)) == 60

    def test_nobody_where_all_wrote_too_little(self, subject: AdaptedModel) -> None:
        assert other_person_exchanges(self.held(0, MIN_EXCHANGES // 2 - 1), subject.transcript, 60) == []


def test_another_person_is_the_floor_and_the_prompted_base_stands_beside() -> None:
    sides = casual(90, 1), casual(90, 4), casual(90, 2), casual(90, 3)
    for measure, name in ((two_sample_metrics, "two_sample_auc"), (habit_metrics, "habits_distance")):
        alone = by_name(measure(*sides))
        beside = by_name(measure(*sides, formal(90)))
        assert alone[name].floor == alone[f"{name}_prompted"].estimate == beside[f"{name}_prompted"].estimate
        assert beside[name].estimate == alone[name].estimate
        assert beside[name].floor.value > 2 * beside[name].estimate.value - 0.5  # type: ignore[union-attr]


class TestCandidates:
    def test_the_best_is_chosen_as_the_daemon_chooses(
        self, subject: AdaptedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def last(judged, recent):  # type: ignore[no-untyped-def]
            seen.append((judged, recent))
            return len(judged) - 1

        monkeypatch.setattr(best_of, "best_candidate", last)
        sampling = Sampling(max_tokens=10)
        asked = [situation(number) for number in range(4)]
        first = generate(subject, asked, sampling)
        chosen = choose_best_replies(subject, first, sampling)
        assert [reply.exchange for reply in chosen] == asked
        assert chosen == [draft.reply for draft in generate(subject, asked * (CANDIDATES - 1), sampling, seed=1)[-4:]]
        for judged, recent in seen:
            assert len(judged) == CANDIDATES
            assert recent == []
            assert all(len(candidate.adapter) == len(candidate.base) > 0 for candidate in judged)
            assert any(list(candidate.adapter) != list(candidate.base) for candidate in judged)
            assert all(len(candidate.unprompted) == len(candidate.base) for candidate in judged)
            assert any(list(candidate.unprompted) != list(candidate.base) for candidate in judged)

    def test_one_reply_is_the_floor(self, subject: AdaptedModel) -> None:
        asked = [situation(number, f"what {number}?") for number in range(8)]
        first = generate_replies(subject, asked, Sampling(max_tokens=10))
        told = best_of_metric(casual(60), formal(60), casual(60, 1), casual(60, 2))
        assert told.floor is not None
        assert told.estimate.value < 0.7 < told.floor.value
        fit = by_name(relevance_metrics(subject, first, first, actual_replies(asked), actual_replies(asked)))
        assert fit["candidates_relevance"].estimate == fit["candidates_relevance"].ceiling == fit["relevance"].ceiling
        assert fit["candidates_relevance"].floor == fit["relevance"].estimate
        assert "candidates_relevance" not in by_name(relevance_metrics(subject, first, first, actual_replies(asked)))


def test_what_a_writer_thinks_of_a_draft_is_what_scoring_says(tmp_path: Path) -> None:
    subject = opened(tmp_path, "llama")
    asked = [situation(number, "x" * (1 + 3 * number)) for number in range(5)]
    for draft in generate(subject, asked, Sampling(max_tokens=12)):
        one = draft.reply.exchange
        question = Continuations(subject.transcript.prompt(one.header, one.context), [draft.ids])
        assert subject.token_log_probabilities([question])[0][0] == pytest.approx(draft.log_probabilities, abs=1e-3)


def test_every_figure_of_writing_has_a_title() -> None:
    figures = habit_metrics(casual(20), formal(20), casual(20, 1), casual(20, 2))
    assert all(title_of(metric.name) != metric.name for metric in figures)

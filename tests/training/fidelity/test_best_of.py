"""The best of several replies is chosen by the daemon's own ranking."""

from collections.abc import Sequence

import pytest

from doppel.engine import Sampling
from doppel.persona.ranking import ReplyCandidate
from tests.training.fidelity.cases import make_exchange
from training.fidelity import best_of
from training.fidelity.adapted_model import AdaptedModel
from training.fidelity.best_of import CANDIDATES, choose_best_replies
from training.fidelity.generate import generate


def test_the_ranking_gets_scored_candidates_and_its_choice_is_taken(
    adapted: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Sequence[ReplyCandidate], Sequence[str]]] = []

    def choose_last(candidates: Sequence[ReplyCandidate], recent: Sequence[str]) -> int:
        calls.append((candidates, recent))
        return len(candidates) - 1

    monkeypatch.setattr(best_of, "best_candidate", choose_last)
    sampling = Sampling(max_tokens=10)
    exchanges = [make_exchange(number) for number in range(4)]
    first = generate(adapted, exchanges, sampling)
    chosen = choose_best_replies(adapted, first, sampling)
    assert [reply.exchange for reply in chosen] == exchanges
    more = generate(adapted, exchanges * (CANDIDATES - 1), sampling, seed=1)
    assert chosen == [completion.reply for completion in more[-4:]]
    for candidates, recent in calls:
        assert len(candidates) == CANDIDATES
        assert recent == []
        for candidate in candidates:
            assert candidate.adapter is not None
            assert candidate.base is not None
            assert candidate.unprompted is not None
            assert len(candidate.adapter) == len(candidate.base) == len(candidate.unprompted) > 0
        assert any(list(candidate.adapter or ()) != list(candidate.base or ()) for candidate in candidates)
        assert any(list(candidate.unprompted or ()) != list(candidate.base or ()) for candidate in candidates)

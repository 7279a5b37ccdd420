"""Which weights choose the best of several replies, on validation messages.

    python benchmarks/candidates.py CONFIG [--version N] [--replies 96] [--quick]

CONFIG is a config.yaml with a published version. Four replies are written to each of some validation messages, with the
daemon's prompts; then each pair of weights of `doppel/persona/ranking.py` chooses among the same four. A choice is good
if the replies fit their conversations (by the matcher, which has learned from other conversations and knows no language
model) and a detector cannot tell them from the owner's: relevance less AUC. The test split is not read.

Prints one JSON object last: a row for each pair of weights, the first reply and the others as they come to compare.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doppel.adapters.versions import version_folder
from doppel.config import load_config
from doppel.persona import read_persona
from doppel.persona.ranking import WEIGHTS, CandidateWeights, best_candidate
from training.dataset.files import read_sessions
from training.fidelity.adapted_model import load_adapted_model
from training.fidelity.best_of import CANDIDATES, Candidates, write_candidates
from training.fidelity.generate import EvaluationReply, actual_replies, generate
from training.fidelity.measures.habits import habit_metrics
from training.fidelity.measures.matcher import ReplyMatcher
from training.fidelity.measures.relevance import matched_share, train_matcher
from training.fidelity.measures.two_sample import classifier_auc
from training.fidelity.served import serving_of
from training.fidelity.texts import select_evaluation_data
from training.lora.examples import sample_evenly

LIKENESS = (0.0, 0.05, 0.1, 0.2, 0.5)
NOVELTY = (0.0, 0.5, 1.0, 2.0)


def main() -> None:
    """Writes the candidates, tries the weights and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--version", help="of the adapter; the one in use by default")
    parser.add_argument("--replies", type=int, default=96)
    parser.add_argument("--quick", action="store_true", help="to 24 messages, which decides nothing")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    folder = version_folder(config.adapters_dir, arguments.version)
    adapted = load_adapted_model(config.model, folder)
    sampling = read_persona(folder).sampling(config.reply, adapted.transcript)
    serving = serving_of(config, adapted.manifest, adapted.context_length)
    data = select_evaluation_data(list(read_sessions(config.data_dir)), adapted.transcript, serving, "validation")
    exchanges = sample_evenly(data.exchanges, 24 if arguments.quick else arguments.replies)
    matcher = train_matcher(data)
    assert matcher is not None, "the archive is too small for a matcher"
    choices = write_candidates(adapted, generate(adapted, exchanges, sampling), sampling)
    judge = Judge(matcher, actual_replies(exchanges))
    rows = [
        judge.row(f"reply {place + 1}", [choice.replies[place] for choice in choices]) for place in range(CANDIDATES)
    ]
    rows.append(judge.row("the owner", judge.actual))
    for likeness in LIKENESS:
        for novelty in NOVELTY:
            weights = CandidateWeights(likeness, novelty)
            name = f"likeness {likeness}, novelty {novelty}" + (" (in use)" if weights == WEIGHTS else "")
            rows.append(judge.row(name, _chosen(choices, weights)))
    for row in rows:
        print(*row.values(), sep="  ", file=sys.stderr)
    print(json.dumps({"replies": len(exchanges), "rows": rows}))


class Judge:
    """Says how good replies to some messages are.

    Args:
        matcher: of replies and conversations.
        actual: the owner's own replies.
    """

    def __init__(self, matcher: ReplyMatcher, actual: list[EvaluationReply]) -> None:
        self._matcher = matcher
        self.actual = actual

    def row(self, name: str, replies: Sequence[EvaluationReply]) -> dict[str, Any]:
        """The figures of one choice."""
        relevance, auc = matched_share(self._matcher, replies), classifier_auc(replies, self.actual)
        habits = {metric.name: metric for metric in habit_metrics(replies, replies, self.actual, self.actual)}
        return {
            "choice": name,
            "relevance": round(relevance.value, 3),
            "relevance_interval": [round(relevance.low, 3), round(relevance.high, 3)],
            "auc": round(auc.value, 3),
            "distance_of_habits": round(habits["habits_distance"].estimate.value, 3),
            "relevance_less_auc": round(relevance.value - auc.value, 3),
        }


def _chosen(choices: Sequence[Candidates], weights: CandidateWeights) -> list[EvaluationReply]:
    return [choice.replies[best_candidate(choice.ranked, choice.recent, weights)] for choice in choices]


if __name__ == "__main__":
    main()

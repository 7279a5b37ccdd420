"""What fidelity.json holds: the report of the last examination, the adapter's replies, and the quiz results.

It holds none of the owner's messages: an exchange is identified by its digest, and looked up in the data set again.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from doppel.reports.metrics import FIDELITY_FILE, GoalResult, by_name, metrics_to_json
from doppel.reports.quiz import QuizResult
from training.fidelity.examine import ExaminationResult
from training.fidelity.generate import EvaluationReply
from training.fidelity.served import Exchange


class FidelityReport(msgspec.Struct, frozen=True):
    """The report on one version."""

    version: str
    folder: Path
    is_quick: bool
    examination: ExaminationResult
    goals: list[GoalResult]
    gate: list[GoalResult]
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints and fidelity.json stores."""
        return {
            "version": self.version,
            "created_at": self.created_at,
            "quick": self.is_quick,
            "floor": {"speaker": bool(self.examination.other), "replies": len(self.examination.other)},
            "figures": metrics_to_json(self.examination.metrics),
            "checks": [msgspec.structs.asdict(result) for result in self.goals],
            "gate": [msgspec.structs.asdict(result) for result in self.gate],
            "seconds": self.examination.seconds,
        }


def compare_reports(first: FidelityReport, second: FidelityReport) -> dict[str, Any]:
    """Two reports, and for each metric the better version, or None where the intervals overlap."""
    better: dict[str, str | None] = {}
    second_metrics = by_name(second.examination.metrics)
    for metric in first.examination.metrics:
        if metric.name in second_metrics:
            left, right = metric.estimate, second_metrics[metric.name].estimate
            differ = left.high < right.low or right.high < left.low
            first_is_better = (left.value < right.value) == metric.lower_is_better
            better[metric.name] = (first.version if first_is_better else second.version) if differ else None
    return {"versions": [first.to_json(), second.to_json()], "better": better}


class StoredData(msgspec.Struct, frozen=True):
    """The part of fidelity.json that is used again.

    Attributes:
        replies: the adapter's replies, bubble by bubble, by the digest of the exchange.
        quizzes: quiz results that an earlier version of doppel stored there; see `doppel.reports.quiz`.
    """

    replies: dict[str, list[str]] = {}
    quizzes: list[QuizResult] = []


def read_stored_data(folder: Path) -> StoredData:
    """Reads a version's fidelity.json; empty if there is none or it is damaged."""
    try:
        return msgspec.json.decode((folder / FIDELITY_FILE).read_bytes(), type=StoredData)
    except (FileNotFoundError, msgspec.MsgspecError):
        return StoredData()


def replies_by_digest(replies: Iterable[EvaluationReply]) -> dict[str, list[str]]:
    """Replies that are not empty, by the digest of their exchange."""
    return {exchange_digest(reply.exchange): list(reply.bubbles) for reply in replies if reply.bubbles}


def find_stored_replies(stored: StoredData, exchanges: Iterable[Exchange]) -> list[EvaluationReply]:
    """The stored replies to these exchanges; replies to exchanges of another data set are left out."""
    found = ((exchange, stored.replies.get(exchange_digest(exchange))) for exchange in exchanges)
    return [EvaluationReply(exchange, tuple(bubbles)) for exchange, bubbles in found if bubbles is not None]


def exchange_digest(exchange: Exchange) -> str:
    """Identifies an exchange without revealing it."""
    return hashlib.sha256(msgspec.json.encode(exchange)).hexdigest()[:24]

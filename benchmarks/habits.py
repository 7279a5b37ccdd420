"""Whether the timing that is learned is the owner's: on what was written later, against a fixed rule and the past.

    python benchmarks/habits.py [--speakers 3] [--quick] [--json]

The speakers with the most messages of the sample archive. Timing is learned from the first four fifths of each one's
chats; then delays and gaps are drawn for the moments of the last fifth and compared with what was really waited: the
Kolmogorov-Smirnov distance, and the Wasserstein distance between logarithms. Floor: a fixed uniform 1 to 5 s. Ceiling:
the owner's own waits in the first four fifths. The sample has chats of two strangers within minutes: it says nothing
about groups, nights, and chats that go on for years.

Prints one JSON object last.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, wasserstein_distance

from training.archives import sample
from training.archives.discovery import sample_path
from training.dataset.timing import TimingCollector, learn_activity, learn_delay, learn_gap

ZONE = ZoneInfo("UTC")
HELD_OUT = 0.2
FIXED = (1.0, 5.0)

Array = NDArray[np.float64]


def main() -> None:
    """Compares, speaker by speaker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speakers", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the first speaker only")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    arguments = parser.parse_args()
    archive = json.loads(sample_path().read_text(encoding="utf-8"))
    counts = Counter(bubble["sender"] for chat in archive.values() for turn in chat["messages"] for bubble in turn)
    rows = []
    for speaker, _ in counts.most_common(1 if arguments.quick else arguments.speakers):
        rows += compare(archive, speaker)
    if not arguments.json:
        for row in rows:
            print(*row.values(), sep="  ")
    checks = [check for row in rows for check in checks_of(row)]
    print(json.dumps({"rows": rows, "checks": checks}))


def compare(archive: dict[str, Any], speaker: str) -> list[dict[str, Any]]:
    """The distances of delays and of gaps for one speaker."""
    sample.SPEAKER = speaker
    chats = [list(sample._chat(name, content, "")) for name, content in archive.items()]
    chats = sorted((chat for chat in chats if chat), key=lambda chat: chat[0].sent_at)
    cut = int(len(chats) * (1 - HELD_OUT))
    past, later = TimingCollector(), TimingCollector()
    for number, chat in enumerate(chats):
        lines = sorted((message.sent_at, bool(message.is_owner), message.text) for message in chat)
        (past if number < cut else later).add_chat(lines, is_group=False, contact=None)
    delay = learn_delay(past.observations, learn_activity(past.own_times, ZONE), ZONE)
    gap = learn_gap(past.gaps, past.gap_characters)
    assert delay is not None
    assert gap is not None
    random = Random(0)
    answered = [one for one in later.observations if one.is_answered]
    return [
        _row(
            f"{speaker[:8]} first delay",
            actual=[one.seconds for one in answered],
            drawn=[delay.sample(one.moment, random, ZONE) for one in answered],
            past=[one.seconds for one in past.observations if one.is_answered],
            random=random,
        ),
        _row(
            f"{speaker[:8]} gap between bubbles",
            actual=later.gaps,
            drawn=[gap.sample(int(characters), random) for characters in later.gap_characters],
            past=past.gaps,
            random=random,
        ),
    ]


def checks_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Half of the fixed rule's distance at most, and within 0.05 of the owner's past."""
    learned, fixed, past = row["ks"], row["ks_fixed"], row["ks_past"]
    return [
        {
            "name": f"{row['name']}: KS distance",
            "value": learned,
            "goal": f"<= {fixed / 2:.3f}",
            "ok": learned <= fixed / 2,
        },
        {
            "name": f"{row['name']}: KS distance beyond that of the owner's past",
            "value": round(learned - past, 3),
            "goal": "<= 0.05",
            "ok": learned - past <= 0.05,
        },
    ]


def _row(name: str, *, actual: Any, drawn: Any, past: Any, random: Random) -> dict[str, Any]:
    real = np.maximum(np.asarray(actual, dtype=float), 0.3)
    fixed = [random.uniform(*FIXED) for _ in real]
    row: dict[str, Any] = {"name": name, "moments": len(real)}
    for suffix, side in (("", drawn), ("_fixed", fixed), ("_past", past)):
        other = np.maximum(np.asarray(side, dtype=float), 0.3)
        row[f"ks{suffix}"] = round(float(ks_2samp(real, other).statistic), 3)
        row[f"wasserstein_log{suffix}"] = round(float(wasserstein_distance(np.log(real), np.log(other))), 3)
    return row


if __name__ == "__main__":
    main()

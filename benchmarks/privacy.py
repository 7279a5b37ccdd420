"""Measures what the scrubber finds, what it leaves alone, and what it costs.

    python benchmarks/privacy.py [--quick] [--json]

- `found`: made-up secrets of every kind, each in sentences of several languages; a secret is found if it is gone.
- `changed`: ordinary lines of eleven languages with prices, dates, scores, order numbers, versions, coordinates,
  recipes, books and bus lines; none of them has a secret.
- `again`: scrubbed texts that a second scrubber with the same folder changes once more.
- `regions`: example numbers of every country and type from `phonenumbers` that stay, or change twice.
- `seconds`: of processor time for a million ordinary messages, 3 % of them with a number, beside one pass over them
  with a single regular expression for digits and signs, in turns.
- `--quick`: fewer secrets and lines, one round.

Goals: at least 99 % of the secrets found, at most 0.2 % of ordinary lines changed, nothing changed twice, the numbers
of every region replaced, at most 8 s of processor time for a million messages. Prints one JSON object last. The exit
code is 1 if a goal was missed.
"""

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

from phonenumbers import SUPPORTED_REGIONS, PhoneNumberFormat, PhoneNumberType, example_number_for_type, format_number

from doppel.config import PrivateKind
from tests.training.privacy.lines import core, ordinary, planted
from training.privacy.regions import Regions
from training.privacy.scrub import Scrubber
from training.privacy.secrets import find_secrets

_KINDS: tuple[PrivateKind, ...] = get_args(PrivateKind)
_ZONES = (
    None,
    "Europe/Berlin",
    "Europe/Madrid",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Shanghai",
)
_WORDS = """
yeah no ok so the cat is on it again lol what time tomorrow maybe later i think we should go there haha did you see that
one honestly not sure but sounds good dinner work train meeting tired coffee 哈哈 好的 明天 见
""".split()  # noqa: SIM905 - a list of words, not of quotation marks
_DIGITS_AND_SIGNS = re.compile("[0-9@/:=]")


def main() -> int:
    """Measures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer secrets and lines, one round")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else 15
    zones = _ZONES[:2] if arguments.quick else _ZONES
    figures: dict[str, Any] = {"secrets": {}, "ordinary": {}}
    found = changed = again = secrets = lines = 0
    for key in zones:
        zone = None if key is None else ZoneInfo(key)
        rows = planted(rounds)
        texts = [text for _, _, text in rows]
        with tempfile.TemporaryDirectory() as folder:
            after = _scrubbed(Path(folder), texts, zone)
            twice = _scrubbed(Path(folder), after, zone)
            kept = ordinary()
            differing = sum(line != now for line, now in zip(kept, _scrubbed(Path(folder), kept, zone), strict=True))
        missed = Counter(kind for (kind, secret, _), now in zip(rows, after, strict=True) if core(secret) in now)
        figures["secrets"][str(key)] = {"planted": len(rows), "missed": dict(missed)}
        figures["ordinary"][str(key)] = {"lines": len(kept), "changed": differing}
        secrets, found = secrets + len(rows), found + len(rows) - missed.total()
        lines, changed = lines + len(kept), changed + differing
        again += sum(once != now for once, now in zip(after, twice, strict=True))
    figures["regions"] = _regions()
    figures["seconds"] = _seconds(20_000 if arguments.quick else 200_000, 1 if arguments.quick else 3)
    checks = [
        _check("share of planted secrets found", found / secrets, ">=", 0.99),
        _check("share of ordinary lines changed", changed / lines, "<=", 0.002),
        _check("texts that change when scrubbed again", again, "<=", 0),
        _check("example numbers of a country that stay or change twice", figures["regions"]["wrong"], "<=", 0),
        _check(
            "seconds of processor time for a million ordinary messages", figures["seconds"]["find_secrets"], "<=", 8.0
        ),
    ]
    print(json.dumps({"figures": figures, "checks": checks}))
    return 0 if all(check["ok"] for check in checks) else 1


def _check(name: str, value: float, sign: str, goal: float) -> dict[str, Any]:
    is_met = value >= goal if sign == ">=" else value <= goal
    return {"name": name, "value": round(value, 5), "goal": f"{sign} {goal:g}", "ok": is_met}


def _scrubbed(folder: Path, texts: Sequence[str], zone: ZoneInfo | None) -> list[str]:
    scrubber = Scrubber(folder, folder, _KINDS, zone=zone)
    try:
        return [scrubber.scrub(text, "chat.json:1") for text in texts]
    finally:
        scrubber.close()


def _regions() -> dict[str, int]:
    numbers = [
        format_number(example, number_format)
        for region in sorted(SUPPORTED_REGIONS)
        for kind in PhoneNumberType.values()
        if kind != PhoneNumberType.UNKNOWN and (example := example_number_for_type(region, kind)) is not None
        for number_format in (PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164)
    ]
    with tempfile.TemporaryDirectory() as folder:
        once = _scrubbed(Path(folder), numbers, None)
        twice = _scrubbed(Path(folder), once, None)
    wrong = sum(number == now or now != last for number, now, last in zip(numbers, once, twice, strict=True))
    return {"numbers": len(numbers), "wrong": wrong}


def _seconds(count: int, rounds: int) -> dict[str, float]:
    """For a million messages, by measuring `count`; medians of rounds in turns."""
    dice = random.Random(1)
    lines = [" ".join(dice.choices(_WORDS, k=dice.randint(1, 14))) for _ in range(count)]
    numbered = [f"{line} at {dice.randint(1, 12)}:{dice.randint(0, 59):02}" for line in lines[: count // 40]]
    ordered = [f"{line} order {dice.randint(10**8, 10**9)}" for line in lines[: count // 200]]
    lines[: len(numbered) + len(ordered)] = [*numbered, *ordered]
    dice.shuffle(lines)
    kinds, regions = frozenset(_KINDS), Regions(ZoneInfo("Europe/Berlin"))
    find_secrets("call +49 30 123456 or 030 123456", kinds, regions)  # loads the rules of the country
    times: dict[str, list[float]] = {"find_secrets": [], "one expression": []}
    for _ in range(rounds):
        began = time.process_time()
        for line in lines:
            find_secrets(line, kinds, regions, line)
        times["find_secrets"].append(time.process_time() - began)
        began = time.process_time()
        for line in lines:
            _DIGITS_AND_SIGNS.search(line)
        times["one expression"].append(time.process_time() - began)
    million = {name: statistics.median(measured) * 1e6 / count for name, measured in times.items()}
    million["ratio"] = million["find_secrets"] / million["one expression"]
    return {name: round(value, 2) for name, value in million.items()}


if __name__ == "__main__":
    sys.exit(main())

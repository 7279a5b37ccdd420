"""Measures time and memory of `doppel build` on 100,000 and on a million messages.

    python benchmarks/build.py [--quick] [--json]

The script generates the exports: a Telegram account with 200 chats, and a Twitter archive, with the lengths, bursts and
silences of real chats and an occasional phone number or address to replace. Each measurement is a process of its own;
sizes take turns, and medians are reported. Nothing else should run on the machine meanwhile.

- `build`: the whole command: reading, cleaning, scrubbing, sessions and reports.
- `reading`: readers and sessions alone; nothing is cleaned, replaced or written.
- `--quick`: 20,000 and 100,000 messages, once, without the goals for a million messages.

`megabytes` is the peak of the process plus the peak of the reader process that a large build starts.

Goals: a million messages built in at most 30 s and 600 MB, a million tweets in as much memory; a million messages read
and cut into sessions in at most 13 s; a million messages cost at most 11 times 100,000. Prints one JSON object last.
The exit code is 1 if a goal was missed.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

from benchmarks.doppel_command import run_process, write_config

_WORDS = (
    *("yeah", "no", "ok", "so", "the", "cat", "is", "on", "it", "again", "lol", "what", "time", "tomorrow", "maybe"),
    *("later", "i", "think", "we", "should", "go", "there", "haha", "did", "you", "see", "that", "one", "honestly"),
    *("not", "sure", "but", "sounds", "good", "dinner", "work", "train", "meeting", "tired", "coffee"),
    *("哈哈", "好的", "明天", "见"),
)
_SECRETS = (
    *("call me +49 151 23456789", "mail ann.lee@mailbox.org"),
    *("13812345678 是我的号码", "card 4111 1111 1111 1111"),
)
_OWNER = 1001
_CHATS = 200
_START = datetime(2019, 3, 1, 8, tzinfo=UTC)
_MEGABYTE = 1 << 20


def main() -> int:
    """Generates the exports and measures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, once")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    parser.add_argument("--measure", choices=("build", "reading"), help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(arguments.measure, arguments.config)))
        return 0
    sizes = (20_000, 100_000) if arguments.quick else (100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        runs = _runs(Path(folder), sizes, rounds=1 if arguments.quick else 3)
    figures = {name: _median(results) for name, results in runs.items()}
    checks = _checks(figures, sizes)
    print(json.dumps({"figures": figures, "checks": checks}))
    return 0 if all(check["ok"] for check in checks) else 1


def _runs(folder: Path, sizes: tuple[int, int], rounds: int) -> dict[str, list[dict[str, float]]]:
    configs = {}
    for size in sizes:
        for kind, write in (("telegram", _write_telegram), ("twitter", _write_twitter)):
            project = folder / f"{kind}-{size}"
            project.mkdir()
            write(project, size)
            settings = {"archive": [str(project / "export")], "data": str(project / "data")}
            configs[kind, size] = write_config(project, settings)
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for (kind, size), config in configs.items():
            for what in ("build", "reading"):
                command = [sys.executable, __file__, "--measure", what, "--config", str(config)]
                runs.setdefault(f"{kind}.{size}.{what}", []).append(run_process(command))
    return runs


def _median(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(result[name] for result in results), 3) for name in results[0]}


def _checks(figures: dict[str, dict[str, float]], sizes: tuple[int, int]) -> list[dict[str, Any]]:
    small, large = sizes
    build, reading = figures[f"telegram.{large}.build"], figures[f"telegram.{large}.reading"]
    growth = build["seconds"] / figures[f"telegram.{small}.build"]["seconds"]
    max_growth = 1.1 * large / small
    values: list[tuple[str, float, float]] = [("cost of the large export over the small one", growth, max_growth)]
    if large >= 1_000_000:
        values += [
            ("seconds to build a million messages", build["seconds"], 30.0),
            ("megabytes to build a million messages", build["megabytes"], 600.0),
            ("megabytes to build a million tweets", figures[f"twitter.{large}.build"]["megabytes"], 600.0),
            ("seconds to read a million messages and cut sessions", reading["seconds"], 13.0),
        ]
    return [
        {"name": name, "value": round(value, 3), "goal": f"<= {goal:g}", "ok": value <= goal}
        for name, value, goal in values
    ]


def _measure(what: str, path: Path) -> dict[str, float]:
    """Seconds, peak megabytes and messages a second of one piece of work in this process."""
    from doppel.config import load_config

    config = load_config(path)
    began = time.perf_counter()
    count = _build(config) if what == "build" else _read(config)
    seconds = time.perf_counter() - began
    peaks = (resource.getrusage(scope).ru_maxrss for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = sum(peaks) * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "megabytes": peak / _MEGABYTE, "messages_per_second": count / seconds}


class _SilentProgress:
    """Progress of a build that shows nothing."""

    def stage(self, text: str) -> None:
        """Shows nothing."""

    def add_bytes_total(self, size: int) -> None:
        """Shows nothing."""

    def add_bytes_read(self, size: int) -> None:
        """Shows nothing."""

    def add_messages(self, count: int) -> None:
        """Shows nothing."""


def _build(config: Any) -> int:
    from training.dataset.build import build_dataset

    return int(build_dataset(config, _SilentProgress()).read)


def _read(config: Any) -> int:
    """Reads the archives and cuts sessions chat by chat, as the build does; returns the number of messages."""
    from training.archives.discovery import discover, installed_readers
    from training.dataset.message_store import MessageStore
    from training.dataset.sessions import SessionMessage, estimate_gap, join_threads, split_at_silences

    discovery = discover(config.archives, config.root, ZoneInfo("UTC"), installed_readers())
    store = MessageStore(config.root / "messages.tmp")
    count = 0
    try:
        for number, source in enumerate(discovery.sources):
            for message in source.reader.read(source.tree):
                store.add(number, message)
                count += 1
        for chat in store.chats():
            lines = (
                (number, SessionMessage(0, message, bool(message.is_owner))) for number, message in chat.numbered()
            )
            if chat.is_public:
                for thread in join_threads(lines, chat.answered):
                    _ = [chat.message(number) for number in thread]
            else:
                for _ in split_at_silences((line for _, line in lines), estimate_gap(chat.times())):
                    pass
    finally:
        store.close()
        discovery.close()
    return count


def _text(rng: random.Random) -> str:
    if rng.random() < 0.005:
        return rng.choice(_SECRETS)
    return " ".join(rng.choices(_WORDS, k=min(60, 1 + int(rng.expovariate(0.16)))))


def _gap(rng: random.Random) -> float:
    """Seconds to the next message: bursts, answers, and silences between conversations."""
    return rng.choices((rng.uniform(1, 20), rng.uniform(20, 600), rng.uniform(2e4, 3e5)), (60, 36, 4))[0]


def _write_telegram(place: Path, size: int) -> None:
    rng = random.Random(1)
    export = place / "export"
    export.mkdir()
    with (export / "result.json").open("w", encoding="utf-8") as file:
        file.write(f'{{"about": "…", "personal_information": {{"user_id": {_OWNER}, "first_name": "Ann"}}, ')
        file.write('"chats": {"about": "…", "list": [')
        for chat in range(_CHATS):
            file.write(",\n" if chat else "")
            file.write(f'{{"name": "Contact {chat}", "type": "personal_chat", "id": {5000 + chat}, "messages": [')
            at = _START + timedelta(hours=chat)
            for number in range(size // _CHATS):
                at += timedelta(seconds=_gap(rng))
                sender = _OWNER if rng.random() < 0.5 else 5000 + chat
                record = {
                    "id": number + 1,
                    "type": "message",
                    "date": at.strftime("%Y-%m-%dT%H:%M:%S"),
                    "date_unixtime": str(int(at.timestamp())),
                    "from": "Ann" if sender == _OWNER else f"Contact {chat}",
                    "from_id": f"user{sender}",
                    "text": (text := _text(rng)),
                    "text_entities": [{"type": "plain", "text": text}],
                }
                file.write((",\n" if number else "") + json.dumps(record, ensure_ascii=False, indent=1))
            file.write("]}")
        file.write("]}}")


def _write_twitter(place: Path, size: int) -> None:
    rng = random.Random(2)
    data = place / "export" / "data"
    data.mkdir(parents=True)
    account = [{"account": {"accountId": str(_OWNER), "username": "ann", "accountDisplayName": "Ann"}}]
    (data / "account.js").write_text(f"window.YTD.account.part0 = {json.dumps(account)}", encoding="utf-8")
    with (data / "tweets.js").open("w", encoding="utf-8") as file:
        file.write("window.YTD.tweets.part0 = [")
        at = _START
        for number in range(size):
            at += timedelta(seconds=_gap(rng) / 4)
            tweet = {
                "id_str": str(10**17 + number),
                "full_text": _text(rng),
                "created_at": at.strftime("%a %b %d %H:%M:%S +0000 %Y"),
                "entities": {"urls": [], "user_mentions": [], "hashtags": []},
                "lang": "en",
            }
            file.write((",\n" if number else "") + json.dumps({"tweet": tweet}, ensure_ascii=False, indent=1))
        file.write("]")


if __name__ == "__main__":
    sys.exit(main())

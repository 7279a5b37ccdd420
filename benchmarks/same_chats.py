"""Checks that a chat which two exports have is built once, and measures how long that takes.

    python benchmarks/same_chats.py [--quick] [--json]

The script generates one archive of chats and two overlapping exports of it, the first of the older and the second of
the newer three quarters, in two ways:

- `telegram`: two exports of an account, with the service's ids.
- `whatsapp`: an Android phone and an iPhone, a file a chat: minutes and seconds, four and a half hours apart and in
  summer three and a half, a quarter of the contacts renamed, one message in fifty missing from either. Beside them are
  chats that only resemble each other: the same messages to twenty people in the same minute, with short answers.

Of every chat, what was read without the duplicates must be what was said: `lost` and `doubled` count the differences,
`wrongly_joined` the chats that were joined with another one. Each build is a process of its own. `megabytes` is the
peak of the process and of the reader process that a large build starts.

Goals: nothing lost, doubled or wrongly joined; a million messages in at most 45 s and 600 MB. Prints one JSON object
last. The exit code is 1 if a goal was missed.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is not installed

from benchmarks.doppel_command import run_process, write_config

_WORDS = (
    *("yeah", "no", "ok", "so", "the", "cat", "is", "on", "it", "again", "lol", "what", "time", "tomorrow", "maybe"),
    *("later", "i", "think", "we", "should", "go", "there", "haha", "did", "you", "see", "that", "one", "honestly"),
    *("not", "sure", "but", "sounds", "good", "dinner", "work", "train", "meeting", "tired", "coffee"),
    *("哈哈", "好的", "明天", "见"),
)
_ANSWERS = ("thanks!", "you too", "same to you", "haha yes", "see you there", "ok")
_CHATS = 200
_SIMILAR = 20
_OWNER = 1001
_MISSING = 0.02
_ZONE, _OTHER_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
_START = datetime(2019, 3, 4, 8, tzinfo=ZoneInfo("UTC"))
_ONE_HOUR = timedelta(hours=1)
_MEGABYTE = 1 << 20


class _Line(NamedTuple):
    """One message of a chat."""

    number: int
    at: datetime
    is_own: bool
    text: str


def main() -> int:
    """Generates the exports, builds and checks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100,000 messages")
    parser.add_argument("--json", action="store_true", help="has no effect: the last line is always the JSON object")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(arguments.measure)))
        return 0
    size = 100_000 if arguments.quick else 1_000_000
    figures: dict[str, dict[str, float]] = {}
    for name, write in (("telegram", _write_telegram), ("whatsapp", _write_whatsapp)):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            said = write(root, size)
            config = write_config(
                root,
                {
                    "archive": [str(root / "first"), str(root / "second")],
                    "timezone": _ZONE.key,
                    "persona": {"name": "ann", "me": ["Ann"]},
                    "data": str(root / "data"),
                },
            )
            result = run_process([sys.executable, __file__, "--measure", config])
            figures[name] = _compare(result, said)
    checks = _checks(figures, size)
    print(json.dumps({"figures": figures, "checks": checks}))
    return 0 if all(check["ok"] for check in checks) else 1


def _measure(path: Path) -> dict[str, Any]:
    """Builds in this process; returns seconds, peak megabytes, and what was left of each chat by its name."""
    from doppel.config import load_config
    from training.dataset.build import build_dataset

    config = load_config(path)
    began = time.perf_counter()
    report = build_dataset(config, _SilentProgress())
    seconds = time.perf_counter() - began
    peaks = (resource.getrusage(scope).ru_maxrss for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = sum(peaks) * (1 if sys.platform == "darwin" else 1024)
    chats: dict[str, dict[str, Any]] = {}
    for source in report.sources.values():
        for chat in source.chats:
            row = chats.setdefault(chat.chat, {"names": [], "messages": 0})
            row["names"].append(chat.name)
            row["messages"] += chat.read - chat.dropped.get("duplicate", 0)
    return {"seconds": seconds, "megabytes": peak / _MEGABYTE, "read": report.read, "chats": list(chats.values())}


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


def _compare(result: dict[str, Any], said: dict[str, int]) -> dict[str, float]:
    """The differences between what is left of the chats and what was said; `said` counts messages by name of a chat."""
    lost = doubled = wrong = 0
    found: dict[str, int] = {}
    for chat in result["chats"]:
        names = {name.removesuffix(" (new)") for name in chat["names"]}
        wrong += len(names) - 1
        name = min(names)
        found[name] = found.get(name, 0) + chat["messages"]
    for name, count in said.items():
        lost += max(0, count - found.get(name, 0))
        doubled += max(0, found.get(name, 0) - count)
    figures = {name: round(result[name], 2) for name in ("seconds", "megabytes", "read")}
    return {**figures, "lost": lost, "doubled": doubled, "wrongly_joined": wrong}


def _checks(figures: dict[str, dict[str, float]], size: int) -> list[dict[str, Any]]:
    goals: dict[str, float] = {"lost": 0, "doubled": 0, "wrongly_joined": 0}
    if size >= 1_000_000:
        goals |= {"seconds": 45, "megabytes": 600}
    return [
        {"name": f"{name}: {what}", "value": values[what], "goal": f"<= {goal:g}", "ok": values[what] <= goal}
        for name, values in figures.items()
        for what, goal in goals.items()
    ]


def _talk(rng: random.Random, chat: int, size: int) -> list[_Line]:
    """A chat with bursts, answers, silences, and words that everybody says."""
    at = _START + timedelta(minutes=37 * chat)
    lines = []
    for number in range(size):
        at += timedelta(
            seconds=rng.choices((rng.uniform(1, 20), rng.uniform(20, 600), rng.uniform(2e4, 3e5)), (60, 36, 4))[0]
        )
        # Local stamps of the hour that comes twice cannot be told apart.
        while (at - _ONE_HOUR).astimezone(_ZONE).utcoffset() != (at + _ONE_HOUR).astimezone(_ZONE).utcoffset():
            at += 2 * _ONE_HOUR
        text = " ".join(rng.choices(_WORDS, k=min(60, 1 + int(rng.expovariate(0.16)))))
        lines.append(_Line(number, at.replace(microsecond=0), rng.random() < 0.5, text))
    return lines


def _parts(lines: list[_Line]) -> tuple[list[_Line], list[_Line]]:
    """The older and the newer three quarters."""
    quarter = len(lines) // 4
    return lines[: 3 * quarter], lines[quarter:]


def _write_telegram(root: Path, size: int) -> dict[str, int]:
    """Two exports of an account. Returns the number of messages by name of the chat."""
    rng = random.Random(1)
    said: dict[str, int] = {}
    exports: tuple[list[str], list[str]] = ([], [])
    for chat in range(_CHATS):
        lines = _talk(rng, chat, int(size / 1.5) // _CHATS)
        name, account = f"Contact {chat}", 5000 + chat
        said[name] = len(lines)
        for export, part in zip(exports, _parts(lines), strict=True):
            records = ",\n".join(
                json.dumps(
                    {
                        "id": line.number + 1,
                        "type": "message",
                        "date_unixtime": str(int(line.at.timestamp())),
                        "from": "Ann" if line.is_own else name,
                        "from_id": f"user{_OWNER if line.is_own else account}",
                        "text": line.text,
                    }
                )
                for line in part
            )
            export.append(f'{{"name": "{name}", "type": "personal_chat", "id": {account}, "messages": [{records}]}}')
    for folder, export in zip(("first", "second"), exports, strict=True):
        (root / folder).mkdir()
        content = f'{{"personal_information": {{"user_id": {_OWNER}}}, "chats": {{"list": [{",".join(export)}]}}}}'
        (root / folder / "result.json").write_text(content, encoding="utf-8")
    return said


def _write_whatsapp(root: Path, size: int) -> dict[str, int]:
    """The exports of two phones. Returns the number of messages by name of the chat."""
    rng = random.Random(2)
    said: dict[str, int] = {}
    for folder in ("first", "second"):
        (root / folder).mkdir()
    for name, lines, kind in _chats(rng, size):
        parts = _parts(lines)
        new_name = f"{name} (new)" if kind == "renamed" else name
        kept = [[line for line in part if kind == "similar" or rng.random() >= _MISSING] for part in parts]
        said[name] = said.get(name, 0) + len(set(kept[0]) | set(kept[1]))
        older = "".join(
            f"{line.at.astimezone(_ZONE):%d.%m.%y, %H:%M} - {'Ann' if line.is_own else name}: {line.text}\n"
            for line in kept[0]
        )
        newer = "".join(
            f"[{line.at.astimezone(_OTHER_ZONE):%d.%m.%y, %H:%M:%S}] "
            f"{'Ann' if line.is_own else new_name}: {line.text}\n"
            for line in kept[1]
        )
        (root / "first" / f"WhatsApp Chat with {name}.txt").write_text(older, encoding="utf-8")
        folder = root / "second" / f"WhatsApp Chat - {new_name}"
        folder.mkdir()
        (folder / "_chat.txt").write_text(newer, encoding="utf-8")
    return said


def _chats(rng: random.Random, size: int) -> Iterator[tuple[str, list[_Line], str]]:
    """Yields (name, messages, sort) of every chat."""
    count = int(size / 1.5) // (_CHATS + 1)
    for chat in range(_CHATS):
        yield f"Contact {chat:03}", _talk(rng, chat, count), "" if chat % 4 else "renamed"
    at = _START
    told = []
    for number in range(max(8, count // _SIMILAR // 2)):
        at += timedelta(seconds=rng.uniform(600, 4e4))
        told.append((at.replace(microsecond=0), " ".join(rng.choices(_WORDS, k=8)) + f" {number}"))
    for person in range(_SIMILAR):
        lines = []
        for number, (when, text) in enumerate(told):
            lines.append(_Line(2 * number, when + timedelta(seconds=person % 5), True, text))
            answered = when + timedelta(seconds=rng.randrange(60, 500))
            lines.append(_Line(2 * number + 1, answered, False, rng.choice(_ANSWERS)))
        yield f"Friend {person:03}", lines, "similar"


if __name__ == "__main__":
    sys.exit(main())

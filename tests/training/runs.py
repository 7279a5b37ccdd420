"""Small trainings for tests: sixty sessions that are easy to learn, and a configuration that does so in seconds."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from doppel.adapters.habits import Habits, write_habits
from doppel.adapters.versions import WEIGHTS, current_version
from doppel.config import Config, parse_config
from doppel.transcript import ME, Header, Turn
from training.dataset.files import SESSIONS_FILE, Session, Split, write_sessions
from training.run.metrics import MetricsRow, read_metrics

FAST = {"sessions_per_step": 4, "epochs": 1, "max_length": 128, "learning_rate": 0.01, "rank": 4}


def small_run(root: Path, base: Path, **training: Any) -> Config:
    """A new folder with a data set, ready to be trained on; twelve steps and three checks."""
    config = small_config(root, base, **training)
    config.data_dir.mkdir(parents=True)
    write_sessions(config.data_dir / SESSIONS_FILE, _sessions(60))
    write_habits(config.data_dir, Habits(seconds_per_character=0.3))
    return config


def small_config(root: Path, base: Path, *, history: int = 40, **training: Any) -> Config:
    """The configuration of `small_run`, for the same folder; `history` is that of a prompt."""
    model, reply = {"base": str(base), "dtype": "float32"}, {"history": history}
    content = {"model": model, "reply": reply, "training": {**FAST, **training}}
    return parse_config(content, root / "config.yaml")


def weights_of(config: Config) -> bytes:
    """The weights file of the adapter in use."""
    folder = current_version(config.adapters_dir)
    assert folder is not None
    return (folder / WEIGHTS).read_bytes()


def metrics_of(config: Config) -> list[MetricsRow]:
    """What was noted of the training of the adapter in use."""
    folder = current_version(config.adapters_dir)
    assert folder is not None
    return list(read_metrics(folder / "metrics.jsonl"))


def _sessions(count: int) -> Iterator[Session]:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    for number in range(count):
        split: Split = "test" if number >= count * 0.9 else "validation" if number >= count * 0.8 else "train"
        yield Session(
            id=f"{number:04}",
            split=split,
            chat="Ramito",
            started_at=start + timedelta(days=number),
            header=Header(kind="dm", platform="telegram", year="2020", contact="Ramito" if number % 2 else None),
            turns=(
                Turn("Ramito", (f"what is {number} plus one", "说吧")),
                Turn(ME, ("haha haha haha", "no idea, ask somebody else")),
            ),
        )

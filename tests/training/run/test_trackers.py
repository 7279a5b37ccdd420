"""Trackers get the numbers of a run, and nothing that names its owner or this machine."""

import getpass
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from doppel.errors import DoppelError, UserError
from training.run.metrics import MetricsRow
from training.run.plan import TrainingPlan
from training.run.trackers import check_trackers, metric_values, tracking

RUN = "2026-01-01T12-00-00"
PLAN = TrainingPlan(
    rank=16,
    alpha=32.0,
    learning_rate=5e-4,
    sessions_per_step=4,
    tokens_per_batch=512,
    max_length=128,
    steps=10,
    steps_between_checks=5,
    check_tokens=100,
    patience=3,
    seed=0,
    device="cpu",
    dtype="float32",
    tokens_per_second=100.0,
    epochs=1.0,
)
STEP = MetricsRow(step=1, epoch=0.1, tokens=100, seconds=2.0, loss=2.5, learning_rate=1e-4, tokens_per_second=50.0)
CHECK = MetricsRow(step=1, epoch=0.1, tokens=100, seconds=3.0, bits_per_byte=1.5, end_nats=0.5)


def test_trackers_get_only_numbers() -> None:
    assert metric_values(STEP) == {
        "epoch": 0.1,
        "tokens": 100,
        "seconds": 2.0,
        "loss": 2.5,
        "learning_rate": 1e-4,
        "tokens_per_second": 50.0,
    }


def test_tensorboard_has_every_step_once_also_after_resuming(tmp_path: Path) -> None:
    def metric(step: int, loss: float) -> MetricsRow:
        return msgspec.structs.replace(STEP, step=step, loss=loss)

    with tracking(["tensorboard"], tmp_path, RUN, PLAN, 0) as trackers:
        for step in (1, 2, 3):
            trackers[0].log(metric(step, 1.0))
        trackers[0].log(CHECK)
    with tracking(["tensorboard"], tmp_path, RUN, PLAN, 2) as trackers:
        for step in (3, 4):
            trackers[0].log(metric(step, 2.0))
    shown = EventAccumulator(str(tmp_path / "tensorboard" / RUN)).Reload()
    assert [(event.step, event.value) for event in shown.Scalars("loss")] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert [event.value for event in shown.Scalars("bits_per_byte")] == [1.5]


def test_wandb_gets_numbers_and_nothing_about_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "data" / "secretname.tracking"
    with tracking(["wandb"], folder, RUN, PLAN, 0) as trackers:
        trackers[0].log(STEP)
        trackers[0].log(CHECK)
    wandb.teardown()  # else its service writes when this process ends
    (sent,) = folder.rglob("*.wandb")
    content = sent.read_bytes()
    assert b"learning_rate" in content
    assert b"bits_per_byte" in content
    words = ["secretname", str(tmp_path), sys.executable, getpass.getuser() + "@", "requirements.txt", *sys.argv[1:]]
    hostname = socket.gethostname()
    assert [word for word in words if word and word.encode() in content] == []
    assert len(hostname) < 4 or hostname.encode() not in content
    assert list(folder.rglob("requirements.txt")) == []


class FakeTrackio(ModuleType):
    """What of Trackio 0.43 is called, with its parameters."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.started: dict[str, Any] = {}
        self.logged: list[tuple[int | None, dict[str, float]]] = []
        self.finished = False

    def init(
        self,
        project: str,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        resume: str = "never",
        embed: bool = True,
        auto_log_gpu: bool | None = None,
        auto_log_cpu: bool | None = None,
    ) -> "FakeTrackio":
        print("* Trackio project initialized")
        self.started = {"project": project, "name": name, "config": config, "resume": resume}
        assert (embed, auto_log_gpu, auto_log_cpu) == (False, False, False)
        return self

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged.append((step, metrics))

    def finish(self) -> None:
        print("* Run finished")
        self.finished = True


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> FakeTrackio:
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def test_trackio_gets_numbers_and_keeps_stdout_clean(
    trackio: FakeTrackio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking(["trackio"], tmp_path, RUN, PLAN, 0) as trackers:
        trackers[0].log(STEP)
    assert trackio.logged == [(1, metric_values(STEP))]
    assert trackio.finished
    assert (trackio.started["project"], trackio.started["name"], trackio.started["resume"]) == ("doppel", RUN, "allow")
    assert all(isinstance(value, int | float) for value in trackio.started["config"].values())
    assert capsys.readouterr().out == ""


def test_a_tracker_that_is_not_installed_or_cannot_start_is_one_line(
    trackio: FakeTrackio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"training\.trackers: trackio is not installed; run `pip install trackio`"):
        check_trackers(["trackio"])
    monkeypatch.setattr(trackio, "init", lambda **_: 1 / 0)
    with (
        pytest.raises(DoppelError, match="trackio failed to start: division by zero"),
        tracking(["trackio"], tmp_path, RUN, PLAN, 0),
    ):
        pass

"""A training that is killed, whenever that is, ends with the adapter it would have had, bit for bit."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from io import BytesIO
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from doppel.adapters import versions
from doppel.adapters.versions import WEIGHTS, list_versions
from doppel.errors import DoppelError
from tests.processes import Child, Died
from tests.training.runs import metrics_of, small_config, small_run, weights_of
from training.lora.bits_per_byte import HeldOutScore
from training.run import checkpoints, completion_marker, trainer
from training.run import run as fitting
from training.run.checkpoints import list_checkpoints
from training.run.folders import run_folder
from training.run.publish import publish_adapter
from training.run.run import run_training
from training.run.run_state import RunFolder, lock_run_folder
from training.run.trainer import PersonaTrainer


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _move_and_die(staging: Path, target: Path) -> None:
    staging.rename(target)
    _die()


def _after(calls: int, function: Callable[..., Any], last: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is itself until the given call, which goes to `last`."""
    left = [calls]

    def counted(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        return (function if left[0] else last)(*arguments, **named)

    return counted


def _half_a_file(state: Any, path: str) -> None:
    content = BytesIO()
    torch.save(state, content)
    Path(path).write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    _die()


def _half_a_folder(path: Path, **_: Any) -> None:
    sorted(path.iterdir())[0].unlink()
    _die()


KILLS: dict[str, Callable[[int, pytest.MonkeyPatch], None]] = {
    "at a step": lambda at, patch: patch.setattr(PersonaTrainer, "_take", _after(at, PersonaTrainer._take, _die)),
    "at half a file of a checkpoint": lambda at, patch: patch.setattr(
        torch, "save", _after(at, torch.save, _half_a_file)
    ),
    "before a checkpoint is sealed": lambda at, patch: patch.setattr(
        checkpoints, "mark_complete", _after(at, checkpoints.mark_complete, _die)
    ),
    "while a checkpoint is sealed": lambda at, patch: patch.setattr(
        completion_marker, "fsync_path", _after(at, completion_marker.fsync_path, _die)
    ),
    "while an old checkpoint is removed": lambda at, patch: patch.setattr(
        checkpoints.shutil, "rmtree", _after(at, shutil.rmtree, _half_a_folder)
    ),
    "while it is published": lambda at, patch: patch.setattr(
        versions, "move_into_place", _after(at, versions.move_into_place, _move_and_die)
    ),
}


def _train(root: Path, base: Path, kill: str | None = None, at: int = 1, training: dict[str, Any] | None = None) -> int:
    """Trains in this process; returns how many steps it did."""
    steps = [0]
    with pytest.MonkeyPatch.context() as patch:
        whole = PersonaTrainer._take

        def step(*arguments: Any, **named: Any) -> None:
            steps[0] += 1
            whole(*arguments, **named)

        patch.setattr(fitting, "SampleReplies", lambda *_: list)  # they take the longest, and test_fit has them
        patch.setattr(PersonaTrainer, "_take", step)
        if kill is not None:
            KILLS[kill](at, patch)
        run_training(small_config(root, base, **(training or {})))
    return steps[0]


def _killed(root: Path, base: Path, kill: str, at: int, **training: Any) -> None:
    with pytest.raises(Died, match="-9"):
        Child(_train, (root, base, kill, at, training)).result()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> bytes:
    root = tmp_path_factory.mktemp("uninterrupted")
    config = small_run(root, tiny_base)
    assert Child(_train, (root, tiny_base)).result() == 12
    return weights_of(config)


def test_killed_again_and_again_it_ends_with_the_same_adapter(
    tmp_path: Path, tiny_base: Path, uninterrupted: bytes
) -> None:
    config = small_run(tmp_path, tiny_base)
    draw = random.Random(2)
    _killed(tmp_path, tiny_base, "at a step", draw.randint(1, 2))
    _killed(tmp_path, tiny_base, "at half a file of a checkpoint", 1)
    assert RunFolder(run_folder(config.data_dir), "").latest_checkpoint() is None
    _killed(tmp_path, tiny_base, "while a checkpoint is sealed", draw.randint(1, 7))
    _killed(tmp_path, tiny_base, "at a step", draw.randint(5, 8))
    _killed(tmp_path, tiny_base, "before a checkpoint is sealed", 1)
    _killed(tmp_path, tiny_base, "while an old checkpoint is removed", 1)
    _killed(tmp_path, tiny_base, "at a step", draw.randint(1, 3))
    _killed(tmp_path, tiny_base, "while it is published", 1)
    assert Child(_train, (tmp_path, tiny_base)).result() == 0
    assert weights_of(config) == uninterrupted
    assert [row.step for row in metrics_of(config) if row.loss is not None] == list(range(1, 13))
    assert not run_folder(config.data_dir).exists()


def _train_aloud(root: Path, base: Path, progress: Connection) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = PersonaTrainer._take

        def step(*arguments: Any, **named: Any) -> None:
            progress.send_bytes(b"step")
            whole(*arguments, **named)

        patch.setattr(fitting, "SampleReplies", lambda *_: list)
        patch.setattr(PersonaTrainer, "_take", step)
        run_training(small_config(root, base))


def test_killed_from_outside_at_random_moments_it_ends_with_the_same_adapter(
    tmp_path: Path, tiny_base: Path, uninterrupted: bytes
) -> None:
    config = small_run(tmp_path, tiny_base)
    draw = random.Random(5)
    for _ in range(3):
        ours, theirs = Pipe(duplex=False)
        child = Child(_train_aloud, (tmp_path, tiny_base, theirs))
        theirs.close()
        for _ in range(draw.randint(2, 6)):
            ours.recv_bytes()
        child.process.kill()  # in the middle of whatever it does
        with pytest.raises(Died, match="-9"):
            child.result()
    Child(_train, (tmp_path, tiny_base)).result()
    assert weights_of(config) == uninterrupted


def _train_in_vain(root: Path, base: Path, kill: str | None = None) -> int:
    """As `_train`, without any improvement from one check to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "score_in_parallel", lambda *_: HeldOutScore(2.0, 1.0, 10, 10))
        return _train(root, base, kill, 1, {"patience": 1})


def test_a_training_that_stopped_early_is_not_continued(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path, tiny_base, patience=1)
    with pytest.raises(Died, match="-9"):
        Child(_train_in_vain, (tmp_path, tiny_base, "while it is published")).result()
    assert [*list_checkpoints(run_folder(config.data_dir))] == [2, 4]
    assert Child(_train_in_vain, (tmp_path, tiny_base)).result() == 0
    metrics = metrics_of(config)
    assert max(row.step for row in metrics) == 4


def _train_worse_and_worse(root: Path, base: Path) -> None:
    """Each validation after the second is worse than the one before; the best adapter is copied to `best`."""
    scores = iter((3.0, 1.0, 2.0, 2.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "SampleReplies", lambda *_: list)
        patch.setattr(trainer, "score_in_parallel", lambda *_: HeldOutScore(next(scores), 1.0, 10, 10))
        config = small_config(root, base, patience=2)

        def keep_best(*arguments: Any, **named: Any) -> Path:
            shutil.copytree(run_folder(config.data_dir) / "checkpoint-4", root / "best")
            return publish_adapter(*arguments, **named)

        patch.setattr(fitting, "publish_adapter", keep_best)
        run_training(config)


def test_a_training_that_got_worse_ends_with_its_best_adapter(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path, tiny_base, patience=2)
    _train_worse_and_worse(tmp_path, tiny_base)
    assert max(row.step for row in metrics_of(config)) == 8
    assert weights_of(config) == (tmp_path / "best" / WEIGHTS).read_bytes()


def _train_with_checkpoints_at_every_step(root: Path, base: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.CheckpointClock, "is_due", lambda _: True)
        _train(root, base, "at a step", 6)


def test_a_power_cut_between_two_validations_costs_the_time_since_the_last_checkpoint(
    tmp_path: Path, tiny_base: Path, uninterrupted: bytes
) -> None:
    config = small_run(tmp_path, tiny_base)
    with pytest.raises(Died, match="-9"):
        Child(_train_with_checkpoints_at_every_step, (tmp_path, tiny_base)).result()
    assert 5 in list_checkpoints(run_folder(config.data_dir))
    assert Child(_train, (tmp_path, tiny_base)).result() == 7
    assert weights_of(config) == uninterrupted


def _train_slowly(root: Path, base: Path, kill: str, at: int, training: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        save = trainer.save_checkpoint

        def save_late(*arguments: Any) -> None:
            *others, state = arguments
            save(*others, msgspec.structs.replace(state, seconds=3600.0))

        patch.setattr(trainer, "save_checkpoint", save_late)
        _train(root, base, kill, at, training)


def test_the_time_used_before_counts(tmp_path: Path, tiny_base: Path) -> None:
    limited = {"minutes": 30}
    config = small_run(tmp_path, tiny_base, **limited)
    with pytest.raises(Died, match="-9"):
        Child(_train_slowly, (tmp_path, tiny_base, "at a step", 8, limited)).result()
    assert Child(_train, (tmp_path, tiny_base, None, 1, limited)).result() == 0
    assert metrics_of(config)[-1].step == 6


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """What is left of a training that was killed after its last checkpoint."""
    root = tmp_path_factory.mktemp("left")
    config = small_run(root, tiny_base)
    _killed(root, tiny_base, "while it is published", 1)
    assert list_versions(config.adapters_dir) == ["0001"]
    return run_folder(config.data_dir)


class TestCheckpoints:
    """Whole or not counted."""

    @pytest.fixture
    def work(self, left: Path, tmp_path: Path) -> RunFolder:
        shutil.copytree(left, tmp_path / "work")
        return RunFolder(tmp_path / "work", "")

    def test_the_newest_and_the_best_checkpoint_are_kept(self, work: RunFolder) -> None:
        assert 12 in list_checkpoints(work.folder)
        assert len(list_checkpoints(work.folder)) <= 2
        newest = work.latest_checkpoint()
        assert newest is not None
        assert newest.name == "checkpoint-12"

    def test_damage_to_any_file_is_seen(self, work: RunFolder) -> None:
        newest = work.folder / "checkpoint-12"
        names = sorted(path.name for path in newest.iterdir())
        assert {"adapter_model.safetensors", "optimizer.pt", "state.json"} < set(names)
        for name in names:
            content = (newest / name).read_bytes()
            (newest / name).write_bytes(content[:-1])
            assert not completion_marker.is_complete(newest), name
            (newest / name).unlink()
            assert not completion_marker.is_complete(newest), name
            (newest / name).write_bytes(content)
        assert completion_marker.is_complete(newest)
        (newest / "more").touch()
        assert not completion_marker.is_complete(newest)

    def test_a_damaged_checkpoint_is_removed_and_the_one_before_it_used(self, work: RunFolder) -> None:
        newest, older = work.folder / "checkpoint-12", work.folder / "checkpoint-3"
        shutil.copytree(newest, older)
        (older / "state.json").write_text('{"step": 3, "best_step": 3}')
        completion_marker.mark_complete(older)
        (newest / "optimizer.pt").write_bytes(b"")
        assert work.latest_checkpoint() == older
        assert not newest.exists()

    def test_a_checkpoint_whose_best_is_missing_is_not_used(self, work: RunFolder) -> None:
        for path in work.folder.glob("checkpoint-*"):
            (path / "state.json").write_text('{"step": 12, "best_step": 9}')
            completion_marker.mark_complete(path)
        assert work.latest_checkpoint() is None
        assert list_checkpoints(work.folder) == {}

    def test_other_folders_beside_the_checkpoints_are_left_alone(self, work: RunFolder) -> None:
        (work.folder / "checkpoint-of-mine").mkdir()
        assert work.latest_checkpoint() is not None
        assert (work.folder / "checkpoint-of-mine").is_dir()


def test_two_trainings_of_one_persona_cannot_run_at_once(tmp_path: Path, tiny_base: Path) -> None:
    config = small_run(tmp_path, tiny_base)
    with (
        lock_run_folder(run_folder(config.data_dir)),
        pytest.raises(DoppelError, match="in use by another `doppel train`"),
    ):
        run_training(config)
    RunFolder(run_folder(config.data_dir), "").folder.mkdir()
    (run_folder(config.data_dir) / "checkpoint-3").mkdir()
    with lock_run_folder(run_folder(config.data_dir)), pytest.raises(DoppelError, match="in use by another"):
        run_training(config, restart=True)
    assert (run_folder(config.data_dir) / "checkpoint-3").is_dir()

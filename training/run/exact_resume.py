"""transformers' Trainer, made exact: a checkpoint is whole or does not count, and it goes on as if never stopped.

It also leaves the model as it is, on its device and unwrapped, as the step itself sums gradients over processes.
Knows checkpoints; knows no examples.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, Trainer

from training.lora.distributed import ProcessGroup
from training.run.checkpoints import checkpoints
from training.run.completion_marker import mark_complete

_FORMER_NAMES = {"TrainingProgress": "Watch"}
"""Class names of callbacks under which trainings begun before 2027 store their state."""


class ResumableTrainer(Trainer):
    """A Trainer whose checkpoints are sealed; `ranks` are the processes it runs in."""

    ranks: ProcessGroup

    def create_accelerator_and_postprocess(self) -> None:
        """The library's, less the wrapping of the model for several processes."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = lambda model, **_: model

    def _wrap_model(self, model: torch.nn.Module, *_: Any, **__: Any) -> torch.nn.Module:
        """Not wrapped: on a machine with several GPUs the library would spread_sample every batch over them."""
        return model

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        """Not moved: it lies where it was loaded."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Writes a checkpoint and seals it; then, and only then, removes those that are no longer needed."""
        newest = self._checkpoint(self.state.global_step)
        try:
            super()._save_checkpoint(model, trial)
            self.ranks.collect(None)  # every process has written its random state
            if self.args.should_save:
                mark_complete(newest)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(newest, ignore_errors=True)
            raise
        if self.args.should_save:
            for step, path in checkpoints(newest.parent).items():
                if step not in (self.state.global_step, self.state.best_global_step):
                    shutil.rmtree(path, ignore_errors=True)

    def _load_callback_state(self) -> None:
        """Gives the callbacks what a checkpoint says of them. The library makes new ones, which nobody else holds."""
        states: Any = self.state.stateful_callbacks  # read from a file they are no list of callbacks
        for callback in self.callback_handler.callbacks:
            name = type(callback).__name__
            former = _FORMER_NAMES.get(name)
            if former in states:  # the next checkpoint is written under today's name
                states[name] = states.pop(former)
            saved = states.get(name, {"attributes": {}})
            for attribute, value in saved["attributes"].items():
                setattr(callback, attribute, value)
        if self.state.best_global_step:  # the checkpoint names it by its path; the folder may have been moved
            self.state.best_model_checkpoint = str(self._checkpoint(self.state.best_global_step))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Runs the steps, unless the checkpoint that training goes on from was the one it had ended with."""
        ended = self.control.should_training_stop or any(
            isinstance(one, EarlyStoppingCallback)
            and one.early_stopping_patience_counter >= one.early_stopping_patience
            for one in self.callback_handler.callbacks
        )
        if not ended:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _checkpoint(self, step: int) -> Path:
        assert self.args.output_dir is not None
        return Path(self.args.output_dir) / f"checkpoint-{step}"

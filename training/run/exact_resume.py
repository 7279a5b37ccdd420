"""transformers' Trainer with exact resuming: checkpoints are complete or ignored, and a resumed run changes nothing.

It also leaves the model unwrapped on its device, because the training step itself sums gradients over processes.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, Trainer

from training.lora.distributed import ProcessGroup
from training.run.checkpoints import list_checkpoints
from training.run.completion_marker import mark_complete

_FORMER_NAMES = {"TrainingProgress": "Watch"}
"""transformers stores a callback's state under its class name; these are names in checkpoints of earlier versions."""


class ExactResumeTrainer(Trainer):
    """A Trainer whose checkpoints are marked complete; `processes` are those that train together."""

    processes: ProcessGroup

    def create_accelerator_and_postprocess(self) -> None:
        """Keeps accelerate from wrapping the model for several processes."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = lambda model, **_: model

    def _wrap_model(self, model: torch.nn.Module, *_: Any, **__: Any) -> torch.nn.Module:
        """Keeps transformers from spreading every batch over all GPUs of the machine."""
        return model

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        """Does nothing: the model was loaded to its device."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Writes a checkpoint and marks it complete; only then removes those no longer needed."""
        newest = self._checkpoint_folder(self.state.global_step)
        try:
            super()._save_checkpoint(model, trial)
            self.processes.barrier()  # every process has written its random state
            if self.args.should_save:
                mark_complete(newest)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(newest, ignore_errors=True)
            raise
        if self.args.should_save:
            for step, path in list_checkpoints(newest.parent).items():
                if step not in (self.state.global_step, self.state.best_global_step):
                    shutil.rmtree(path, ignore_errors=True)

    def _load_callback_state(self) -> None:
        """Restores the state of our callbacks in place; the library would replace them by new ones."""
        states: Any = self.state.stateful_callbacks  # a dict when read from a file
        for callback in self.callback_handler.callbacks:
            name = type(callback).__name__
            former = _FORMER_NAMES.get(name)
            if former in states:  # the next checkpoint is written under today's name
                states[name] = states.pop(former)
            saved = states.get(name, {"attributes": {}})
            for attribute, value in saved["attributes"].items():
                setattr(callback, attribute, value)
        if self.state.best_global_step:  # stored as a path, and the folder may have been moved
            self.state.best_model_checkpoint = str(self._checkpoint_folder(self.state.best_global_step))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Runs the steps, unless the checkpoint to resume from is where the training had ended."""
        has_ended = self.control.should_training_stop or any(
            isinstance(callback, EarlyStoppingCallback)
            and callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
        )
        if not has_ended:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _checkpoint_folder(self, step: int) -> Path:
        assert self.args.output_dir is not None
        return Path(self.args.output_dir) / f"checkpoint-{step}"

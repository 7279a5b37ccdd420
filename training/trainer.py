"""transformers' Trainer, told what a step is: a list of micro-batches, the mean over all their supervised tokens.

Everything else (checkpoints, schedule, early stop, best checkpoint) is the library's. Knows examples and
a model with a LoRA; knows no persona and no terminal.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from training.bits import score
from training.examples import Example, Step, collate
from training.lora import token_losses
from training.optimizer import MasterAdamW
from training.parts import Parts
from training.plan import Plan

METRIC = "eval_bits_per_byte"


class PersonaTrainer(Trainer):
    """Trains a LoRA on planned steps and watches bits per byte on held-out examples.

    Args:
        model: the base with its LoRA.
        plan: the settings of this run.
        steps: every optimizer step of the run in order; a resumed run must be given the same ones.
        held_out: examples to validate on.
        pad_id: token id to pad with.
        folder: where checkpoints go.
        callbacks: progress, samples, interruption.
        parts: counts the seconds of validations.
    """

    def __init__(
        self,
        model: PeftModel,
        plan: Plan,
        *,
        steps: Sequence[Step],
        held_out: Sequence[Example],
        pad_id: int,
        folder: Path,
        callbacks: Sequence[TrainerCallback],
        parts: Parts,
    ) -> None:
        self.plan = plan
        self.adapted = model
        self.pad_id = pad_id
        self.parts = parts
        super().__init__(
            model=model,
            args=_arguments(plan, folder),
            train_dataset=list(steps),
            eval_dataset=list(held_out),
            data_collator=_only,  # type: ignore[arg-type]
            callbacks=[EarlyStoppingCallback(plan.patience), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # our callbacks show what is worth showing
        self.tokens_seen = 0

    def get_train_dataloader(self) -> "DataLoader[Step]":
        """The steps in their order; they were shuffled when they were planned."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_only)  # type: ignore[arg-type]

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with float32 state, whatever the adapter computes in."""
        if self.optimizer is None:
            trained = [parameter for parameter in self.adapted.parameters() if parameter.requires_grad]
            self.optimizer = MasterAdamW(trained, lr=self.args.learning_rate)
        return self.optimizer

    def training_step(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over a step's micro-batches; returns its mean loss in nats a supervised token."""
        model.train()
        supervised = sum(example.supervised for group in inputs for example in group)
        total = torch.zeros((), device=self.args.device)
        for group in inputs:
            losses, _ = token_losses(self.adapted, collate(group, self.pad_id))
            loss = losses.sum() / supervised
            self.accelerator.backward(loss)
            total += loss.detach()
        self.tokens_seen += sum(len(example.ids) for group in inputs for example in group)
        return total

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Bits per byte on the held-out examples, logged and given to the callbacks."""
        assert isinstance(self.eval_dataset, list)
        with self.parts("validations"):
            bits = score(self.adapted, self.eval_dataset, self.pad_id, self.plan.tokens_per_batch)
        metrics = {METRIC: bits.bits_per_byte, "eval_end_nats": bits.end_nats}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the library's estimate assumes one padded batch and a full head."""
        return 0


def _arguments(plan: Plan, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=plan.warmup_steps,
        max_grad_norm=1.0,
        eval_strategy="steps",
        eval_steps=plan.steps_between_checks,
        save_strategy="steps",
        save_steps=plan.steps_between_checks,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=METRIC,
        greater_is_better=False,
        logging_strategy="steps",
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
        seed=plan.seed,
        use_cpu=plan.device == "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
    )


def _only(batch: list[Step]) -> Step:
    return batch[0]

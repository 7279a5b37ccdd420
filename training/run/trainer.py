"""transformers' Trainer, told what a step is: a list of micro-batches, the mean over all their supervised tokens.

Schedule, early stop and best checkpoint are the library's. Knows examples and a model with a LoRA; knows no persona
and no terminal.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from training.lora.bits_per_byte import HeldOutScore, score
from training.lora.data_parallel import score_in_parallel, split_step
from training.lora.distributed import ProcessGroup
from training.lora.examples import Example, Step, collate
from training.lora.fsdp import is_sharded
from training.lora.model import token_losses
from training.lora.optimizer import MasterAdamW
from training.run.exact_resume import ResumableTrainer
from training.run.plan import TrainingPlan
from training.run.speed import compute_cost
from training.run.timings import PhaseTimer

METRIC = "eval_bits_per_byte"


class PersonaTrainer(ResumableTrainer):
    """Trains a LoRA on planned steps and watches bits per byte on held-out examples.

    Where several processes train together, each is given all of it, and computes its share of every step.

    Args:
        model: the base with its LoRA.
        plan: the settings of this run.
        steps: every optimizer step of the run in order; a resumed run must be given the same ones.
        held_out: examples to validate on.
        folder: where checkpoints go.
        callbacks: progress, samples, interruption.
        parts: counts the seconds of validations.
        ranks: the processes that train together.
        keeps_checkpoints: else the run cannot be gone on with, and ends with its last adapter instead of its best.
    """

    def __init__(
        self,
        model: PeftModel,
        plan: TrainingPlan,
        *,
        steps: Sequence[Step],
        held_out: Sequence[Example],
        folder: Path,
        callbacks: Sequence[TrainerCallback],
        parts: PhaseTimer,
        ranks: ProcessGroup,
        keeps_checkpoints: bool = True,
    ) -> None:
        self.plan = plan
        self.build_model = model
        self.ranks = ranks
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        ranks.align(self._trained)
        self._effort = compute_cost(model)
        self._is_split = is_sharded(model)
        self.parts = parts
        super().__init__(
            model=model,
            args=_arguments(plan, folder, keeps_checkpoints),
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
            self.optimizer = MasterAdamW(self._trained, lr=self.args.learning_rate)
        return self.optimizer

    def training_step(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over a step's micro-batches; returns its mean loss in nats a supervised token.

        Losses are summed and the gradients divided at the end, in float32: in half precision a token's share of the
        mean may be too small to be anything at all.
        """
        model.train()
        divided = split_step(inputs, self.ranks.count, self.plan.tokens_per_batch, self._work)
        mine = divided[self.ranks.number]
        total = torch.zeros((), device=self._trained[0].device)
        for group in mine:
            losses, _ = token_losses(self.build_model, collate(group))
            loss = losses.sum()
            self.accelerator.backward(loss)
            total += loss.detach()
        if self._is_split:  # a layer is gathered by all together, so whoever is done goes along and adds nothing
            for _ in range(max(map(len, divided)) - len(mine)):
                losses, _ = token_losses(self.build_model, collate(inputs[0][:1]))
                self.accelerator.backward(losses.sum() * 0)
        supervised = sum(example.supervised for group in inputs for example in group)
        self.tokens_seen += sum(len(example.ids) for group in inputs for example in group)
        return self.ranks.average(self._trained, total, supervised).to(self.args.device)

    def _work(self, example: Example) -> float:
        return self._effort.of([example])

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Bits per byte on the held-out examples, logged and given to the callbacks."""
        assert isinstance(self.eval_dataset, list)
        with self.parts("validations"):
            bits = score_in_parallel(self.ranks, self.build_model, self.eval_dataset, self._score)
        metrics = {METRIC: bits.bits_per_byte, "eval_end_nats": bits.end_nats}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _score(self, items: Sequence[Example]) -> HeldOutScore:
        return score(self.build_model, items, self.plan.tokens_per_batch)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the library's estimate assumes one padded batch and a full head."""
        return 0


def _arguments(plan: TrainingPlan, folder: Path, keeps_checkpoints: bool) -> TrainingArguments:
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
        save_strategy="steps" if keeps_checkpoints else "no",
        save_steps=plan.steps_between_checks,
        load_best_model_at_end=keeps_checkpoints,
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

"""transformers' Trainer with our training step: a list of micro-batches, the mean over all their supervised tokens.

The learning rate schedule, early stopping and the choice of the best checkpoint are the library's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from training.lora.bits_per_byte import HeldOutScore, score_examples
from training.lora.data_parallel import score_in_parallel, split_step
from training.lora.distributed import ProcessGroup
from training.lora.examples import Example, Step, collate, count_tokens
from training.lora.fsdp import is_sharded
from training.lora.model import token_losses
from training.lora.optimizer import MasterAdamW
from training.run.exact_resume import ExactResumeTrainer
from training.run.plan import TrainingPlan
from training.run.speed import compute_cost
from training.run.timings import PhaseTimer

METRIC = "eval_bits_per_byte"


class PersonaTrainer(ExactResumeTrainer):
    """Trains a LoRA on planned steps and validates bits per byte on held-out examples.

    If several processes train together, each is given all the steps and computes its share of each.

    Args:
        model: the base with its LoRA.
        plan: the settings of this run.
        steps: all optimizer steps of the run in order; the same ones for a resumed run.
        held_out: examples to validate on.
        folder: for checkpoints.
        callbacks: progress, metrics.
        timer: counts the time of validations.
        processes: that train together.
        save_checkpoints: without them the run cannot be resumed, and ends with its last adapter instead of its best.
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
        timer: PhaseTimer,
        processes: ProcessGroup,
        save_checkpoints: bool = True,
    ) -> None:
        self.plan = plan
        self.peft_model = model
        self.processes = processes
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        processes.broadcast_parameters(self._trained)
        self._cost = compute_cost(model)
        self._is_sharded = is_sharded(model)
        self.timer = timer
        super().__init__(
            model=model,
            args=_arguments(plan, folder, save_checkpoints),
            train_dataset=list(steps),
            eval_dataset=list(held_out),
            data_collator=_single,  # type: ignore[arg-type]
            callbacks=[EarlyStoppingCallback(plan.patience), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # our callbacks print instead
        self.tokens_seen = 0

    def get_train_dataloader(self) -> "DataLoader[Step]":
        """The steps in order; they were shuffled when planned."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_single)  # type: ignore[arg-type]

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with float32 state, whatever the dtype of the adapter."""
        if self.optimizer is None:
            self.optimizer = MasterAdamW(self._trained, lr=self.args.learning_rate)
        return self.optimizer

    def training_step(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over a step's micro-batches; returns the mean loss per supervised token, in nats.

        Losses are summed, and the gradients divided at the end in float32: in half precision a single token's share
        of the mean could underflow.
        """
        model.train()
        shares = split_step(inputs, self.processes.world_size, self.plan.tokens_per_batch, self._cost_of)
        own = shares[self.processes.rank]
        total = torch.zeros((), device=self._trained[0].device)
        for group in own:
            losses, _ = token_losses(self.peft_model, collate(group))
            loss = losses.sum()
            self.accelerator.backward(loss)
            total += loss.detach()
        if self._is_sharded:  # gathering a layer needs every process, so those with fewer batches add zeros
            for _ in range(max(map(len, shares)) - len(own)):
                losses, _ = token_losses(self.peft_model, collate(inputs[0][:1]))
                self.accelerator.backward(losses.sum() * 0)
        supervised = sum(example.supervised for group in inputs for example in group)
        self.tokens_seen += sum(map(count_tokens, inputs))
        return self.processes.average_gradients(self._trained, total, supervised).to(self.args.device)

    def _cost_of(self, example: Example) -> float:
        return self._cost.of([example])

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Scores the held-out examples, logs the result and passes it to the callbacks."""
        assert isinstance(self.eval_dataset, list)
        with self.timer.phase("validations"):
            score = score_in_parallel(self.processes, self.peft_model, self.eval_dataset, self._score)
        metrics = {METRIC: score.bits_per_byte, "eval_end_nats": score.end_nats}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _score(self, examples: Sequence[Example]) -> HeldOutScore:
        return score_examples(self.peft_model, examples, self.plan.tokens_per_batch)

    def floating_point_ops(self, inputs: Any) -> int:
        """Returns 0: the library's estimate assumes one padded batch and a full head."""
        return 0


def _arguments(plan: TrainingPlan, folder: Path, save_checkpoints: bool) -> TrainingArguments:
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
        save_strategy="steps" if save_checkpoints else "no",
        save_steps=plan.steps_between_checks,
        load_best_model_at_end=save_checkpoints,
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


def _single(batch: list[Step]) -> Step:
    return batch[0]

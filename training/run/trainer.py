"""The training loop: steps by the clock, validations, checkpoints, and exact resuming.

A run with the same plan and data ends with the same adapter, bit for bit, however often it was interrupted; only a time
limit makes it depend on the machine's speed.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import torch
from peft import PeftModel

from doppel.engine.local.out_of_memory import is_out_of_memory
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.terminal import print_status
from training.lora.bits_per_byte import HeldOutScore, score_examples
from training.lora.data_parallel import score_in_parallel, split_step
from training.lora.distributed import ProcessGroup
from training.lora.examples import Example, Step, collate, count_tokens, micro_batches
from training.lora.fsdp import is_sharded
from training.lora.memory import use_checkpointing
from training.lora.model import token_losses
from training.lora.optimizer import MasterAdamW
from training.lora.reduced_head import ReducedHead
from training.run.checkpoints import (
    CheckpointClock,
    TrainingState,
    checkpoint_folder,
    load_checkpoint,
    save_checkpoint,
)
from training.run.metrics import MetricsRow
from training.run.plan import TrainingPlan
from training.run.schedule import Schedule
from training.run.speed import compute_cost
from training.run.timings import PhaseTimer

_MAX_GRADIENT_NORM = 1.0


class PersonaTrainer:
    """Trains a LoRA on planned steps, and validates bits per byte on held-out examples.

    If several processes train together, each is given all the steps and computes its share of each.

    Args:
        model: the base with its LoRA.
        plan: the settings of this run.
        schedule: its end and its learning rate.
        head: to train with, instead of the model's own.
        steps: the optimizer steps of the run in order, at least as many as planned; the same ones for a resumed run.
        held_out: examples to validate on; none: no validation, and the last adapter is the result.
        folder: for checkpoints; None: the run cannot be resumed and does not return to its best adapter.
        listeners: are given a row for each step and each validation.
        timer: counts the time of steps, validations and checkpoints.
        processes: that train together.
        should_stop: whether the run was asked to stop, looked at after each step.
        clock: returns seconds.

    Attributes:
        state: how far the run has come.
        stopped: whether it was asked to stop before its end.
        tokens_here: trained on by this process, without those before an interruption.
    """

    def __init__(
        self,
        model: PeftModel,
        plan: TrainingPlan,
        schedule: Schedule,
        *,
        head: ReducedHead | None,
        steps: Iterable[Step],
        held_out: Sequence[Example],
        folder: Path | None,
        listeners: Sequence[Callable[[MetricsRow], None]],
        timer: PhaseTimer,
        processes: ProcessGroup,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.plan = plan
        self.processes = processes
        self.state = TrainingState()
        self.stopped = False
        self.tokens_here = 0
        self._schedule = schedule
        self._steps = steps
        self._held_out = held_out
        self._folder = folder
        self._listeners = listeners
        self._timer = timer
        self._should_stop = should_stop
        self._clock = clock
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._trained = list(self._parameters.values())
        processes.broadcast_parameters(self._trained)
        self._optimizer = MasterAdamW(self._trained, lr=plan.learning_rate)
        self._head = head
        self._tokens_per_batch = plan.tokens_per_batch
        self._is_checkpointing = plan.checkpointing
        if plan.checkpointing:
            use_checkpointing(model)
        self._cost = compute_cost(model, head)
        self._is_sharded = is_sharded(model)

    def train(self, checkpoint: Path | None = None) -> None:
        """Trains to the end of the run, or until it is asked to stop.

        Args:
            checkpoint: to resume from.

        Raises:
            DoppelError: the loss is no longer a number. OSError: a checkpoint cannot be written.
        """
        if checkpoint is not None:
            self.state = load_checkpoint(checkpoint, self._optimizer)
        self._began = self._clock() - self.state.seconds
        self._checkpoints = CheckpointClock(self._clock)
        self.model.train()
        with self._timer.phase("checkpoints"):
            for step in islice(self._steps, self.state.step, None):
                progress = self._agree(self._schedule.progress(self.state.step, self._seconds()))
                if progress >= 1 or self._has_stopped_improving():
                    break
                self._take(step, self._schedule.rate(progress))
                if self._agree(float(self._should_stop())):
                    self.stopped = True
                    self._save()
                    return
                if self._held_out and self.state.step % self.plan.steps_between_checks == 0:
                    self._validate()
                    self._save()
                elif self._agree(float(self._checkpoints.is_due())):
                    self._save()
            self._finish()

    def exact_weights(self) -> dict[str, torch.Tensor]:
        """The adapter's float32 weights by parameter name, of which the model computes with rounded copies."""
        return dict(zip(self._parameters, self._optimizer.masters, strict=True))

    def _take(self, step: Step, rate: float) -> None:
        """One optimizer step at a learning rate."""
        began = self._clock()
        with self._timer.phase("steps"):
            self._optimizer.param_groups[0]["lr"] = rate
            loss = float(self._accumulate(step))
            norm = float(torch.nn.utils.clip_grad_norm_(self._trained, _MAX_GRADIENT_NORM))
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise DoppelError(
                    tr(
                        "step {step}: the loss is no longer a number; set a lower training.learning_rate than {rate:g}",
                        step=self.state.step + 1,
                        rate=self.plan.learning_rate,
                    )
                )
            self._optimizer.step()
            self._optimizer.zero_grad()
        tokens = sum(map(count_tokens, step))
        self.tokens_here += tokens
        self._advance(step=self.state.step + 1, tokens=self.state.tokens + tokens, seconds=self._seconds())
        speed = tokens / max(1e-9, self._clock() - began)
        self._report(loss=loss, learning_rate=rate, grad_norm=norm, tokens_per_second=speed)

    def _accumulate(self, step: Step) -> torch.Tensor:
        """Forward and backward over a step's micro-batches; returns the mean loss per supervised token, in nats.

        Losses are summed, and the gradients divided at the end in float32: in half precision a single token's share
        of the mean could underflow.
        """
        shares = split_step(step, self.processes.world_size, self._tokens_per_batch, self._cost_of)
        own = shares[self.processes.rank]
        if own and self._tokens_per_batch < self.plan.tokens_per_batch:  # the steps are planned for the larger ones
            own = micro_batches([example for group in own for example in group], self._tokens_per_batch)
        total = self._sum_of_losses(own)
        if self._is_sharded:  # gathering a layer needs every process, so those with fewer batches add zeros
            for _ in range(max(map(len, shares)) - len(own)):
                losses, _ = token_losses(self.model, collate(step[0][:1]), self._head)
                (losses.sum() * 0).backward()
        supervised = sum(example.supervised for group in step for example in group)
        return self.processes.average_gradients(self._trained, total, supervised)

    def _sum_of_losses(self, groups: Step) -> torch.Tensor:
        """Forward and backward over micro-batches; with smaller ones, from now on, if these do not fit into memory."""
        total = torch.zeros((), device=self._trained[0].device)
        try:
            for group in groups:
                total += self._sum_of_group(group)
        except (RuntimeError, MemoryError) as error:  # only CUDA has a type of its own for it
            if self._is_sharded or not is_out_of_memory(error):  # others would wait for a sharded process's next layer
                raise
        else:
            return total
        self._optimizer.zero_grad()
        examples = [example for group in groups for example in group]
        self._use_less_memory(max(map(count_tokens, groups)), max(len(example.ids) for example in examples))
        return self._sum_of_losses(micro_batches(examples, self._tokens_per_batch))

    def _sum_of_group(self, group: Sequence[Example]) -> torch.Tensor:
        """Forward and backward over one micro-batch. Its graph goes with this frame, also if memory runs out."""
        losses, _ = token_losses(self.model, collate(group), self._head)
        loss = losses.sum()
        loss.backward()
        return loss.detach()

    def _use_less_memory(self, tokens: int, longest: int) -> None:
        """Halves the micro-batches, or computes layers twice where one conversation is too much.

        Args:
            tokens: of the largest micro-batch, which did not fit.
            longest: tokens of the longest example in it.
        """
        if tokens > longest:
            self._tokens_per_batch = tokens // 2
            print_status(tr("Not enough memory; going on with {tokens} tokens at a time.", tokens=tokens // 2))
        elif not self._is_checkpointing:
            self._is_checkpointing = True
            use_checkpointing(self.model)
            print_status(tr("Not enough memory; going on more slowly, computing each layer twice."))
        else:
            raise UserError(
                tr(
                    "not enough memory for a conversation of {tokens} tokens; set a lower training.max_length, "
                    "training.quantize: nf4 on a GPU, or a smaller model.base",
                    tokens=longest,
                )
            )
        if self.plan.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _validate(self) -> None:
        """Scores the held-out examples, and remembers whether that is the best score so far."""
        with self._timer.phase("validations"):
            score = score_in_parallel(self.processes, self.model, self._held_out, self._score)
        bits = score.bits_per_byte
        if self.state.best_bits is None or bits < self.state.best_bits:
            self._advance(best_step=self.state.step, best_bits=bits, checks_since_best=0)
        else:
            self._advance(checks_since_best=self.state.checks_since_best + 1)
        self._report(bits_per_byte=bits, end_nats=score.end_nats)

    def _finish(self) -> None:
        """Returns to the best adapter if training had stopped to improve, else validates the last one.

        A run with a time limit is over: its adapter is scored on the test messages next.
        """
        if self._has_stopped_improving():
            if self._folder is not None and self.state.best_step is not None:
                load_checkpoint(checkpoint_folder(self._folder, self.state.best_step), self._optimizer)
        elif self._held_out and self._schedule.seconds is None and self.state.step % self.plan.steps_between_checks:
            self._validate()

    def _has_stopped_improving(self) -> bool:
        return self.state.checks_since_best >= self.plan.patience

    def _save(self) -> None:
        """Writes a checkpoint and removes those no longer needed."""
        if self._folder is None:
            return
        self._advance(seconds=self._seconds())
        if self.processes.is_main:
            with self._checkpoints.writing():
                save_checkpoint(self._folder, self.model, self.exact_weights(), self._optimizer, self.state)
        self.processes.barrier()

    def _score(self, examples: Sequence[Example]) -> HeldOutScore:
        return score_examples(self.model, examples, self.plan.tokens_per_batch)

    def _cost_of(self, example: Example) -> float:
        return self._cost.of([example])

    def _seconds(self) -> float:
        return self._clock() - self._began

    def _agree(self, value: float) -> float:
        """The largest of all processes' values, so that all decide alike."""
        return max(self.processes.all_gather(value))

    def _advance(self, **changes: float) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)

    def _report(self, **values: float) -> None:
        """Gives the listeners a row."""
        state = self.state
        epoch = round(self.plan.epochs * state.step / self.plan.steps, 4)
        row = MetricsRow(step=state.step, epoch=epoch, tokens=state.tokens, seconds=round(state.seconds, 3), **values)
        for listener in self._listeners:
            listener(row)

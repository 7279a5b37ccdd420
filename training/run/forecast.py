"""What a training will do, how long it will take and how much memory: `doppel train --plan`.

Loads what a training loads, does one of each thing that it does, and counts how often it will do it. Trains nothing
and leaves nothing behind.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from peft import PeftModel

import training.run.trainer  # noqa: F401  # a training has it in memory: a tenth of a gigabyte
from doppel.config import Config
from doppel.models.base import choose_device
from doppel.system.memory import peak_memory, total_memory
from doppel.terminal import silence
from training.lora.distributed import ProcessGroup, join_processes
from training.lora.examples import Example, Step, micro_batches, plan_steps, spread_sample
from training.lora.fsdp import is_sharded
from training.lora.samples import SampleReplies
from training.run.checkpoints import checkpoints
from training.run.completion_marker import is_complete
from training.run.plan import TrainingPlan, optimizer_steps
from training.run.setup import PreparedRun, TrainingSetup, build_model, measure_and_plan, prepare_run, settings_for
from training.run.speed import (
    Clock,
    compute_cost,
    scoring_seconds_per_mac,
    time_step_and_checkpoint,
    training_seconds_per_mac,
)
from training.run.timings import PhaseTimer


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What is going to happen.

    Attributes:
        plan: the settings, and the reasons of those that were chosen.
        goes_on_from: step at which an interrupted training goes on; 0 for a new one.
        sessions, messages, tokens: what there is to train on.
        parts: seconds by part, if training does not stop early.
        peak_memory_bytes: of the device; None where nobody can tell.
        memory_bytes: of the device in all.
        samples_replay: text for replay may have to be sampled first, which takes time that is not in `parts`.
    """

    plan: TrainingPlan
    goes_on_from: int
    sessions: int
    messages: int
    tokens: int
    parts: dict[str, float]
    peak_memory_bytes: int | None
    memory_bytes: int | None
    samples_replay: bool

    @property
    def seconds(self) -> float:
        """Of all parts together."""
        return sum(self.parts.values())

    def result(self) -> dict[str, Any]:
        """What `doppel train --plan --json` prints."""
        parts = {name: round(seconds, 2) for name, seconds in self.parts.items()}
        return {**msgspec.to_builtins(self), "parts": parts, "seconds": round(self.seconds, 1)}


def forecast(config: Config, *, first_run: bool, origin: str | None, restart: bool) -> Forecast | None:
    """Measures and counts; see `prepare_run` for what it raises. None in a process of several that does not lead.

    Args:
        config: the configuration.
        first_run: keep to `training.first_run_minutes`.
        origin: the version or folder of an adapter to train on from.
        restart: as if there were no interrupted training.
    """
    with join_processes(choose_device(config.model.device)) as ranks:
        if not ranks.leads:
            silence()
        parts = PhaseTimer()
        with parts("load"):
            opened = prepare_run(config, first_run=first_run, origin=origin, ranks=ranks)
        if restart:
            opened = msgspec.structs.replace(opened, started=None)
        share = 0.0 if first_run else config.training.replay
        material = _with_stand_ins(opened.material, share)
        with parts("measure"):
            model, plan = _model_and_plan(config, opened, material)
        done = _done(opened.work.folder) if opened.started else 0
        seconds = _count(opened, material, model, plan, done)
        peak = _most(ranks, peak_memory(plan.device))
        if not ranks.leads:
            return None
        return Forecast(
            plan=plan,
            goes_on_from=done,
            sessions=len(material.sessions["train"]),
            messages=material.messages,
            tokens=sum(len(example.ids) for example in material.train),
            parts={**parts.seconds, **seconds},
            peak_memory_bytes=peak,
            memory_bytes=total_memory(plan.device),
            samples_replay=share > 0,
        )


def _done(folder: Path) -> int:
    """The step of the newest whole checkpoint. Only looked at: a training may be writing there at this moment."""
    return max((step for step, path in checkpoints(folder).items() if is_complete(path)), default=0)


def _model_and_plan(config: Config, opened: PreparedRun, material: TrainingSetup) -> tuple[PeftModel, TrainingPlan]:
    if opened.started:
        plan = opened.started.plan
        return build_model(config, opened.base, plan.rank, plan.alpha, opened.start), plan
    settings = settings_for(config, material, opened.base, opened.start)
    model = build_model(config, opened.base, settings.rank.value, settings.alpha.value, opened.start)
    return model, material.ranks.tell(measure_and_plan(config, settings, material, model))


def _count(
    opened: PreparedRun, material: TrainingSetup, model: PeftModel, plan: TrainingPlan, done: int
) -> dict[str, float]:
    """Seconds of every part but loading; `done` steps are behind us."""
    clock, work, count = Clock(plan.device), compute_cost(model), material.ranks.count
    epoch = plan_steps(material.train, plan.sessions_per_step, plan.tokens_per_batch, plan.seed)
    if opened.started:
        unit = training_seconds_per_mac(model, epoch, clock)
    else:
        unit = sum(len(one.ids) for one in material.train) / plan.tokens_per_second / work.of(material.train) * count
    step, write = time_step_and_checkpoint(model, epoch, clock)
    held_out = spread_sample(material.validation, plan.check_tokens)
    score = (
        scoring_seconds_per_mac(model, micro_batches([*held_out, *material.test], plan.tokens_per_batch), clock) / count
    )
    steps = optimizer_steps(plan, material.train)[done:]
    checks = _checks(plan, done)
    before = 0 if opened.started else 2 if opened.start else 1
    seconds = {
        "score_before": before * score * work.of(material.test),
        "steps": unit / count * _work(model, steps) + len(steps) * step,
        "validations": checks * score * work.of(held_out),
        "samples": checks * _sample_seconds(material, model, plan, clock),
        "checkpoints": checks * write,
        "score_after": score * work.of(material.test),
        "publish": write,
    }
    return {**seconds, "measure": 0.0} if opened.started else seconds


def _checks(plan: TrainingPlan, done: int) -> int:
    """Validations to come; the last step is always one."""
    return -(-plan.steps // plan.steps_between_checks) - done // plan.steps_between_checks


def _work(model: PeftModel, steps: Sequence[Step]) -> float:
    work = compute_cost(model)
    return sum(work.of(group) for step in steps for group in step)


def _sample_seconds(material: TrainingSetup, model: PeftModel, plan: TrainingPlan, clock: Clock) -> float:
    base = model.get_base_model()
    if is_sharded(base):
        return 0.0
    situations = material.sessions["validation"] or material.sessions["train"]
    return clock.time(SampleReplies(base, material.transcript, situations, 2, plan.seed))  # type: ignore[arg-type]


def _with_stand_ins(material: TrainingSetup, share: float) -> TrainingSetup:
    """The material with as much replay as there will be: the owner's tokens in its place, with loss on all of them."""
    if not share:
        return material
    tokens = round(sum(len(example.ids) for example in material.train) * share / (1 - share))
    stand_ins = [Example(one.ids, [0] + [1] * (len(one.ids) - 1), 0) for one in spread_sample(material.train, tokens)]
    return msgspec.structs.replace(material, train=[*material.train, *stand_ins])


def _most(ranks: ProcessGroup, value: int | None) -> int | None:
    values = ranks.collect(value)
    return None if None in values else max(one for one in values if one is not None)

"""`doppel train --plan`: what a training will do, how long it will take, and how much memory it will need.

Loads what a training loads, runs one of each operation that it performs, and counts how often each will be performed.
Trains nothing and leaves no files.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from peft import PeftModel
from rich.table import Table

from doppel.config import Config
from doppel.i18n import tr
from doppel.models.base import choose_device
from doppel.system.memory import gigabytes, peak_memory, total_memory
from doppel.terminal import silence
from training.lora.distributed import ProcessGroup, join_processes
from training.lora.examples import Example, Step, count_tokens, micro_batches, plan_steps, spread_sample
from training.lora.fsdp import is_sharded
from training.lora.reduced_head import ReducedHead, reduce_head
from training.lora.samples import SampleReplies
from training.run.checkpoints import list_checkpoints
from training.run.completion_marker import is_complete
from training.run.plan import TrainingPlan, optimizer_steps
from training.run.report import duration, setting_rows
from training.run.setup import (
    PreparedRun,
    TrainingSetup,
    add_examples,
    build_model,
    choose_hyperparameters,
    measure_and_plan,
    prepare_run,
)
from training.run.speed import (
    ComputeCost,
    DeviceTimer,
    compute_cost,
    scoring_seconds_per_mac,
    time_step_and_checkpoint,
    training_seconds_per_mac,
)
from training.run.timings import PHASES, PhaseTimer, phase_title

_MEMORY_MARGIN = 0.95  # of the device's memory can be used


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a training will do.

    Attributes:
        plan: its settings, and the reasons of those that were chosen.
        resumes_from: step of an interrupted training; 0 for a new one.
        sessions, messages, tokens: what there is to train on.
        phases: seconds by phase, if training does not stop early.
        peak_memory_bytes: of the device; None if unknown.
        memory_bytes: the device's total memory; None if unknown.
        samples_replay: whether replay text may have to be sampled first, which takes time not in `phases`.
    """

    plan: TrainingPlan
    resumes_from: int = msgspec.field(name="goes_on_from")
    sessions: int
    messages: int
    tokens: int
    phases: dict[str, float] = msgspec.field(name="parts")
    peak_memory_bytes: int | None
    memory_bytes: int | None
    samples_replay: bool

    @property
    def seconds(self) -> float:
        """Of all phases together."""
        return sum(self.phases.values())

    def result(self) -> dict[str, Any]:
        """What `doppel train --plan --json` prints."""
        phases = {name: round(seconds, 2) for name, seconds in self.phases.items()}
        return {**msgspec.to_builtins(self), "parts": phases, "seconds": round(self.seconds, 1)}


def make_forecast(config: Config, *, first_run: bool, start_from: str | None, restart: bool) -> Forecast | None:
    """Measures and counts. Returns None in every process but the main one.

    Args:
        config: the configuration.
        first_run: use the time limit `training.first_run_minutes`.
        start_from: version or folder of an adapter to start from.
        restart: ignore an interrupted training.

    Raises:
        As `prepare_run`.
    """
    with join_processes(choose_device(config.model.device)) as processes:
        if not processes.is_main:
            silence()
        timer = PhaseTimer()
        with timer.phase("load"):
            prepared = prepare_run(config, first_run=first_run, start_from=start_from, processes=processes)
        if restart:
            prepared = msgspec.structs.replace(prepared, state=None)
        setup = _with_mock_replay(prepared.setup)
        with timer.phase("measure"):
            head = reduce_head(prepared.base, setup.train, setup.settings.seed)
            model, plan = _model_and_plan(prepared, setup, head)
        steps_done = _steps_done(prepared.folder.folder) if prepared.state else 0
        seconds = _seconds_by_phase(prepared, setup, model, plan, head=head, steps_done=steps_done)
        peak = _max_over_processes(processes, peak_memory(plan.device))
        if not processes.is_main:
            return None
        return Forecast(
            plan=plan,
            resumes_from=steps_done,
            sessions=len(setup.sessions["train"]),
            messages=setup.messages,
            tokens=count_tokens(setup.train),
            phases={**timer.seconds, **seconds},
            peak_memory_bytes=peak,
            memory_bytes=total_memory(plan.device),
            samples_replay=setup.settings.replay > 0,
        )


def settings_table(forecast: Forecast) -> Table:
    """Each setting with its value and the reason for it."""
    table = Table(title=tr("Settings"), title_justify="left")
    for title in (tr("setting"), tr("value"), tr("chosen because")):
        table.add_column(title, overflow="fold")
    for row in setting_rows(forecast.plan):
        table.add_row(*row)
    return table


def time_table(forecast: Forecast) -> Table:
    """Each phase of the training with its time."""
    table = Table(title=tr("Estimated time"), title_justify="left", show_footer=True)
    table.add_column(tr("phase"), tr("total"))
    table.add_column(tr("time"), duration(forecast.seconds), justify="right")
    for name in PHASES:
        if forecast.phases[name] >= 0.05:
            table.add_row(phase_title(name), duration(forecast.phases[name]))
    return table


def summary_lines(forecast: Forecast) -> list[str]:
    """Data, early stopping, resuming, replay and memory, one line each."""
    plan = forecast.plan
    lines = [
        tr(
            "{messages} messages of yours in {sessions} conversations, {tokens} tokens; {steps} steps on {device} in "
            "{dtype}, {speed:.0f} tokens per second.",
            messages=f"{forecast.messages:,}",
            sessions=f"{forecast.sessions:,}",
            tokens=f"{forecast.tokens:,}",
            steps=f"{plan.steps:,}",
            device=plan.device,
            dtype=plan.dtype,
            speed=plan.tokens_per_second,
        ),
        tr("Stops early after {checks} checks in a row without improvement.", checks=plan.patience),
    ]
    if forecast.resumes_from:
        lines.append(tr("Resumes an interrupted training from step {step}.", step=forecast.resumes_from))
    if forecast.samples_replay:
        lines.append(tr("Sampling text for replay is not included; it is done once and cached."))
    if forecast.peak_memory_bytes is not None:
        lines.append(_memory_line(forecast.peak_memory_bytes, forecast.memory_bytes))
    return lines


def _memory_line(peak: int, total: int | None) -> str:
    if total is None:
        return tr("Memory: about {peak}.", peak=gigabytes(peak))
    if peak > total * _MEMORY_MARGIN:
        return tr(
            "Memory: needs about {peak}, found {total}; use a smaller base model, or lower training.max_length or "
            "training.rank.",
            peak=gigabytes(peak),
            total=gigabytes(total),
        )
    return tr("Memory: about {peak} of {total}.", peak=gigabytes(peak), total=gigabytes(total))


def _steps_done(folder: Path) -> int:
    """The step of the newest complete checkpoint. Changes nothing, as a training may be running there."""
    return max((step for step, path in list_checkpoints(folder).items() if is_complete(path)), default=0)


def _model_and_plan(
    prepared: PreparedRun, setup: TrainingSetup, head: ReducedHead | None
) -> tuple[PeftModel, TrainingPlan]:
    base, start = prepared.base, prepared.start
    if prepared.state:
        plan = prepared.state.plan
        return build_model(setup, base, plan.rank, plan.alpha, start), plan
    hyperparameters = choose_hyperparameters(setup, base, start)
    model = build_model(setup, base, hyperparameters.rank.value, hyperparameters.alpha.value, start)
    return model, setup.processes.broadcast(measure_and_plan(setup, hyperparameters, model, head))


def _seconds_by_phase(
    prepared: PreparedRun,
    setup: TrainingSetup,
    model: PeftModel,
    plan: TrainingPlan,
    *,
    head: ReducedHead | None,
    steps_done: int,
) -> dict[str, float]:
    """Seconds of every phase but loading, after the first `steps_done` steps."""
    timer, world_size = DeviceTimer(plan.device), setup.processes.world_size
    cost, training_cost = compute_cost(model), compute_cost(model, head)
    epoch = list(plan_steps(setup.train, plan.sessions_per_step, plan.tokens_per_batch))
    if prepared.state:
        train_mac = training_seconds_per_mac(model, epoch, timer, head=head)
    else:
        train_mac = count_tokens(setup.train) / plan.tokens_per_second / training_cost.of(setup.train) * world_size
    step, checkpoint = time_step_and_checkpoint(model, epoch, timer, head)
    held_out = spread_sample(setup.validation, plan.check_tokens)
    scored = micro_batches([*held_out, *setup.test], plan.tokens_per_batch)
    score_mac = scoring_seconds_per_mac(model, scored, timer) / world_size
    steps = list(islice(optimizer_steps(plan, setup.epochs), steps_done, plan.steps))
    checks = _remaining_checks(plan, steps_done)
    scores_before = 0 if prepared.state else 2 if prepared.start else 1
    seconds = {
        "score_before": scores_before * score_mac * cost.of(setup.test),
        "steps": train_mac / world_size * _cost_of_steps(training_cost, steps) + len(steps) * step,
        "validations": checks * score_mac * cost.of(held_out),
        "samples": checks * _sample_seconds(setup, model, plan, timer),
        "checkpoints": checks * checkpoint,
        "score_after": score_mac * cost.of(setup.test),
        "publish": checkpoint,
    }
    return {**seconds, "measure": 0.0} if prepared.state else seconds


def _remaining_checks(plan: TrainingPlan, steps_done: int) -> int:
    """Validations still to come; the last step always has one."""
    return -(-plan.steps // plan.steps_between_checks) - steps_done // plan.steps_between_checks


def _cost_of_steps(cost: ComputeCost, steps: Sequence[Step]) -> float:
    return sum(cost.of(group) for step in steps for group in step)


def _sample_seconds(setup: TrainingSetup, model: PeftModel, plan: TrainingPlan, timer: DeviceTimer) -> float:
    base = model.get_base_model()
    if is_sharded(base):
        return 0.0
    sessions = setup.sessions["validation"] or setup.sessions["train"]
    return timer.time(SampleReplies(base, setup.transcript, sessions, 2, plan.seed))  # type: ignore[arg-type]


def _with_mock_replay(setup: TrainingSetup) -> TrainingSetup:
    """The setup with the owner's tokens in place of replay text, as many, with loss on all of them."""
    share = setup.settings.replay
    if not share:
        return setup
    tokens = round(count_tokens(setup.train) * share / (1 - share))
    sample = spread_sample(setup.train, tokens)
    replay = [Example(example.ids, [0] + [1] * (len(example.ids) - 1), 0) for example in sample]
    return add_examples(setup, replay)


def _max_over_processes(processes: ProcessGroup, value: int | None) -> int | None:
    values = processes.all_gather(value)
    return None if None in values else max(number for number in values if number is not None)

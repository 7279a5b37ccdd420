"""From a data set to a published adapter: load, score, plan, train, score again, publish."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import PeftModel

from doppel.adapters.checkpoint import describe_checkpoints
from doppel.adapters.habits import read_habits
from doppel.adapters.versions import Manifest
from doppel.config import Config
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.models.base import choose_device
from doppel.system.memory import peak_memory
from doppel.system.write_errors import translate_write_errors
from doppel.terminal import print_status, progress, silence
from training.lora.bits_per_byte import HeldOutScore, score_examples
from training.lora.data_parallel import score_in_parallel
from training.lora.distributed import ProcessGroup, join_processes
from training.lora.examples import count_tokens, spread_sample
from training.lora.fsdp import is_sharded
from training.lora.packing import tokens_per_batch
from training.lora.reduced_head import ReducedHead, reduce_head
from training.lora.samples import SampleReplies
from training.run.checkpoints import read_state
from training.run.folders import run_folder, tracking_folder
from training.run.metrics import FILE as METRICS
from training.run.metrics import MetricsRow, append_metrics, truncate_metrics
from training.run.plan import TrainingPlan, optimizer_steps, schedule_of
from training.run.progress import StopRequest, TrainingProgress, stop_on_signals
from training.run.publish import make_manifest, publish_adapter
from training.run.report import duration, report_sections
from training.run.run_state import RunFolder, RunState, lock_run_folder
from training.run.setup import (
    PreparedRun,
    TrainingSetup,
    build_model,
    choose_hyperparameters,
    measure_and_plan,
    prepare_run,
    with_replay,
)
from training.run.timings import PhaseTimer
from training.run.trackers import check_trackers, tracking
from training.run.trainer import PersonaTrainer

_SAMPLES = 2


class TrainingInterrupted(DoppelError):
    """The user stopped the run; it can be resumed."""

    exit_code = 130


def run_training(
    config: Config,
    *,
    first_run: bool = False,
    start_from: str | None = None,
    restart: bool = False,
    in_use: bool = True,
) -> dict[str, Any]:
    """Trains on `data/<persona>/` and publishes the adapter; resumes an interrupted run.

    Args:
        config: the configuration.
        first_run: use the time limit `training.first_run_minutes`.
        start_from: version or folder of an adapter to start from.
        restart: discard an interrupted run.
        in_use: whether the adapter comes into use at once, or is only published.

    Returns:
        What `doppel train --json` prints; empty in every process but the main one.

    Raises:
        UserError: there is no data set, or too little in it. AdapterRefused: `start_from` cannot be trained on.
        DoppelError: another process trains there, or something cannot be written.
        TrainingInterrupted: a signal stopped the run.
    """
    folder = run_folder(config.data_dir)
    with join_processes(choose_device(config.model.device)) as processes:
        if processes.is_main:
            with lock_run_folder(folder):
                if restart:
                    shutil.rmtree(folder, ignore_errors=True)
                return _run(config, processes, first_run=first_run, start_from=start_from, in_use=in_use)
        silence()
        with suppress(TrainingInterrupted):  # the main process reports it
            _run(config, processes, first_run=first_run, start_from=start_from, in_use=in_use)
        return {}


def _run(
    config: Config, processes: ProcessGroup, *, first_run: bool, start_from: str | None, in_use: bool
) -> dict[str, Any]:
    timer = PhaseTimer()
    check_trackers(config.training.trackers)
    with timer.phase("load"):
        prepared = prepare_run(config, first_run=first_run, start_from=start_from, processes=processes)
        setup = with_replay(prepared.setup, prepared.base)
        head = reduce_head(prepared.base, setup.train, setup.settings.seed)
    model, state = _start_or_resume(prepared, setup, head, timer)
    manifest = make_manifest(config.persona.name, config.archive_digest, setup, state)
    _print_plan(state.plan, setup)
    trainer = _train(model, state, setup, prepared.folder, head=head, manifest=manifest, timer=timer)
    with timer.phase("score_after"):
        score = _score(model, setup, tr("Scoring the adapter"))
    if not processes.is_main:
        return {}
    with timer.phase("publish"):
        report = report_sections(state, score, setup.run_folder, timer)
        adapter = publish_adapter(
            config.adapters_dir,
            model,
            trainer.exact_weights(),
            manifest,
            setup,
            score=score,
            report=report,
            in_use=in_use,
        )
        prepared.folder.remove()
    _print_result(state, score, adapter)
    return _result(state, score, adapter, trainer, timer)


def _start_or_resume(
    prepared: PreparedRun, setup: TrainingSetup, head: ReducedHead | None, timer: PhaseTimer
) -> tuple[PeftModel, RunState]:
    """The model to train and the state of its run, which a new run stores in its folder."""
    base, start, state = prepared.base, prepared.start, prepared.state
    if state is not None:
        with timer.phase("measure"):
            return build_model(setup, base, state.plan.rank, state.plan.alpha, start), state
    with timer.phase("score_before"):
        base_score = _score(base, setup, tr("Scoring the base model"))
    with timer.phase("measure"):
        hyperparameters = choose_hyperparameters(setup, base, start)
        model = build_model(setup, base, hyperparameters.rank.value, hyperparameters.alpha.value, start)
    with timer.phase("score_before"):
        parent_score = _score(model, setup, tr("Scoring the adapter to start from")) if start else None
    with timer.phase("measure"):
        plan = setup.processes.broadcast(measure_and_plan(setup, hyperparameters, model, head))
        if setup.processes.is_main:
            state = prepared.folder.start(plan, base_score, start.parent if start else None, parent_score)
        state = setup.processes.broadcast(state)
        assert state is not None
    return model, state


def _train(
    model: PeftModel,
    state: RunState,
    setup: TrainingSetup,
    folder: RunFolder,
    *,
    head: ReducedHead | None,
    manifest: Manifest,
    timer: PhaseTimer,
) -> PersonaTrainer:
    """Trains from the latest checkpoint to the end of the plan. Raises TrainingInterrupted."""
    plan, processes = state.plan, setup.processes
    checkpoint = processes.broadcast(folder.latest_checkpoint() if processes.is_main else None)
    step = read_state(checkpoint).step if checkpoint else 0
    with (
        timer.phase("checkpoints"),
        _listeners(model, setup, plan, step, timer) as (listeners, stop),
        translate_write_errors(folder.folder),
    ):
        trainer = PersonaTrainer(
            model,
            plan,
            schedule_of(plan, setup.minutes, setup.train),
            head=head,
            steps=optimizer_steps(plan, setup.epochs),
            held_out=spread_sample(setup.validation, plan.check_tokens),
            folder=folder.folder,
            listeners=listeners,
            timer=timer,
            processes=processes,
            should_stop=lambda: stop.requested,
        )
        if processes.is_main:
            describe_checkpoints(folder.folder, manifest, read_habits(setup.data_dir))
        if checkpoint is not None:
            print_status(tr("Resuming from step {step}.", step=step))
        trainer.train(checkpoint)
    if trainer.stopped:
        raise TrainingInterrupted(
            tr(
                "stopped at step {step} of {steps}; run `doppel train` again to resume",
                step=trainer.state.step,
                steps=plan.steps,
            )
        )
    return trainer


@contextmanager
def _listeners(
    model: PeftModel, setup: TrainingSetup, plan: TrainingPlan, step: int, timer: PhaseTimer
) -> Iterator[tuple[list[Callable[[MetricsRow], None]], StopRequest]]:
    """Draws the progress; the main process also writes metrics.jsonl and feeds the trackers of config.yaml."""
    with progress() as bar, stop_on_signals() as stop:
        shown = TrainingProgress(bar, plan, step, samples=_sampler(model, setup, plan), stop=stop, timer=timer)
        if not setup.processes.is_main:
            yield [shown.log], stop
            return
        metrics, run_name = setup.run_folder / METRICS, plan.began_at.replace(":", "-").partition("+")[0]
        truncate_metrics(metrics, step)
        with tracking(setup.settings.trackers, tracking_folder(setup.data_dir), run_name, plan, step) as trackers:
            yield [partial(append_metrics, metrics), *(tracker.log for tracker in trackers), shown.log], stop


def _sampler(model: PeftModel, setup: TrainingSetup, plan: TrainingPlan) -> Callable[[], list[str]]:
    base = model.get_base_model()
    if not setup.processes.is_main or is_sharded(base):  # a sharded base generates only if every process does
        return list
    sessions = setup.sessions["validation"] or setup.sessions["train"]
    return SampleReplies(base, setup.transcript, sessions, _SAMPLES, plan.seed)  # type: ignore[arg-type]


def _score(model: torch.nn.Module, setup: TrainingSetup, title: str) -> HeldOutScore | None:
    """The score on the test examples, with a progress bar; None if there are none."""
    if not setup.test:
        return None
    tokens = count_tokens(setup.test)
    own_tokens = tokens if is_sharded(model) else tokens // setup.processes.world_size
    with progress() as bar:
        task = bar.add_task(title, total=own_tokens, rate="")
        on_progress: Callable[[int], None] = lambda count: bar.update(task, advance=count)  # noqa: E731
        score_share = partial(score_examples, model, tokens_per_batch=tokens_per_batch(model), on_progress=on_progress)
        score = score_in_parallel(setup.processes, model, setup.test, score_share)
        bar.update(task, completed=own_tokens)
        return score


def _print_plan(plan: TrainingPlan, setup: TrainingSetup) -> None:
    if unanswered := setup.epochs.unanswered:
        print_status(
            tr(
                "{count} conversations that nobody answered are left out: they would teach it to repeat itself.",
                count=f"{unanswered:,}",
            )
        )
    tokens = count_tokens(setup.train)
    print_status(
        tr(
            "Training a LoRA of rank {rank} on {device} in {dtype}: {steps} steps, {epochs:.2f} epochs of {tokens} "
            "tokens, learning rate {rate:g}; about {time}",
            rank=plan.rank,
            device=plan.device,
            dtype=plan.dtype,
            steps=plan.steps,
            epochs=plan.epochs,
            tokens=f"{tokens:,}",
            rate=plan.learning_rate,
            time=duration(tokens * plan.epochs / plan.tokens_per_second),
        )
    )


def _print_result(state: RunState, score: HeldOutScore | None, adapter: Path) -> None:
    if score is None or state.base_score is None:
        print_status(tr("Not measured: the archive is too small to hold messages back for a test."))
    else:
        _print_scores(state.base_score, state.parent_score, score)
    print_status(tr("Published {path}", path=adapter))


def _print_scores(base: HeldOutScore, parent: HeldOutScore | None, score: HeldOutScore) -> None:
    base_bits, bits = base.bits_per_byte, score.bits_per_byte
    print_status(
        tr(
            "Bits per byte on the test messages: {before:.3f} → {after:.3f} ({change:+.1%}). The checks above used the "
            "validation messages, so their numbers differ.",
            before=base_bits,
            after=bits,
            change=bits / base_bits - 1,
        )
    )
    if bits >= base_bits:
        print_status(tr("This is no better than the base model: train longer, or build from a larger archive."))
    if parent is not None:
        print_status(tr("The adapter it started from: {bits:.3f}.", bits=parent.bits_per_byte))
        if bits >= parent.bits_per_byte:
            print_status(tr("This is no better than the adapter it started from, which stays published."))


def _result(
    state: RunState, score: HeldOutScore | None, adapter: Path, trainer: PersonaTrainer, timer: PhaseTimer
) -> dict[str, Any]:
    training_seconds = timer.seconds["steps"]
    return {
        **_scores(state, score),
        "tokens": trainer.state.tokens,
        "tokens_per_second": round(trainer.tokens_here / training_seconds, 1) if training_seconds else 0.0,
        "seconds": round(sum(timer.seconds.values()), 1),
        "training_seconds": round(training_seconds, 1),
        "parts": {name: round(seconds, 2) for name, seconds in timer.seconds.items()},
        "peak_memory_bytes": peak_memory(state.plan.device),
        "adapter": str(adapter),
        "version": adapter.name,
        "plan": msgspec.to_builtins(state.plan),
    }


def _scores(state: RunState, score: HeldOutScore | None) -> dict[str, Any]:
    """Before and after; nothing if no test messages were held out."""
    base, parent = state.base_score, state.parent_score
    if score is None or base is None:
        return {"bits_per_byte_before": None, "bits_per_byte_after": None, "change": None}
    return {
        **({} if parent is None else {"bits_per_byte_start": parent.bits_per_byte}),
        "bits_per_byte_before": base.bits_per_byte,
        "bits_per_byte_after": score.bits_per_byte,
        "change": score.bits_per_byte / base.bits_per_byte - 1,
        "end_nats_before": base.end_nats,
        "end_nats_after": score.end_nats,
        "held_out_bytes": score.text_bytes,
    }

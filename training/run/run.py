"""From a data set to a published adapter: load, score, plan, train, score again, publish."""

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import PeftModel

from doppel.adapters.checkpoint import describe_checkpoints
from doppel.adapters.guard import build_guard
from doppel.adapters.habits import read_habits, write_habits
from doppel.adapters.versions import Manifest, list_versions, publishing
from doppel.config import Config
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.models.base import choose_device
from doppel.system.memory import peak_memory
from doppel.system.write_errors import translate_write_errors
from doppel.terminal import print_status, progress, silence
from doppel.transcript import Header
from training.dataset.files import dataset_digest
from training.lora.bits_per_byte import HeldOutScore, score
from training.lora.data_parallel import score_in_parallel
from training.lora.distributed import ProcessGroup, join_processes
from training.lora.examples import spread_sample
from training.lora.fsdp import is_sharded
from training.lora.packing import tokens_per_batch
from training.lora.samples import SampleReplies
from training.run.checkpoints import RunFolder, RunState, lock_run_folder
from training.run.plan import TrainingPlan, optimizer_steps
from training.run.progress import TrainingProgress, stop_on_signals
from training.run.record import publish_record, recording
from training.run.report import report_sections
from training.run.setup import (
    TrainingSetup,
    build_model,
    measure_and_plan,
    prepare_run,
    run_folder,
    settings_for,
    with_replay,
)
from training.run.timings import PhaseTimer
from training.run.trackers import check_trackers
from training.run.trainer import PersonaTrainer

_HEADER_VALUES = 1000


class TrainingInterrupted(DoppelError):
    """The user stopped the run; it can be continued."""

    exit_code = 130


def run_training(
    config: Config,
    *,
    first_run: bool = False,
    origin: str | None = None,
    restart: bool = False,
    in_use: bool = True,
) -> dict[str, Any]:
    """Trains on `data/<persona>/` and publishes the adapter; continues an interrupted run.

    Args:
        config: the configuration.
        first_run: keep to `training.first_run_minutes`, for a first doppelgänger to talk to.
        origin: the version or folder of an adapter to train on from.
        restart: forget an interrupted run instead.
        in_use: whether the adapter comes into use at once, or is published only.

    Returns:
        What `doppel train --json` prints; nothing in a process of several that does not lead.

    Raises:
        UserError: no data set, or too little in it. AdapterRefused: `origin` cannot be trained on.
        DoppelError: another process trains there, or nothing can be written. TrainingInterrupted: stopped by a signal.
    """
    if first_run:
        config = _without_replay(config)
    folder = run_folder(config)
    with join_processes(choose_device(config.model.device)) as ranks:
        if ranks.leads:
            with lock_run_folder(folder):
                if restart:
                    shutil.rmtree(folder, ignore_errors=True)
                return _run(config, first_run, origin, ranks, in_use=in_use)
        silence()
        with suppress(TrainingInterrupted):  # the leader says so
            _run(config, first_run, origin, ranks, in_use=in_use)
        return {}


def _run(config: Config, first_run: bool, origin: str | None, ranks: ProcessGroup, *, in_use: bool) -> dict[str, Any]:
    parts = PhaseTimer()
    check_trackers(config.training.track)
    with parts("load"):
        opened = prepare_run(config, first_run=first_run, origin=origin, ranks=ranks)
        base, work, start, started = opened.base, opened.work, opened.start, opened.started
        material = with_replay(config, opened.material, base)
    with parts("score_before"):
        before = started.before if started else _score(base, material, tr("Scoring the untrained base"))
    with parts("measure"):
        if started:
            model = build_model(config, base, started.plan.rank, started.plan.alpha, start)
        else:
            settings = settings_for(config, material, base, start)
            model = build_model(config, base, settings.rank.value, settings.alpha.value, start)
    if started is None:
        with parts("score_before"):
            at_start = _score(model, material, tr("Scoring the adapter to start from")) if start else None
        with parts("measure"):
            plan = ranks.tell(measure_and_plan(config, settings, material, model))
            parent = start.parent if start else None
            started = ranks.tell(work.begin(plan, before, parent, at_start) if ranks.leads else None)
            assert started is not None
    _announce(started.plan, material)
    watch = _train(config, model, started, material, work=work, parts=parts)
    with parts("score_after"):
        after = _score(model, material, tr("Scoring the adapter"))
    if not ranks.leads:
        return {}
    with parts("publish"):
        folder = _publish(config, model, started, material, after, parts=parts, in_use=in_use)
        work.finish()
    return _result(started, after, folder, watch, parts)


def _train(
    config: Config, model: PeftModel, started: RunState, material: TrainingSetup, *, work: RunFolder, parts: PhaseTimer
) -> TrainingProgress:
    plan, ranks = started.plan, material.ranks
    checkpoint = ranks.tell(work.checkpoint() if ranks.leads else None)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    base = model.get_base_model()
    situations = material.sessions["validation"] or material.sessions["train"]
    samples: Callable[[], list[str]] = SampleReplies(base, material.transcript, situations, 2, plan.seed)  # type: ignore[arg-type]
    if not ranks.leads or is_sharded(base):  # a base that is split writes only if all processes do
        samples = list
    allowed = None if material.minutes is None else material.minutes * 60
    with (
        parts("checkpoints"),
        recording(config, plan, work.folder, step) if ranks.leads else nullcontext() as record,
        progress() as bar,
        stop_on_signals() as stop,
        translate_write_errors(work.folder),
    ):
        watch = TrainingProgress(bar, samples, stop, allowed, parts, agree=lambda wish: max(ranks.collect(wish)))
        trainer = PersonaTrainer(
            model,
            plan,
            steps=optimizer_steps(plan, material.train),
            held_out=spread_sample(material.validation, plan.check_tokens),
            folder=work.folder,
            callbacks=[watch] if record is None else [record, watch],
            parts=parts,
            ranks=ranks,
        )
        watch.trainer = trainer
        if record is not None:
            record.trainer = trainer
        if ranks.leads:
            describe_checkpoints(work.folder, _manifest(config, started, material), read_habits(config.data_dir))
        if checkpoint is not None:
            print_status(tr("Going on from step {step}.", step=step))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.stopped and trainer.state.global_step < plan.steps:
        raise TrainingInterrupted(
            tr(
                "stopped at step {step} of {steps}; `doppel train` goes on from there",
                step=trainer.state.global_step,
                steps=plan.steps,
            )
        )
    return watch


def _score(model: torch.nn.Module, material: TrainingSetup, title: str) -> HeldOutScore:
    tokens = sum(len(example.ids) for example in material.test)
    mine = tokens if is_sharded(model) else tokens // material.ranks.count
    with progress() as bar:
        task = bar.add_task(title, total=mine, rate="")
        advance: Callable[[int], None] = lambda count: bar.update(task, advance=count)  # noqa: E731
        score_share = partial(score, model, tokens_per_batch=tokens_per_batch(model), advance=advance)
        bits = score_in_parallel(material.ranks, model, material.test, score_share)
        bar.update(task, completed=mine)
        return bits


def _publish(
    config: Config,
    model: PeftModel,
    started: RunState,
    material: TrainingSetup,
    after: HeldOutScore,
    *,
    parts: PhaseTimer,
    in_use: bool,
) -> Path:
    manifest = _manifest(config, started, material)
    manifest = msgspec.structs.replace(manifest, fidelity={**manifest.fidelity, "after": msgspec.to_builtins(after)})
    # PEFT writes where the base lay on this machine; the id says what it is and tells nothing about the owner
    model.peft_config["default"].base_model_name_or_path = material.base.id
    with publishing(config.adapters_dir, manifest, in_use=in_use) as staging:
        model.save_pretrained(str(staging), save_embedding_layers=False)
        (staging / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        write_habits(staging, read_habits(config.data_dir))
        build_guard(session.turns for session in material.sessions["train"]).write(staging)
        publish_record(
            staging, run_folder(config), manifest, report_sections(started, after, run_folder(config), parts)
        )
    return config.adapters_dir / list_versions(config.adapters_dir)[-1]


def _without_replay(config: Config) -> Config:
    """The configuration of a first run: its minutes are for the owner's messages, not for sampling."""
    return config.model_copy(update={"training": config.training.model_copy(update={"replay": 0})})


def _beside(config: Config, material: TrainingSetup) -> dict[str, Any]:
    """What was trained on beside the owner's messages, for the manifest."""
    replayed = {"replay": config.training.replay} if config.training.replay else {}
    return {**({"mix": msgspec.to_builtins(material.sources)} if material.sources else {}), **replayed}


def _parent(started: RunState) -> dict[str, Any]:
    """The adapter that this one was trained on from, for the manifest; not where it lay."""
    parent = started.parent
    return {} if parent is None else {"parent": {"name": parent.name, "weights": parent.weights}}


def _manifest(config: Config, started: RunState, material: TrainingSetup) -> Manifest:
    """What is known of the adapter before it is trained, and of each of its checkpoints."""
    train = material.sessions["train"]
    return Manifest(
        persona=config.persona.name,
        base=material.base,
        transcript=material.transcript.format,
        template=material.transcript.template,
        header_vocabulary=header_vocabulary([session.header for session in train]),
        dataset={
            "digest": dataset_digest(config.data_dir),
            "archive": config.archive_digest,
            "sessions": len(train),
            "messages": material.messages,
            **_beside(config, material),
        },
        training={**msgspec.to_builtins(started.plan), **_parent(started)},
        fidelity={"before": msgspec.to_builtins(started.before)},
    )


def header_vocabulary(headers: list[Header]) -> dict[str, list[str]]:
    """The values each header field took in training, most frequent first; serving uses no others."""
    vocabulary = {}
    for field in Header.__struct_fields__:
        counts = Counter(value for header in headers if (value := getattr(header, field)) is not None)
        vocabulary[field] = [value for value, _ in counts.most_common(_HEADER_VALUES)]
    return vocabulary


def _announce(plan: TrainingPlan, material: TrainingSetup) -> None:
    tokens = sum(len(example.ids) for example in material.train)
    print_status(
        tr(
            "Training a LoRA of rank {rank} on {device} in {dtype}: {steps} steps, {epochs:.2f} of an epoch of "
            "{tokens} tokens, learning rate {rate:g}, about {minutes:.0f} min",
            rank=plan.rank,
            device=plan.device,
            dtype=plan.dtype,
            steps=plan.steps,
            epochs=plan.epochs,
            tokens=f"{tokens:,}",
            rate=plan.learning_rate,
            minutes=max(1.0, tokens * plan.epochs / plan.tokens_per_second / 60),
        )
    )


def _result(
    started: RunState, after: HeldOutScore, folder: Path, watch: TrainingProgress, parts: PhaseTimer
) -> dict[str, Any]:
    before = started.before.bits_per_byte
    change = after.bits_per_byte / before - 1
    print_status(
        tr(
            "Bits per byte of your unseen messages: {before:.3f} → {after:.3f} ({change:+.1%}).",
            before=before,
            after=after.bits_per_byte,
            change=change,
        )
    )
    if change >= 0:
        print_status(tr("That is no better than the untrained base: train longer, or build from a larger archive."))
    at_start = started.parent_score.bits_per_byte if started.parent_score else None
    if at_start is not None:
        print_status(tr("The adapter it started from: {bits:.3f}.", bits=at_start))
        if after.bits_per_byte >= at_start:
            print_status(tr("That is no better than the adapter it started from, which stays published."))
    print_status(tr("Published {path}", path=folder))
    return {
        **({} if at_start is None else {"bits_per_byte_start": at_start}),
        "bits_per_byte_before": before,
        "bits_per_byte_after": after.bits_per_byte,
        "change": change,
        "end_nats_before": started.before.end_nats,
        "end_nats_after": after.end_nats,
        "held_out_bytes": after.text_bytes,
        "tokens_per_second": round(watch.tokens_per_second, 1),
        "seconds": round(sum(parts.seconds.values()), 1),
        "training_seconds": round(parts.seconds["steps"], 1),
        "parts": {name: round(seconds, 2) for name, seconds in parts.seconds.items()},
        "peak_memory_bytes": peak_memory(started.plan.device),
        "adapter": str(folder),
        "version": folder.name,
        "plan": msgspec.to_builtins(started.plan),
    }

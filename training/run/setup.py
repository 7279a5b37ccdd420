"""Prepares a training: the data set as examples, the base model, and the plan for this machine."""

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel

from doppel.config import Config, ModelSettings, TrainingSettings
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import (
    BaseIdentity,
    choose_device,
    choose_dtype,
    identify,
    load_model,
    load_tokenizer,
    prepare_base,
)
from doppel.models.quantize import check_quantization, load_quantized
from doppel.terminal import print_status
from doppel.transcript import FORMATS, Transcript, open_transcript
from training.dataset.files import Session, dataset_digest, read_sessions
from training.lora.bits_per_byte import score_examples
from training.lora.conditions import header_vocabulary
from training.lora.cpu_kernels.install import accelerate
from training.lora.distributed import SINGLE_PROCESS, ProcessGroup
from training.lora.epochs import EpochSource
from training.lora.examples import Example, count_tokens, first_tokens, make_examples, plan_steps, spread_sample
from training.lora.fsdp import is_sharded, make_device_mesh, shard_base, should_shard
from training.lora.gpu_kernels import use_fused_kernels
from training.lora.memory import fit_batch
from training.lora.mixing import MixSource, load_mix
from training.lora.model import add_lora, check_head, match_adapter_dtype
from training.lora.packing import packing_obstacle, tokens_per_batch
from training.lora.reduced_head import ReducedHead
from training.lora.replay import estimated_tokens, replay_examples
from training.lora.settings import ChosenValue, Hyperparameters, TrainingSize, choose_length, recommend
from training.lora.threads import choose_threads, use_threads
from training.run.folders import run_folder
from training.run.plan import TrainingPlan, make_plan, token_budget, tokens_per_second
from training.run.run_state import RunFolder, RunState
from training.run.speed import DeviceTimer, compute_cost, training_seconds_per_mac
from training.run.starting_point import StartingAdapter, add_starting_lora, choose_starting_point

_SHORT_MINUTES = 15
_TEST_TOKENS = 24_000
_TEST_TOKENS_WHEN_SHORT = 4_000  # the report on fidelity measures it well
_THREAD_TRIAL_TOKENS = 512
_DEFAULT_CONTEXT = 32_768  # for the few models whose configuration does not state a limit


class TrainingSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What to train on and how, without the model itself.

    Attributes:
        settings: the `training` section of config.yaml.
        model: the `model` section.
        data_dir: the data set's folder.
        sessions: the data set by split.
        transcript: for the base's tokenizer.
        base: the identity of the base model.
        base_folder: where the base is.
        epochs: what is trained on, mixed data and replay included.
        train: the examples of its first epoch, in no particular order.
        validation, test: the held-out splits as examples; empty if the data set has none. A run is never judged by
            what it was trained on, nor chosen by what it is judged on.
        minutes: time limit, or None.
        device: where the model computes.
        max_length: tokens of the longest example.
        sources: the files that mixed data comes from.
        processes: that train together.
    """

    settings: TrainingSettings
    model: ModelSettings
    data_dir: Path
    sessions: dict[str, list[Session]]
    transcript: Transcript
    base: BaseIdentity
    base_folder: Path
    epochs: EpochSource
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    minutes: float | None
    device: str
    max_length: ChosenValue[int]
    sources: list[MixSource] = []
    processes: ProcessGroup = SINGLE_PROCESS

    @property
    def messages(self) -> int:
        """The number of the persona's messages in the training split."""
        return sum(len(turn.bubbles) for session in self.sessions["train"] for turn in session.turns if turn.is_mine)

    @property
    def is_short(self) -> bool:
        """Whether the time limit leaves little time for anything but training."""
        return _is_short(self.minutes)

    @property
    def run_folder(self) -> Path:
        """Where the unfinished training is."""
        return run_folder(self.data_dir)


class PreparedRun(msgspec.Struct, frozen=True):
    """A run before its first step.

    Attributes:
        setup: what to train on and how.
        folder: of the run.
        start: the adapter to start from, or None.
        state: of an interrupted run to resume, or None.
        base: the model without an adapter.
    """

    setup: TrainingSetup
    folder: RunFolder
    start: StartingAdapter | None
    state: RunState | None
    base: PreTrainedModel


def prepare_run(config: Config, *, first_run: bool, start_from: str | None, processes: ProcessGroup) -> PreparedRun:
    """Reads and loads everything a run needs.

    Args:
        config: the configuration.
        first_run: use the time limit `training.first_run_minutes`, and no replay, which takes time to sample.
        start_from: version or folder of an adapter to start from.
        processes: that train together.

    Raises:
        As `load_setup`, `choose_starting_point` and `load_base`.
    """
    minutes = config.training.minutes
    if first_run:
        minutes = config.training.first_run_minutes
        config = config.model_copy(update={"training": config.training.model_copy(update={"replay": 0})})
    with processes.main_first():  # the others find what it downloads or converts in the cache
        setup = load_setup(config, minutes, processes)
    folder = RunFolder(setup.run_folder, run_digest(setup, minutes, ignore={"trackers", "gate"}))
    start, state = choose_starting_point(config.adapters_dir, start_from, folder, setup.base)
    base = load_base(setup, state.plan if state else None)
    if setup.device == "cpu":
        if state:
            use_threads(state.plan.threads)  # another number adds up in another order, and differs in the last bit
        elif processes.world_size == 1:
            sample = first_tokens(setup.train, _THREAD_TRIAL_TOKENS)
            choose_threads(partial(score_examples, base, sample, tokens_per_batch(base)))
    return PreparedRun(setup, folder, start, state, base)


def load_setup(config: Config, minutes: float | None, processes: ProcessGroup = SINGLE_PROCESS) -> TrainingSetup:
    """Reads the data set and turns it into examples for the configured base.

    Raises:
        UserError: there is no data set or nothing of the persona's in it, `training.max_length` is more than the base
            supports, or the machine cannot run a quantised base.
    """
    training = config.training
    device = choose_device(config.model.device)
    if training.quantize is not None:
        check_quantization(device)
    sessions: dict[str, list[Session]] = {"train": [], "validation": [], "test": []}
    for session in read_sessions(config.data_dir):
        sessions[session.split].append(session)
    folder = prepare_base(config.model, print_status)
    transcript = open_transcript(load_tokenizer(folder), FORMATS[config.transcript])
    model_config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    context = getattr(model_config, "max_position_embeddings", None) or _DEFAULT_CONTEXT
    max_length = choose_length(training, device, context)
    epochs = EpochSource(
        sessions=sorted(sessions["train"], key=lambda session: session.started_at),
        transcript=transcript,
        max_length=max_length.value,
        history=config.reply.history,
        languages=header_vocabulary(session.header for session in sessions["train"])["language"],
        seed=training.seed,
    )
    own = list(epochs.examples(0))
    if not own:
        raise UserError(
            tr("{path}: none of your messages to train on; give `doppel build` a larger archive", path=config.data_dir)
        )
    mixed = load_mix(training, config.root, own, transcript, max_length.value)
    epochs = msgspec.structs.replace(epochs, others=mixed.examples)
    validation, test = (
        make_examples(sessions[split], transcript, max_length.value) for split in ("validation", "test")
    )
    return TrainingSetup(
        settings=training,
        model=config.model,
        data_dir=config.data_dir,
        sessions=sessions,
        transcript=transcript,
        base=identify(folder, config.model.base),
        base_folder=folder,
        epochs=epochs,
        train=[*own, *mixed.examples],
        validation=validation,
        test=spread_sample(test, _TEST_TOKENS_WHEN_SHORT if _is_short(minutes) else _TEST_TOKENS),
        minutes=minutes,
        device=device,
        max_length=max_length,
        sources=mixed.sources,
        processes=processes,
    )


def load_base(setup: TrainingSetup, plan: TrainingPlan | None = None) -> PreTrainedModel:
    """Loads the base model for training: on its device, quantised or sharded if configured.

    Args:
        setup: of the run.
        plan: of the run to resume, whose dtype is kept.

    Raises:
        UserError: the base cannot be trained, or not in this way.
    """
    folder, device, processes, quantize = setup.base_folder, setup.device, setup.processes, setup.settings.quantize
    dtype = processes.broadcast(getattr(torch, plan.dtype) if plan else choose_dtype(setup.model.dtype, device, folder))
    if quantize is not None:
        base = load_quantized(folder, quantize, dtype, device)
    elif should_shard(setup.settings, folder, processes):
        mesh = make_device_mesh(device, processes)
        with processes.one_at_a_time():  # so that main memory holds one whole base at most
            base = load_model(folder, dtype)
            shard_base(base, mesh, device)
    else:
        base = load_model(folder, dtype, device)
    check_head(base)
    use_fused_kernels(base)
    accelerate(base)
    if processes.is_main and (reason := packing_obstacle(base)) is not None:
        print_status(tr("Training one conversation at a time, which is slower: {reason}.", reason=reason))
    return base


def with_replay(setup: TrainingSetup, base: PreTrainedModel) -> TrainingSetup:
    """The setup with replay examples in the share `training.replay`; samples them first if they are not cached.

    Raises:
        UserError: the base is sharded over GPUs, where it cannot generate text.
    """
    share = setup.settings.replay
    if not share:
        return setup
    if is_sharded(base):
        raise UserError(
            tr("training.replay: a base that is split over GPUs cannot generate text; set training.replay to 0")
        )
    tokens = round(count_tokens(setup.train) * share / (1 - share))
    expected_tokens = estimated_tokens(setup.minutes, setup.device)
    with setup.processes.main_first():  # the others find what it sampled in the cache
        examples = replay_examples(
            base,
            setup.transcript,
            setup.base,
            tokens=tokens,
            max_distinct=tokens if expected_tokens is None else round(expected_tokens * share),
            length=setup.max_length.value,
            seed=setup.settings.seed,
        )
    return add_examples(setup, examples)


def add_examples(setup: TrainingSetup, examples: Sequence[Example]) -> TrainingSetup:
    """The setup with further examples in every epoch."""
    epochs = msgspec.structs.replace(setup.epochs, others=[*setup.epochs.others, *examples])
    return msgspec.structs.replace(setup, epochs=epochs, train=[*setup.train, *examples])


def training_size(setup: TrainingSetup, base: PreTrainedModel) -> TrainingSize:
    """The size of data and model, on which recommendations are based."""
    return TrainingSize(
        messages=setup.messages,
        examples=len(setup.train),
        tokens=count_tokens(setup.train),
        device=setup.device,
        parameters=base.num_parameters(),
        minutes=setup.minutes,
    )


def choose_hyperparameters(
    setup: TrainingSetup, base: PreTrainedModel, start: StartingAdapter | None = None
) -> Hyperparameters:
    """The settings of the run: from the adapter to start from, else config.yaml, else recommended."""
    hyperparameters = recommend(setup.settings, training_size(setup, base), setup.max_length)
    if start is None:
        return hyperparameters
    reason = tr("same as the adapter to start from")
    rank, alpha = ChosenValue(start.lora.scaling.r, reason), ChosenValue(start.alpha, reason)
    return msgspec.structs.replace(hyperparameters, rank=rank, alpha=alpha)


def build_model(
    setup: TrainingSetup, base: PreTrainedModel, rank: int, alpha: float, start: StartingAdapter | None = None
) -> PeftModel:
    """Adds a LoRA to the base: a copy of the adapter to start from, or a new one that depends on the seed only."""
    torch.manual_seed(setup.settings.seed)
    model = add_lora(base, rank, alpha) if start is None else add_starting_lora(start, base)
    if setup.settings.quantize is not None or base.dtype == torch.float16:
        match_adapter_dtype(model, base.dtype)
    accelerate(model)
    return model


def measure_and_plan(
    setup: TrainingSetup, hyperparameters: Hyperparameters, model: PeftModel, head: ReducedHead | None
) -> TrainingPlan:
    """The plan of a new run, after measuring how fast this machine trains on these examples."""
    batch = setup.processes.broadcast(fit_batch(model, setup.train, head))
    steps = list(plan_steps(setup.train, hyperparameters.sessions_per_step.value, batch.tokens))
    processes = setup.processes
    # all processes use the latest of their clocks, so that they measure the same batches and the slowest one's time
    timer = DeviceTimer(setup.device, lambda: max(processes.all_gather(time.perf_counter())))
    seconds_per_mac = training_seconds_per_mac(model, steps, timer, head=head, is_short=setup.is_short)
    speed = tokens_per_second(compute_cost(model, head), setup.train, seconds_per_mac) * processes.world_size
    return make_plan(
        setup.settings,
        hyperparameters,
        examples=setup.train,
        max_tokens=token_budget(setup.minutes, speed),
        is_short=setup.is_short,
        tokens_per_second=speed,
        batch=batch,
        device=setup.device,
        dtype=model.dtype,
        now=datetime.now(UTC),
    )


def _is_short(minutes: float | None) -> bool:
    return minutes is not None and minutes <= _SHORT_MINUTES


def run_digest(setup: TrainingSetup, minutes: float | None, *, ignore: set[str]) -> str:
    """Digest of everything a run depends on: data, base and settings, without the `training` keys in `ignore`."""
    parts = (
        dataset_digest(setup.data_dir),
        setup.base.digest,
        setup.transcript.format,
        setup.transcript.template,
        setup.settings.model_dump_json(exclude=ignore),
        setup.model.model_dump_json(),
        str(minutes),
        *(source.digest for source in setup.sources),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

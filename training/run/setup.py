"""A training before its first step: the data set as examples, the base model, and the plan for this machine."""

import hashlib
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel

from doppel.config import Config
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
from doppel.models.quantize import check_quantization, choose_body_dtype, load_quantized
from doppel.terminal import print_status
from doppel.transcript import FORMATS, Transcript, open_transcript
from training.dataset.files import Session, dataset_digest, read_sessions
from training.lora.bits_per_byte import score
from training.lora.cpu_kernels.install import accelerate
from training.lora.distributed import SINGLE_PROCESS, ProcessGroup
from training.lora.examples import Example, examples, first, plan_steps, spread_sample
from training.lora.fsdp import device_mesh, is_sharded, should_shard, split
from training.lora.mixing import Source, count_tokens, mix
from training.lora.model import add_lora, check_head
from training.lora.packing import packing_obstacle, tokens_per_batch
from training.lora.quantize import match_adapter_dtype
from training.lora.replay import likely_tokens, replay
from training.lora.settings import Choice, Settings, TrainingSize, choose_length, recommend
from training.lora.threads import choose_threads, use_threads
from training.run.checkpoints import RunFolder, RunState
from training.run.plan import TrainingPlan, make_plan, token_budget, tokens_per_second
from training.run.speed import Clock, training_seconds_per_mac
from training.run.starting_point import StartingAdapter, add_starting_lora, choose_starting_point

_TEST_TOKENS = 24_000
_TRIAL_TOKENS = 512  # to time threads with
_ANY_CONTEXT = 32_768  # for the few models whose configuration does not say what they take


class TrainingSetup(msgspec.Struct, frozen=True):
    """Everything a run is made of, besides the model.

    Attributes:
        sessions: the data set by split.
        transcript: for the base's tokenizer.
        base: the base's identity, and where it lies.
        train, validation, test: the same as examples.
        minutes: training time allowed, or None.
        device: where the model computes.
        max_length: tokens of the longest example.
        sources: what `train` holds of instruction data, beside the owner's messages.
        ranks: the processes that train together.
    """

    sessions: dict[str, list[Session]]
    transcript: Transcript
    base: BaseIdentity
    base_folder: Path
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    minutes: float | None
    device: str
    max_length: Choice[int]
    sources: list[Source] = []
    ranks: ProcessGroup = SINGLE_PROCESS

    @property
    def messages(self) -> int:
        """How many of the persona's messages there are to train on."""
        return sum(len(turn.bubbles) for one in self.sessions["train"] for turn in one.turns if turn.is_mine)


class PreparedRun(msgspec.Struct, frozen=True):
    """A run as it stands before its first step.

    Attributes:
        material: what it is made of.
        work: its folder.
        start: the adapter to train on from, or None.
        started: what an interrupted run left to go on with, or None.
        base: the model, without adapter.
    """

    material: TrainingSetup
    work: RunFolder
    start: StartingAdapter | None
    started: RunState | None
    base: PreTrainedModel


def prepare_run(config: Config, *, first_run: bool, origin: str | None, ranks: ProcessGroup) -> PreparedRun:
    """Reads and loads all that a run needs; see `load_setup`, `choose_starting_point`, `load_base` for what it raises.

    Args:
        config: the configuration.
        first_run: keep to `training.first_run_minutes`.
        origin: the version or folder of an adapter to train on from.
        ranks: the processes that train together.
    """
    with ranks.main_first():  # the others find in the cache what it fetches or converts
        minutes = config.training.first_run_minutes if first_run else config.training.minutes
        material = load_setup(config, minutes, ranks)
    work = RunFolder(run_folder(config), purpose(config, material, minutes, regardless_of={"track", "gate"}))
    start, started = choose_starting_point(config, origin, work, material.base)
    base = load_base(config, material, started.plan if started else None)
    if material.device == "cpu":
        if started:
            use_threads(started.plan.threads)  # what they add up in another order would not be the same to the bit
        elif ranks.count == 1:
            choose_threads(partial(score, base, first(material.train, _TRIAL_TOKENS), tokens_per_batch(base)))
    return PreparedRun(material, work, start, started, base)


def load_setup(config: Config, minutes: float | None, ranks: ProcessGroup = SINGLE_PROCESS) -> TrainingSetup:
    """Reads the data set and turns it into examples for the configured base.

    Raises:
        UserError: no data set, nothing of the persona's in it, longer examples wanted than the base takes, or a
            quantised base on a machine that cannot compute one.
    """
    device = choose_device(config.model.device)
    if config.training.quantize is not None:
        check_quantization(device)
    sessions: dict[str, list[Session]] = {"train": [], "validation": [], "test": []}
    for session in read_sessions(config.data_dir):
        sessions[session.split].append(session)
    folder = prepare_base(config.model, print_status)
    tokenizer = load_tokenizer(folder)
    transcript = open_transcript(tokenizer, FORMATS[config.transcript])
    shape = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    context = getattr(shape, "max_position_embeddings", None) or _ANY_CONTEXT
    length = choose_length(config.training, minutes, device, context)
    split = {name: examples(some, transcript, length.value) for name, some in sessions.items()}
    if not split["train"]:
        raise UserError(
            tr("{path}: nothing of yours to train on; give `doppel build` a larger archive", path=config.data_dir)
        )
    fallback = split["validation"] or split["test"] or split["train"]
    mixed = mix(config.training, config.root, split["train"], transcript, length.value)
    return TrainingSetup(
        sessions=sessions,
        transcript=transcript,
        base=identify(folder, config.model.base),
        base_folder=folder,
        train=[*split["train"], *mixed.items],
        validation=fallback,
        test=spread_sample(split["test"] or fallback, _TEST_TOKENS if minutes is None else _TEST_TOKENS // 3),
        minutes=minutes,
        device=device,
        max_length=length,
        sources=mixed.sources,
        ranks=ranks,
    )


def load_base(config: Config, material: TrainingSetup, plan: TrainingPlan | None = None) -> PreTrainedModel:
    """The base model where and in what it trains.

    Args:
        config: may quantise it, or split it over GPUs.
        material: says where it lies and which processes share it.
        plan: of the run to go on with, whose dtype is kept whatever the machine measures now.

    Raises:
        UserError: it cannot be trained, or not in this way.
    """
    folder, device, ranks, quantize = (
        material.base_folder,
        material.device,
        material.ranks,
        config.training.quantize,
    )
    choose = choose_dtype if quantize is None else choose_body_dtype
    dtype = ranks.tell(getattr(torch, plan.dtype) if plan else choose(config.model.dtype, device))
    if quantize is not None:
        base = load_quantized(folder, quantize, dtype, device)
    elif should_shard(config.training, folder, ranks):
        mesh = device_mesh(device, ranks)
        with ranks.one_at_a_time():  # so that the machine's memory need not hold more than one whole base
            base = load_model(folder, dtype)
            split(base, mesh, device)
    else:
        base = load_model(folder, dtype, device)
    check_head(base)
    accelerate(base)
    if ranks.leads and (reason := packing_obstacle(base)) is not None:
        print_status(tr("One conversation at a time, which is slower: {reason}.", reason=reason))
    return base


def with_replay(config: Config, material: TrainingSetup, base: PreTrainedModel) -> TrainingSetup:
    """The material with `training.replay` of its tokens from the base itself, which is sampled first if need be.

    Raises:
        UserError: the base is split over GPUs, where it cannot write.
    """
    share = config.training.replay
    if not share:
        return material
    if is_sharded(base):
        raise UserError(tr("training.replay: a base that is split over GPUs cannot write; set it to 0"))
    tokens = round(count_tokens(material.train) * share / (1 - share))
    seen = likely_tokens(material.minutes, material.device)
    with material.ranks.main_first():  # the others find in the cache what it wrote
        items = replay(
            base,
            material.transcript,
            material.base,
            tokens=tokens,
            distinct=tokens if seen is None else round(seen * share),
            length=material.max_length.value,
            seed=config.training.seed,
        )
    return msgspec.structs.replace(material, train=[*material.train, *items])


def size_of(material: TrainingSetup, base: PreTrainedModel) -> TrainingSize:
    """What recommendations go by."""
    return TrainingSize(
        messages=material.messages,
        examples=len(material.train),
        parameters=base.num_parameters(),
        minutes=material.minutes,
    )


def settings_for(
    config: Config, material: TrainingSetup, base: PreTrainedModel, start: StartingAdapter | None = None
) -> Settings:
    """What to train with: as in the adapter to start from, else in config.yaml, else as recommended."""
    settings = recommend(config.training, size_of(material, base), material.max_length)
    if start is None:
        return settings
    reason = tr("as in the adapter to start from")
    rank, alpha = Choice(start.lora.scaling.r, reason), Choice(start.alpha, reason)
    return msgspec.structs.replace(settings, rank=rank, alpha=alpha)


def build_model(
    config: Config, base: PreTrainedModel, rank: int, alpha: float, start: StartingAdapter | None = None
) -> PeftModel:
    """The base with a LoRA: the one to start from, else a new one; the same seed gives the same."""
    torch.manual_seed(config.training.seed)
    model = add_lora(base, rank, alpha) if start is None else add_starting_lora(start, base)
    if config.training.quantize is not None:
        match_adapter_dtype(model, base.dtype)
    accelerate(model)
    return model


def measure_and_plan(config: Config, settings: Settings, material: TrainingSetup, model: PeftModel) -> TrainingPlan:
    """The plan of a new run, after a measurement of how fast this machine trains on this material."""
    size = tokens_per_batch(model)
    steps = plan_steps(material.train, settings.sessions_per_step.value, size, config.training.seed)
    ranks = material.ranks
    # everybody's clock stands where the last one's does: all measure the same batches, and as long as the slowest takes
    clock = Clock(material.device, lambda: max(ranks.collect(time.perf_counter())))
    seconds = training_seconds_per_mac(model, steps, clock) / ranks.count
    speed = tokens_per_second(model, material.train, seconds)
    return make_plan(
        config.training,
        settings,
        items=material.train,
        most_tokens=token_budget(material.minutes, speed),
        is_short=material.minutes is not None,
        tokens_per_second=speed,
        tokens_per_batch=size,
        device=material.device,
        dtype=model.dtype,
        now=datetime.now(UTC),
    )


def run_folder(config: Config) -> Path:
    """Where an unfinished training of the persona lies."""
    return config.data_dir.with_name(config.data_dir.name + ".training")


def purpose(config: Config, material: TrainingSetup, minutes: float | None, *, regardless_of: set[str]) -> str:
    """Digest of all that a run depends on: data, base, and settings but those of `training` that are named."""
    parts = (
        dataset_digest(config.data_dir),
        material.base.digest,
        material.transcript.format,
        material.transcript.template,
        config.training.model_dump_json(exclude=regardless_of),
        config.model.model_dump_json(),
        str(minutes),
        *(source.digest for source in material.sources),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

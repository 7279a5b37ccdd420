"""A training before its first step: the data set as examples, the base model, and the plan for this machine."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel

from doppel.adapter import BaseIdentity
from doppel.base import choose_device, choose_dtype, identify, load_model, load_tokenizer, prepare_base
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.terminal import say
from doppel.transcript import FORMATS, Transcript, open_transcript
from training.dataset import Session, dataset_digest, read_sessions
from training.examples import Example, examples, plan_steps, spread
from training.lora import add_lora, check_head
from training.measure import Clock, training_speed
from training.mix import Source, count_tokens, mix
from training.plan import Plan, make_plan, tokens_per_batch, tokens_per_second, tokens_within
from training.recommend import Choice, Settings, Size, choose_length, recommend
from training.replay import likely_tokens, replay
from training.start import Start, start_from
from training.work import Work

_TEST_TOKENS = 24_000
_ANY_CONTEXT = 32_768  # for the few models whose configuration does not say what they take


class Material(msgspec.Struct, frozen=True):
    """Everything a run is made of, besides the model.

    Attributes:
        sessions: the data set by split.
        transcript: for the base's tokenizer.
        base: the base's identity, and where it lies.
        train, validation, test: the same as examples.
        minutes: training time allowed, or None.
        pad_id: token id to pad with.
        device: where the model computes.
        max_length: tokens of the longest example.
        sources: what `train` holds of instruction data, beside the owner's messages.
    """

    sessions: dict[str, list[Session]]
    transcript: Transcript
    base: BaseIdentity
    base_folder: Path
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    minutes: float | None
    pad_id: int
    device: str
    max_length: Choice[int]
    sources: list[Source] = []

    @property
    def messages(self) -> int:
        """How many of the persona's messages there are to train on."""
        return sum(len(turn.bubbles) for one in self.sessions["train"] for turn in one.turns if turn.is_mine)


def gather(config: Config, minutes: float | None) -> Material:
    """Reads the data set and turns it into examples for the configured base.

    Raises:
        UserError: no data set, nothing of the persona's in it, or longer examples wanted than the base takes.
    """
    sessions: dict[str, list[Session]] = {"train": [], "validation": [], "test": []}
    for session in read_sessions(config.data_dir):
        sessions[session.split].append(session)
    folder = prepare_base(config.model, say)
    tokenizer = load_tokenizer(folder)
    transcript = open_transcript(tokenizer, FORMATS[config.transcript])
    device = choose_device(config.model.device)
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
    return Material(
        sessions=sessions,
        transcript=transcript,
        base=identify(folder, config.model.base),
        base_folder=folder,
        train=[*split["train"], *mixed.items],
        validation=fallback,
        test=spread(split["test"] or fallback, _TEST_TOKENS if minutes is None else _TEST_TOKENS // 3),
        minutes=minutes,
        pad_id=tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0,
        device=device,
        max_length=length,
        sources=mixed.sources,
    )


def load_base(config: Config, material: Material) -> PreTrainedModel:
    """The base model where and in what it trains. Raises UserError for one that cannot be trained."""
    dtype = choose_dtype(config.model.dtype, material.device)
    base = load_model(material.base_folder, dtype, material.device)
    check_head(base)
    return base


def with_replay(config: Config, material: Material, base: PreTrainedModel) -> Material:
    """The material with `training.replay` of its tokens from the base itself, which is sampled first if need be."""
    share = config.training.replay
    if not share:
        return material
    tokens = round(count_tokens(material.train) * share / (1 - share))
    seen = likely_tokens(material.minutes, material.device)
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


def work_of(config: Config, material: Material) -> Work:
    """The folder of the unfinished training for this material."""
    return Work(work_folder(config), _purpose(config, material))


def settings_for(config: Config, material: Material, base: PreTrainedModel, start: Start | None = None) -> Settings:
    """What to train with: as in the adapter to start from, else in config.yaml, else as recommended."""
    size = Size(
        messages=material.messages,
        examples=len(material.train),
        parameters=base.num_parameters(),
        minutes=material.minutes,
    )
    settings = recommend(config.training, size, material.max_length)
    if start is None:
        return settings
    reason = tr("as in the adapter to start from")
    rank, alpha = Choice(start.lora.scaling.r, reason), Choice(start.alpha, reason)
    return msgspec.structs.replace(settings, rank=rank, alpha=alpha)


def adapted(config: Config, base: PreTrainedModel, rank: int, alpha: float, start: Start | None = None) -> PeftModel:
    """The base with a LoRA: the one to start from, else a new one; the same seed gives the same."""
    torch.manual_seed(config.training.seed)
    return add_lora(base, rank, alpha) if start is None else start_from(start, base)


def draw_up(config: Config, settings: Settings, material: Material, model: PeftModel) -> Plan:
    """The plan of a new run, after a measurement of how fast this machine trains on this material."""
    size = tokens_per_batch(material.device)
    steps = plan_steps(material.train, settings.sessions_per_step.value, size, config.training.seed)
    seconds = training_speed(model, steps, material.pad_id, Clock(material.device))
    speed = tokens_per_second(model, material.train, seconds)
    return make_plan(
        config.training,
        settings,
        items=material.train,
        most_tokens=tokens_within(material.minutes, speed),
        is_short=material.minutes is not None,
        tokens_per_second=speed,
        device=material.device,
        dtype=model.dtype,
        now=datetime.now(UTC),
    )


def work_folder(config: Config) -> Path:
    """Where an unfinished training of the persona lies."""
    return config.data_dir.with_name(config.data_dir.name + ".training")


def _purpose(config: Config, material: Material) -> str:
    parts = (
        dataset_digest(config.data_dir),
        material.base.digest,
        material.transcript.format,
        material.transcript.template,
        config.training.model_dump_json(exclude={"track"}),
        config.model.model_dump_json(),
        str(material.minutes),
        *(source.digest for source in material.sources),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

"""The sections of config.yaml with their defaults; a platform brings its own (see `doppel.plugins`).

Every key has a default, so an empty file is a complete configuration. Secrets are never among them: they come from
the environment.
"""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from doppel.i18n import tr
from doppel.plugins import Account, Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]{1,64}$")]
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?([smhd])")
MIN_KEEP = timedelta(days=2)
"""What is stored for less could be answered twice: a message is only recognised while its row is there."""

PrivateKind = Literal["email", "phone", "id", "card", "iban", "ip", "token", "password", "url", "address"]
"""What is replaced in messages."""


class PersonaSettings(Section):
    """Who is imitated. `me` lists account ids or names, for exports that do not say whose they are."""

    name: Name = "sample"
    me: tuple[Account, ...] = ()


class ColumnSettings(Section):
    """The columns of a table by what they hold; an empty name: there is none, None: guessed."""

    text: str | None = None
    time: str | None = None
    id: str | None = None
    sender: str | None = None
    chat: str | None = None
    reply_to: str | None = None
    owner: str | None = None


class ArchiveSettings(Section):
    """One archive; `columns`, `platform` and `kind` are for a table of one's own: CSV, JSON or JSON Lines."""

    path: str = Field(min_length=1)
    columns: ColumnSettings | None = None
    platform: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_\-]{0,31}$")
    kind: Literal["post", "dm", "group"] | None = None

    @property
    def is_table(self) -> bool:
        """Whether more than the path is given."""
        return not (self.columns is None and self.platform is None and self.kind is None)

    @property
    def named_columns(self) -> dict[str, str]:
        """The names of the columns that have one, by what they hold."""
        return self.columns.model_dump(exclude_none=True) if self.columns is not None else {}


def _form_of_archive(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[list]"
    return "[section]" if isinstance(value, Mapping | ArchiveSettings) else "[path]"


OneArchive = Annotated[
    Annotated[str, Tag("[path]")] | Annotated[ArchiveSettings, Tag("[section]")], Discriminator(_form_of_archive)
]
Archives = Annotated[
    Annotated[str, Tag("[path]")]
    | Annotated[ArchiveSettings, Tag("[section]")]
    | Annotated[tuple[OneArchive, ...], Tag("[list]")],
    Discriminator(_form_of_archive),
]
"""`archive` in config.yaml. The names of the forms are left out of error messages because of their brackets."""


class PrivacySettings(Section):
    """Whether secrets and personal data in messages are replaced by made-up ones, which kinds, and names of people."""

    scrub: bool = True
    kinds: tuple[PrivateKind, ...] = get_args(PrivateKind)
    names: bool = False


class ExcludeSettings(Section):
    """Messages that are left out: of people and chats (ids or names), with words, before or after a day."""

    people: tuple[Account, ...] = ()
    chats: tuple[Account, ...] = ()
    words: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    before: date | None = None
    after: date | None = None


class CleaningSettings(Section):
    """What is left out because there is too much of it: pasted texts, short repeats, one contact's conversations.

    The aliases are former names: `Config.archive_digest` still hashes those, so that data sets stay valid.
    """

    near_duplicates: bool = True
    max_repeat_share: float = Field(default=0.01, gt=0, le=1, serialization_alias="repeats")
    max_contact_share: float = Field(default=0.5, gt=0, le=1, serialization_alias="contact_share")


class PersonSettings(Section):
    """One person with several accounts: ids or names, each with its platform before a colon, or without."""

    name: str = Field(min_length=1)
    accounts: tuple[Account, ...] = Field(min_length=1)


class ModelSettings(Section):
    """The base model: `bundled`, a Hugging Face id or a local folder."""

    base: str = "bundled"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"


class EngineSettings(Section):
    """What runs the model, and how much of it at once: this process, or a server that speaks OpenAI's protocol.

    The server's key comes from the environment (`DOPPEL_ENGINE_KEY`). None means: what suits the engine.
    """

    backend: Name = "transformers"
    url: str = "http://127.0.0.1:8000/v1"
    remote_model: str | None = None
    adapter: Literal["load", "fixed"] = "load"
    remote_adapters_path: str | None = None
    gguf: str | None = None
    quantize: Literal["nf4", "int8"] | None = None
    split: bool = False
    max_concurrent: int | None = Field(default=None, ge=1, le=256)
    max_queue: int = Field(default=64, ge=0, le=10_000)
    context_length: int | None = Field(default=None, ge=256)
    prefix_cache_gb: float = Field(default=0.5, ge=0)

    @model_validator(mode="after")
    def _small_or_split(self) -> "EngineSettings":
        if self.quantize is not None and self.split:
            raise ValueError(tr("a quantised base is not split over GPUs; leave out quantize or split"))
        return self

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(tr("write an address like http://127.0.0.1:8000/v1"))
        if parts.username or parts.password or parts.query:
            raise ValueError(tr("a key does not stand here; it comes from DOPPEL_ENGINE_KEY in the environment"))
        return value


class MixSettings(Section):
    """A file of instruction data, and the share of the training tokens that is taken from it."""

    path: str = Field(min_length=1)
    share: float = Field(gt=0, lt=1)


class TrainingSettings(Section):
    """How the adapter is trained; None means: chosen from the size of archive and model."""

    rank: int | None = Field(default=None, ge=1, le=256)
    alpha: float | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    epochs: float | None = Field(default=None, gt=0)
    sessions_per_step: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=64, le=32768)
    minutes: float | None = Field(default=None, gt=0)
    first_run_minutes: float | None = Field(default=4, gt=0)
    patience: int = Field(default=3, ge=1)
    seed: int = 0
    quantize: Literal["nf4", "int8"] | None = None
    split: bool | None = None
    mix: tuple[MixSettings, ...] = ()
    replay: float = Field(default=0, ge=0, lt=1)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    gate: bool = True

    @model_validator(mode="after")
    def _small_or_split(self) -> "TrainingSettings":
        if self.quantize is not None and self.split:
            raise ValueError(tr("a quantised base is not split over GPUs; leave out quantize or split"))
        return self

    @model_validator(mode="after")
    def _room_for_the_owner(self) -> "TrainingSettings":
        if sum(source.share for source in self.mix) + self.replay > 0.9:
            raise ValueError(tr("mix and replay together leave less than a tenth for your own messages"))
        return self


class BiasSettings(Section):
    """How much likelier (above 0) or rarer (below) a word is made."""

    word: str = Field(min_length=1)
    bias: float = Field(ge=-100, le=100)


class ReplySettings(Section):
    """How replies are sampled and how much of the chat they see."""

    temperature: float = Field(default=0.9, ge=0, le=5)
    top_k: int = Field(default=64, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    min_p: float = Field(default=0.02, ge=0, lt=1)
    typical_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=1, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    no_repeat_ngram: int = Field(default=0, ge=0, le=64)
    dry_multiplier: float = Field(default=0.0, ge=0, le=10)
    dry_base: float = Field(default=1.75, ge=1, le=4)
    dry_allowed_length: int = Field(default=2, ge=1, le=64)
    logit_bias: tuple[BiasSettings, ...] = ()
    bad_words: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    max_tokens: int = Field(default=160, ge=1, le=4096)
    candidates: int = Field(default=1, ge=1, le=8)
    history: int = Field(default=40, ge=1, le=1000)
    debounce_seconds: float = Field(default=2.0, ge=0)
    stale_after: str = "1d"
    max_per_hour: int = Field(default=200, ge=0)
    max_bubbles: int = Field(default=6, ge=1)
    guard: bool = True

    @property
    def max_age(self) -> timedelta:
        """A message older than this gets no reply, and a reply older than this is not sent."""
        return parse_duration(self.stale_after)

    @field_validator("stale_after")
    @classmethod
    def _duration(cls, value: str) -> str:
        parse_duration(value)
        return value


class PostSettings(Section):
    """One schedule of autonomous posts: exactly one of `cron` (five fields) and `every` (for example `6h`)."""

    name: Name
    to: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*:.+$")]
    cron: str | None = None
    every: str | None = None
    jitter_minutes: float = Field(default=0, ge=0, le=7 * 24 * 60)

    @field_validator("every")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None and parse_duration(value) < timedelta(seconds=1):
            raise ValueError(tr("must be at least 1s"))
        return value

    @model_validator(mode="after")
    def _one_rhythm(self) -> "PostSettings":
        if (self.cron is None) == (self.every is None):
            raise ValueError(tr("give either cron or every"))
        return self


class StoreSettings(Section):
    """The daemon's database, and how long it keeps what is finished; `0`: for ever."""

    url: str = Field(default="data/doppel.db", min_length=1)
    keep: str = "0"

    @property
    def max_age(self) -> timedelta | None:
        """What was finished longer ago than this is deleted; None: nothing is."""
        return None if self.keep == "0" else parse_duration(self.keep)

    @field_validator("keep", mode="before")
    @classmethod
    def _duration_or_zero(cls, value: object) -> object:
        text = str(value) if type(value) is int else value
        if not isinstance(text, str) or text == "0":
            return text
        try:
            age = parse_duration(text)
        except ValueError:
            raise ValueError(tr("write a time like 30d or 365d, or 0 to keep everything")) from None
        if age < MIN_KEEP:
            raise ValueError(tr("must be at least 2d: services may deliver a message of the last day again"))
        return text


def parse_duration(text: str) -> timedelta:
    """`90s`, `30m`, `6h` or `2d`; raises ValueError for anything else, and for zero."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    match = _DURATION.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise ValueError(tr("write a time like 90s, 30m, 6h or 2d"))
    return timedelta(**{units[match[2]]: float(match[1])})

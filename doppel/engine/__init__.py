"""The engine protocol: prompts in, sampled tokens out."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from doppel.errors import DoppelError
from doppel.models.base import BaseIdentity
from doppel.transcript import Transcript


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is sampled. Names and meaning are the same on every engine (see `LimitedSampling`).

    Applied in the order of transformers' `generate`: first biases and penalties on single tokens, then temperature
    and the filters. Zero (or 1 for top_p, typical_p and repetition_penalty) switches a setting off.

    Attributes:
        temperature: 0 takes the likeliest token (greedy).
        top_k: keeps the k likeliest tokens.
        top_p: keeps the smallest set of likeliest tokens with at least this probability together.
        min_p: keeps tokens with at least this fraction of the likeliest token's probability.
        typical_p: keeps the smallest set of tokens, closest to the expected surprisal first, with at least this
            probability together (locally typical sampling).
        repetition_penalty: divides the positive and multiplies the negative logits of tokens in prompt and reply.
        presence_penalty: subtracted from the logits of tokens that the reply contains.
        frequency_penalty: subtracted from the logits of tokens in the reply, once per occurrence.
        no_repeat_ngram: no sequence of this many tokens occurs twice in prompt and reply.
        dry_multiplier, dry_base, dry_allowed_length: a token that would continue a repetition of n tokens, n at
            least the allowed length, loses multiplier · base ** (n - allowed length) (DRY, "don't repeat yourself").
        breakers: tokens that no_repeat_ngram and DRY never forbid; DRY finds no repetition across them.
        logit_bias: pairs of a token id and what is added to its logit.
        bad_words: sequences of token ids that must not occur.
        max_tokens: maximum length of the reply.
        seed: None: a random one.
    """

    temperature: float = 0.9
    top_k: int = 64
    top_p: float = 0.95
    min_p: float = 0.02
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram: int = 0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    breakers: frozenset[int] = frozenset()
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    max_tokens: int = 160
    seed: int | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One generation.

    Attributes:
        prompt: token ids, already within the engine's context length.
        sampling: how tokens are sampled.
        stop_ids: tokens that end the generation; the one that does is streamed as the last token.
        adapter: a name returned by `load_adapter`, or None for the base model alone.
        deadline_seconds: time limit from the call of `generate`; the generation then ends without an error.
    """

    prompt: list[int]
    sampling: Sampling
    stop_ids: frozenset[int]
    adapter: str | None = None
    deadline_seconds: float = 120.0


class Token(msgspec.Struct, frozen=True):
    """One generated token.

    Attributes:
        id: token id.
        logprob: its log-probability (nats) under the distribution it was sampled from.
        model_logprob: its log-probability under the model's own distribution, before any sampling setting, and so
            comparable between replies. None where the engine does not know it.
    """

    id: int
    logprob: float
    model_logprob: float | None = None


class Health(msgspec.Struct, frozen=True):
    """Whether the engine can serve requests, and the adapters that they may use.

    Attributes:
        ready: a request would be served now.
        adapters: names of the adapters that requests may use.
        failure: why it will never be ready again and has to be reopened; None while it may come back by itself.
    """

    ready: bool
    adapters: tuple[str, ...]
    failure: str | None = None


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """How busy an engine is.

    Attributes:
        active: requests that are being generated.
        max_active: maximum of those.
        waiting: requests that have not started.
        prefix_cache_bytes: memory that the KV caches of earlier turns take; 0 where another process holds them.
        reused_tokens: prompt tokens found in that cache, in total; 0 where another process counts them.
    """

    active: int
    max_active: int
    waiting: int
    prefix_cache_bytes: int = 0
    reused_tokens: int = 0


class EngineError(DoppelError):
    """A request failed; the message says why. Sent again, it would probably fail again."""


class EngineUnavailable(EngineError):
    """No fault of the request: the engine is closed, or its server is away or restarting. It may succeed later.

    Attributes:
        retry_after: seconds to wait before the next attempt; None: unknown.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class EngineBusy(EngineUnavailable):
    """The engine has as many requests as it takes, or did not come to this one in time."""


class Engine(Protocol):
    """A base model that generates tokens, alone or with one of several adapters."""

    base: BaseIdentity
    context_length: int
    """Maximum tokens of prompt and reply together."""

    def transcript_of(self, adapter: str | None) -> Transcript:
        """The transcript that an adapter was trained with; None: the one for the base model alone."""
        ...

    def generate(self, request: Request) -> AsyncGenerator[Token]:
        """Streams tokens; closing the generator cancels within one token.

        Raises:
            EngineUnavailable: the same request may succeed later. EngineError: it may not.
        """
        ...

    async def load_adapter(self, folder: Path) -> str:
        """Verifies and loads a further adapter, and returns its name. Raises AdapterRefused."""
        ...

    async def drop_adapter(self, name: str) -> None:
        """Unloads an adapter once no request uses it."""
        ...

    def health(self) -> Health:
        """A snapshot; never blocks."""
        ...

    def stats(self) -> EngineStats:
        """A snapshot; never blocks."""
        ...

    def close(self) -> None:
        """Ends pending requests with EngineUnavailable and frees the model."""
        ...


@runtime_checkable
class ScoringEngine(Protocol):
    """An engine that can also compute the log-probability of given text; not every engine can."""

    async def base_log_probabilities(
        self, prompt: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of each answer's tokens under the base model alone, in nats. Raises EngineError."""
        ...


@runtime_checkable
class PrefixCaching(Protocol):
    """An engine that keeps what it computed for earlier prompts, and can drop it."""

    async def clear_prefix_cache(self) -> None:
        """Drops all of it, also that of requests which are being cancelled. Raises EngineUnavailable."""
        ...


@runtime_checkable
class LimitedSampling(Protocol):
    """An engine that does not support every setting of `Sampling`."""

    def unsupported(self, sampling: Sampling) -> str | None:
        """One line that names the settings it does not support and how to switch them off; None: it supports all."""
        ...


def unsupported(engine: Engine, sampling: Sampling) -> str | None:
    """Why an engine cannot sample like this, in one line; None when it can."""
    return engine.unsupported(sampling) if isinstance(engine, LimitedSampling) else None

"""Replay: the base model's own text among the training examples, so that training forgets less of it.

The text is sampled once, before any adapter, and cached for later trainings on the same base with the same seed. It is
sampled in batches, so that an interruption costs one batch.
"""

import random
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from doppel.config import cache_dir
from doppel.engine.local.sampling import TokenMask
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity
from doppel.system.atomic_file import write_atomically
from doppel.system.write_errors import translate_write_errors
from doppel.terminal import print_status, progress
from doppel.transcript import Transcript
from training.lora.examples import Example

_MAX_TEXT_TOKENS = 256  # short texts hold knowledge too, and are cheaper to sample
_ASSUMED_SPEED = {"cpu": 300}  # training tokens per second; the measurement comes only after the data is prepared
_ASSUMED_GPU_SPEED = 20_000
_ROWS = 16  # texts per batch: more gains little on two cores, and a batch is what an interruption costs


def replay_examples(
    base: PreTrainedModel,
    transcript: Transcript,
    identity: BaseIdentity,
    *,
    tokens: int,
    max_distinct: int,
    length: int,
    seed: int,
) -> list[Example]:
    """Examples of about `tokens` tokens with loss on all of them, sampled at temperature 1 without a prompt.

    Args:
        base: the base model, without adapters.
        transcript: for the base's tokenizer.
        identity: of the base, the key of the cache.
        tokens: number wanted; texts are repeated beyond `max_distinct`.
        max_distinct: the largest number of tokens to sample, for when time is short.
        length: tokens of the longest example.
        seed: of the sampling.

    Raises:
        UserError: the base has no token that begins a text. DoppelError: the cache cannot be written.
    """
    length = min(length, _MAX_TEXT_TOKENS)
    sampler = _TextSampler(base, _start_token(transcript), transcript.safe_tokenizer.markup, length, seed)
    folder = cache_dir() / "replay" / f"{identity.digest[:16]}-{seed}-{length}"
    texts = _cached_texts(sampler, folder, min(tokens, max_distinct))
    examples: list[Example] = []
    remaining = tokens
    for text in cycle(texts):
        if len(text) > 2 * remaining:
            break
        examples.append(Example(text, [0] + [1] * (len(text) - 1), 0))
        remaining -= len(text)
    return examples


def estimated_tokens(minutes: float | None, device: str) -> int | None:
    """About how many tokens a training of so many minutes will see; None without a time limit."""
    return None if minutes is None else round(minutes * 60 * _ASSUMED_SPEED.get(device, _ASSUMED_GPU_SPEED))


def _cached_texts(sampler: "_TextSampler", folder: Path, tokens: int) -> list[list[int]]:
    """Texts of at least `tokens` tokens in all, from the cache as far as it reaches, then sampled and cached."""
    texts: list[list[int]] = []
    number = 0
    while sum(map(len, texts)) < tokens and (cached := _read_batch(folder / f"{number:05}.json")) is not None:
        texts += [text for text in cached if sampler.forbidden.isdisjoint(text[1:])]  # older versions sampled markup
        number += 1
    missing = tokens - sum(map(len, texts))
    if missing <= 0:
        return texts
    print_status(tr("Sampling {tokens} tokens from the base model for replay (only once) …", tokens=f"{missing:,}"))
    with progress() as bar:
        task = bar.add_task(tr("Sampling"), total=missing, rate="")
        while sum(map(len, texts)) < tokens:
            batch = sampler.sample(number, lambda count: bar.update(task, advance=count))
            _write_batch(folder / f"{number:05}.json", batch)
            texts += batch
            number += 1
            bar.update(task, completed=missing - max(0, tokens - sum(map(len, texts))))
    return texts


class _TextSampler:
    """Samples texts from a base model without a prompt.

    Args:
        base: the model.
        start_token: the token before every text.
        markup: tokens that are not text; of these only end tokens may be sampled.
        length: tokens of the longest text, `start_token` included.
        seed: of all batches.
    """

    def __init__(self, base: PreTrainedModel, start_token: int, markup: frozenset[int], length: int, seed: int) -> None:
        self._base = base
        self._start_token = start_token
        self._seed = seed
        config: Any = base.config.get_text_config()
        eos = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        self._eos_ids = {token for token in eos if token is not None}
        self.forbidden = markup - self._eos_ids
        self._mask = TokenMask(self.forbidden)
        self._settings = GenerationConfig(
            do_sample=False,  # `_SampleToken` leaves one token, which greedy decoding then takes
            repetition_penalty=1.0,
            max_new_tokens=length - 1,
            eos_token_id=sorted(self._eos_ids) or None,
            pad_token_id=start_token,
        )

    @torch.no_grad()
    def sample(self, number: int, on_tokens: Callable[[int], None]) -> list[list[int]]:
        """The texts of one batch, each with its start token and, if it ended, its end token.

        Args:
            number: of the batch; the same number gives the same texts.
            on_tokens: is given the number of new tokens after each step.
        """
        ids = torch.full((_ROWS, 1), self._start_token, device=self._base.device)
        output = self._base.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=self._settings,
            logits_processor=[_SampleToken(random.Random(f"{self._seed} {number}").getrandbits(63), self._mask)],
            streamer=_StepCounter(on_tokens),
        )
        return [text for row in output.tolist() if len(text := self._until_end(row)) > 1]

    def _until_end(self, row: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(row) if place and token in self._eos_ids), len(row))
        return row[: end + 1]


class _SampleToken(LogitsProcessor):
    """Samples the next token from the base's own distribution: temperature 1, only markup ruled out.

    Takes one random number and a cumulative sum. transformers' sampling draws a random number for each token of the
    vocabulary, which takes longer than the model with 262,144 of them.
    """

    def __init__(self, seed: int, mask: TokenMask) -> None:
        self._mask = mask
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) that leave one possible token in each row, the sampled one."""
        self._mask.apply(scores)
        cumulative = scores.float().softmax(-1).cumsum(-1)
        points = torch.rand((len(scores), 1), generator=self._random).to(scores.device) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, points, right=True)
        tokens = tokens.clamp(max=scores.shape[-1] - 1)  # the product may round up
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens, 0)


class _StepCounter(BaseStreamer):
    """Reports the number of new tokens after each step of a generation."""

    def __init__(self, on_tokens: Callable[[int], None]) -> None:
        self._on_tokens = on_tokens

    def put(self, value: torch.Tensor) -> None:
        self._on_tokens(value.numel())

    def end(self) -> None:
        """Required by the base class; there is nothing to flush."""


def _start_token(transcript: Transcript) -> int:
    """The token before every text: the BOS token, or the EOS token in models without one."""
    for token in (transcript.tokenizer.bos_token_id, transcript.tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise UserError(tr("training.replay: this base model has no start-of-text token; set training.replay to 0"))


def _read_batch(path: Path) -> list[list[int]] | None:
    """A cached batch; None if it is missing or damaged, in which case it is sampled again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[list[int]])
    except (OSError, msgspec.MsgspecError):
        return None


def _write_batch(path: Path, texts: list[list[int]]) -> None:
    with translate_write_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(texts))

"""Replay: text that the base model itself writes, to be trained on among the rest so that it forgets less.

The text is sampled once, before any adapter, and kept in the cache for every later training on the same base with
the same seed. Batch by batch: what was made before an interruption need not be made again.
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
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity
from doppel.terminal import print_status, progress
from doppel.transcript import Transcript
from training.lora.examples import Example

_LONGEST = 256  # tokens of one text: knowledge lies in short ones too, and their sampling is cheaper
_LIKELY_SPEED = {"cpu": 300}  # tokens a second in training, a guess: the measurement comes after the material
_ROWS = 16  # texts sampled at once: on two cores more give little, and a batch is what an interruption costs


def replay(
    base: PreTrainedModel,
    transcript: Transcript,
    identity: BaseIdentity,
    *,
    tokens: int,
    distinct: int,
    length: int,
    seed: int,
) -> list[Example]:
    """Examples of about `tokens` tokens with loss on all of them, sampled at temperature 1 from the start of a text.

    Args:
        base: the base model, without adapters.
        transcript: for the base's tokenizer.
        identity: of the base, by which the cache knows it.
        tokens: how many are wanted; more than `distinct` repeat them.
        distinct: how many may be sampled at most, where time is short.
        length: tokens of the longest example.
        seed: of the sampling.

    Raises:
        UserError: the base has no token that begins a text. DoppelError: the cache cannot be written.
    """
    length = min(length, _LONGEST)
    writer = _Writer(base, _begin(transcript), transcript.safe_tokenizer.markup, length, seed)
    folder = cache_dir() / "replay" / f"{identity.digest[:16]}-{seed}-{length}"
    texts = _texts(writer, folder, min(tokens, distinct))
    taken: list[Example] = []
    left = tokens
    for text in cycle(texts):
        if len(text) > 2 * left:
            break
        taken.append(Example(text, [0] + [1] * (len(text) - 1), 0))
        left -= len(text)
    return taken


def likely_tokens(minutes: float | None, device: str) -> int | None:
    """About how many tokens a training will see; None without a limit of time."""
    return None if minutes is None else round(minutes * 60 * _LIKELY_SPEED.get(device, 20_000))


def _texts(writer: "_Writer", folder: Path, tokens: int) -> list[list[int]]:
    """Texts of at least `tokens` tokens together, from the cache as far as it has them."""
    texts: list[list[int]] = []
    number = 0
    while sum(map(len, texts)) < tokens and (kept := _read(folder / f"{number:05}.json")) is not None:
        texts += [text for text in kept if writer.forbidden.isdisjoint(text[1:])]  # older versions sampled markup
        number += 1
    missing = tokens - sum(map(len, texts))
    if missing <= 0:
        return texts
    print_status(tr("Sampling {tokens} tokens from the base model to replay, once …", tokens=f"{missing:,}"))
    with progress() as bar:
        task = bar.add_task(tr("Sampling"), total=missing, rate="")
        while sum(map(len, texts)) < tokens:
            made = writer.batch(number, lambda count: bar.update(task, advance=count))
            _write(folder / f"{number:05}.json", made)
            texts += made
            number += 1
            bar.update(task, completed=missing - max(0, tokens - sum(map(len, texts))))
    return texts


class _Writer:
    """Lets a base model write texts out of nothing.

    Args:
        base: the model.
        begin: the token before every text.
        markup: tokens that are no text; only those that end one may be sampled.
        length: tokens of the longest text, `begin` included.
        seed: of all the batches.
    """

    def __init__(self, base: PreTrainedModel, begin: int, markup: frozenset[int], length: int, seed: int) -> None:
        self._base = base
        self._begin = begin
        self._seed = seed
        config: Any = base.config.get_text_config()
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        self._ends = {one for one in ends if one is not None}
        self.forbidden = markup - self._ends
        self._mask = TokenMask(self.forbidden)
        self._settings = GenerationConfig(
            do_sample=False,  # `_Draw` has chosen, and what it chose is the likeliest
            repetition_penalty=1.0,
            max_new_tokens=length - 1,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=begin,
        )

    @torch.no_grad()
    def batch(self, number: int, advance: Callable[[int], None]) -> list[list[int]]:
        """The texts of one batch, each with the token it begins with and, if it got there, its end.

        Args:
            number: of the batch; the same one gives the same texts.
            advance: hears how many tokens each step gave.
        """
        ids = torch.full((_ROWS, 1), self._begin, device=self._base.device)
        made = self._base.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=self._settings,
            logits_processor=[_Draw(random.Random(f"{self._seed} {number}").getrandbits(63), self._mask)],
            streamer=_Steps(advance),
        )
        return [text for row in made.tolist() if len(text := self._until_end(row)) > 1]

    def _until_end(self, row: list[int]) -> list[int]:
        last = next((at for at, token in enumerate(row) if at and token in self._ends), len(row))
        return row[: last + 1]


class _Draw(LogitsProcessor):
    """Draws every next token from the base's own distribution: temperature 1, nothing filtered but markup.

    One random number and a running sum do it. The library's own draw takes a random number for each token of the
    vocabulary: with 262,144 of them more than the model's time.
    """

    def __init__(self, seed: int, mask: TokenMask) -> None:
        self._mask = mask
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) in which the token drawn for each row is the only one possible."""
        self._mask.apply(scores)
        below = scores.float().softmax(-1).cumsum(-1)
        chances = torch.rand((len(scores), 1), generator=self._random).to(scores.device) * below[:, -1:]
        drawn = torch.searchsorted(below, chances, right=True).clamp(
            max=scores.shape[-1] - 1
        )  # the product may round up
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0)


class _Steps(BaseStreamer):
    """Tells how many tokens each step of a generation gave."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def put(self, value: torch.Tensor) -> None:
        self._advance(value.numel())

    def end(self) -> None:
        """Nothing is left to tell."""


def _begin(transcript: Transcript) -> int:
    """The token before every text: the one that begins it, or, in models without, the one that ended the last."""
    for token in (transcript.tokenizer.bos_token_id, transcript.tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise UserError(tr("training.replay: this base model has no token that begins a text; set it to 0"))


def _read(path: Path) -> list[list[int]] | None:
    """A batch as it was written; None if there is none, or a damaged one, which is made again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[list[int]])
    except (OSError, msgspec.MsgspecError):
        return None


def _write(path: Path, texts: list[list[int]]) -> None:
    part = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.encode(texts))
        part.replace(path)
    except OSError as error:
        raise DoppelError(
            tr("{path}: cannot be written: {error}", path=path.parent, error=error.strerror or error)
        ) from None

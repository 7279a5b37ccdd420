"""The base model with the adapter under examination, and the log-probabilities of text with and without the adapter.

Both share one copy of the base in memory; the adapter is switched on and off.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from doppel.adapters.lora_file import read_lora
from doppel.adapters.versions import Manifest, read_manifest
from doppel.config import ModelSettings
from doppel.engine.local.lora import LoraAdapters
from doppel.models.base import choose_device, choose_dtype, identify, load_model, load_tokenizer, prepare_base
from doppel.terminal import print_status
from doppel.transcript import ME, NO_LOSS, TEXT_LOSS, Header, Transcript, Turn, normalize, open_transcript
from training.fidelity.served import Exchange, ServedWindow, after_prompt
from training.fidelity.stages import OnProgress
from training.lora.cpu_kernels.install import accelerate
from training.lora.examples import Example, collate, micro_batches
from training.lora.head import supervised_losses
from training.lora.model import token_losses
from training.lora.packing import packing_obstacle, tokens_per_batch

_ROW_TOKENS = 384
"""Tokens of a packed row. Attention costs its square; but each row reads all weights once."""

Array = NDArray[np.float64]


class ExampleLoss(msgspec.Struct, frozen=True):
    """The loss on one example, in nats: on its text, and on the separators between bubbles and turns."""

    text: float
    separators: float
    text_bytes: int


class TurnLoss(msgspec.Struct, frozen=True):
    """The loss on one reply, in nats.

    Attributes:
        session_id: the conversation it is from.
        context_tokens: tokens of the prompt.
        text: of its text.
        ends: of the ends of its bubbles and of the turn.
        text_bytes: bytes of its text.
    """

    session_id: str
    context_tokens: int
    text: float
    ends: float
    text_bytes: int


class Continuations(msgspec.Struct, frozen=True):
    """A prompt and several continuations of it, or of its beginnings. The prompt is computed once for all of them.

    Attributes:
        prompt: token ids, at least one.
        options: token ids of each continuation, at least one each.
        prompt_lengths: how many tokens of the prompt each continuation follows; empty: all of them.
    """

    prompt: list[int]
    options: list[list[int]]
    prompt_lengths: list[int] = []

    @property
    def token_count(self) -> int:
        """Tokens of the prompt and all continuations."""
        return len(self.prompt) + sum(map(len, self.options))

    @property
    def continued(self) -> list[tuple[int, list[int]]]:
        """(tokens of the prompt before it, token ids) of each continuation."""
        return list(zip(self.prompt_lengths or [len(self.prompt)] * len(self.options), self.options, strict=True))


class AdaptedModel:
    """A base model with one adapter that can be disabled.

    Args:
        model: the base, on its device, in evaluation mode.
        transcript: the format the adapter was trained in.
        adapters: attached to the model.
        name: of the adapter among them.
        manifest: of the adapter.
    """

    def __init__(
        self, model: PreTrainedModel, transcript: Transcript, adapters: LoraAdapters, name: str, manifest: Manifest
    ) -> None:
        self.model = model
        self.transcript = transcript
        self.manifest = manifest
        self._adapters = adapters
        self._name = name
        adapters.activate(name)

    @property
    def context_length(self) -> int:
        """Tokens that the base can read."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @contextmanager
    def adapter_disabled(self) -> Iterator[None]:
        """A context in which the model is the base alone."""
        self._adapters.activate(None)
        try:
            yield
        finally:
            self._adapters.activate(self._name)

    @torch.no_grad()
    def example_losses(
        self, examples: Sequence[Example], on_progress: OnProgress = lambda _: None
    ) -> list[ExampleLoss]:
        """The loss on each example, in order. `on_progress` is called with numbers of tokens."""
        results: dict[int, ExampleLoss] = {}
        for group in micro_batches(examples, tokens_per_batch(self.model)):
            losses, loss_mask = token_losses(self.model, collate(group))
            counts = [example.supervised for example in group]
            for example, loss, kinds in zip(group, losses.split(counts), loss_mask.split(counts), strict=True):
                is_text = kinds == TEXT_LOSS
                text, separators = float(loss[is_text].double().sum()), float(loss[~is_text].double().sum())
                results[id(example)] = ExampleLoss(text, separators, example.text_bytes)
            on_progress(sum(len(example.ids) for example in group))
        return [results[id(example)] for example in examples]

    @torch.no_grad()
    def turn_losses(
        self,
        windows: Sequence[ServedWindow],
        on_progress: OnProgress = lambda _: None,
        *,
        prompt: Sequence[int] = (),
    ) -> list[TurnLoss]:
        """The loss on each reply of the windows, in order.

        Args:
            windows: what to read.
            on_progress: is called with numbers of tokens.
            prompt: token ids of a few-shot prompt before every window.
        """
        examples = [_after_prompt(window.example, prompt, self.transcript) for window in windows]
        shifts = [len(example.ids) - len(window.example.ids) for example, window in zip(examples, windows, strict=True)]
        window_of = {id(example): number for number, example in enumerate(examples)}
        results: list[list[TurnLoss]] = [[] for _ in windows]
        for group in micro_batches(examples, tokens_per_batch(self.model)):
            losses, loss_mask = token_losses(self.model, collate(group))
            counts = [example.supervised for example in group]
            for example, loss, kinds in zip(group, losses.split(counts), loss_mask.split(counts), strict=True):
                number = window_of[id(example)]
                results[number] = _split_by_turn(windows[number], shifts[number], loss.double().cpu(), kinds.cpu())
            on_progress(sum(len(example.ids) for example in group))
        return [turn for turns in results for turn in turns]

    def log_probabilities(
        self, requests: Sequence[Continuations], on_progress: OnProgress = lambda _: None
    ) -> list[Array]:
        """log p(continuation | prompt) in nats, shape (options,) for each request, in order."""
        return [
            np.array([tokens.sum() for tokens in options])
            for options in self.token_log_probabilities(requests, on_progress)
        ]

    @torch.no_grad()
    def token_log_probabilities(
        self, requests: Sequence[Continuations], on_progress: OnProgress = lambda _: None
    ) -> list[list[Array]]:
        """log p of each token of each continuation in nats, for each request, in order."""
        if packing_obstacle(self.model) is not None:
            return [self._score_separately(request, on_progress) for request in requests]
        results: dict[int, list[Array]] = {}
        for indices in _pack_rows(requests):
            row = [requests[index] for index in indices]
            results.update(zip(indices, self._score_row(row), strict=True))
            on_progress(sum(request.token_count for request in row))
        return [results[index] for index in range(len(requests))]

    def _score_row(self, requests: Sequence[Continuations]) -> list[list[Array]]:
        """Requests end to end; a continuation attends to what it follows and to itself, never to another one."""
        ids: list[int] = []
        positions: list[int] = []
        sources: list[int] = []
        targets: list[int] = []
        total = sum(request.token_count for request in requests)
        attends = torch.zeros(total, total, dtype=torch.bool)
        for request in requests:
            start, prompt_length = len(ids), len(request.prompt)
            ids += request.prompt
            positions += range(prompt_length)
            attends[start : start + prompt_length, start : start + prompt_length] = _causal(prompt_length)
            for followed, option in request.continued:
                option_start, length = len(ids), len(option)
                option_end = option_start + length
                sources += [start + followed - 1, *range(option_start, option_end - 1)]
                targets += option
                ids += option
                positions += range(followed, followed + length)
                attends[option_start:option_end, start : start + followed] = True
                attends[option_start:option_end, option_start:option_end] = _causal(length)
        scores = -self._packed_losses(ids, positions, attends, sources, targets).double().cpu().numpy()
        ends = np.cumsum([len(option) for request in requests for option in request.options])
        parts = iter(np.split(scores, ends[:-1]))
        return [[next(parts) for _ in request.options] for request in requests]

    def _score_separately(self, request: Continuations, on_progress: OnProgress) -> list[Array]:
        """Like `_score_row`, for models that carry a state along the row and cannot be packed."""
        scores = []
        for followed, option in request.continued:
            ids = request.prompt[:followed] + option
            hidden = self.model.base_model(input_ids=self._tensor([ids]), use_cache=False).last_hidden_state[0]
            losses = self._head_losses(hidden[followed - 1 : -1], option)
            scores.append(-losses.double().cpu().numpy())
            on_progress(len(ids))
        return scores

    def _packed_losses(
        self, ids: list[int], positions: list[int], attends: torch.Tensor, sources: list[int], targets: list[int]
    ) -> torch.Tensor:
        hidden = self.model.base_model(
            input_ids=self._tensor([ids]),
            position_ids=self._tensor([positions]),
            attention_mask=self._attention_masks(attends, torch.tensor(positions)),
            use_cache=False,
        ).last_hidden_state[0]
        return self._head_losses(hidden[torch.tensor(sources, device=hidden.device)], targets)

    def _attention_masks(
        self, attends: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Masks as transformers uses them unchanged: (1, 1, N, N), one for each kind of layer if they differ."""
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None)
        whole = attends[None, None].to(self.model.device)
        if window is None or not getattr(config, "use_sliding_window", True):
            return whole
        near = (attends & (positions[:, None] - positions[None, :] < window))[None, None].to(self.model.device)
        if len(kinds) > 1:
            return {"full_attention": whole, "sliding_attention": near}
        return whole if kinds == {"full_attention"} else near

    def _head_losses(self, hidden: torch.Tensor, targets: list[int]) -> torch.Tensor:
        softcap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        weight = self.model.get_output_embeddings().weight
        return supervised_losses(hidden, weight, self._tensor(targets), softcap)

    def _tensor(self, numbers: list[int] | list[list[int]]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.model.device)


def reply_ids(transcript: Transcript, turn: Turn) -> list[int]:
    """The token ids of a turn of the persona's after a prompt. They do not depend on what is before them."""
    prompt = transcript.prompt(Header(), ())
    return transcript.encode(Header(), (turn,)).ids[len(prompt) :]


def reply_continuations(transcript: Transcript, exchange: Exchange, replies: Iterable[Sequence[str]]) -> Continuations:
    """The prompt of an exchange, continued by each of these replies, given as bubbles."""
    return Continuations(
        transcript.prompt(exchange.header, exchange.context),
        [reply_ids(transcript, Turn(ME, tuple(bubbles))) for bubbles in replies],
    )


def load_adapted_model(settings: ModelSettings, folder: Path) -> AdaptedModel:
    """Loads a published adapter on the configured base model.

    Raises:
        AdapterRefused: the adapter is damaged or belongs to another base. UserError: the base cannot be used.
    """
    base_folder = prepare_base(settings, print_status)
    device = choose_device(settings.device)
    lora = read_lora(folder, identify(base_folder, settings.base))
    model = load_model(base_folder, choose_dtype(settings.dtype, device, base_folder), device)
    accelerate(model)
    adapters = LoraAdapters(model)
    adapters.attach(lora)
    transcript = open_transcript(load_tokenizer(base_folder), lora.transcript)
    return AdaptedModel(model, transcript, adapters, lora.name, read_manifest(folder))


def _after_prompt(example: Example, prompt: Sequence[int], transcript: Transcript) -> Example:
    """The example as it goes on from a few-shot prompt, which has no loss."""
    if not prompt:
        return example
    ids = after_prompt(prompt, example.ids, transcript)
    return Example(ids, [NO_LOSS] * (len(ids) - len(example.ids)) + example.loss_mask, example.text_bytes)


def _split_by_turn(window: ServedWindow, shift: int, losses: torch.Tensor, kinds: torch.Tensor) -> list[TurnLoss]:
    """The losses (S,) of a window's supervised tokens, reply by reply; `shift` tokens were put before the window."""
    mask = window.example.loss_mask
    turns, at = [], 0
    for exchange, start, end in zip(window.exchanges, window.prompt_lengths, window.ends, strict=True):
        count = sum(loss > NO_LOSS for loss in mask[start:end])
        loss, is_text = losses[at : at + count], kinds[at : at + count] == TEXT_LOSS
        at += count
        turns.append(
            TurnLoss(
                session_id=exchange.session_id,
                context_tokens=start + shift,
                text=float(loss[is_text].sum()),
                ends=float(loss[~is_text].sum()),
                text_bytes=sum(len(normalize(bubble).encode()) for bubble in exchange.reply.bubbles),
            )
        )
    return turns


def _pack_rows(requests: Sequence[Continuations]) -> list[list[int]]:
    """Indices of the requests that share a row: first-fit decreasing bin packing."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(requests)), key=lambda index: requests[index].token_count, reverse=True):
        count = requests[index].token_count
        row = next((number for number, room in enumerate(free) if room >= count), None)
        if row is None:
            rows.append([])
            free.append(_ROW_TOKENS)
            row = len(rows) - 1
        rows[row].append(index)
        free[row] -= count
    return rows


def _causal(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()

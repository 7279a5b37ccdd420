"""The adapter under examination on its base model, and what both think of texts: log-probabilities, in batches.

The base alone and the base with the adapter are one model in memory, switched between. Knows tokens; knows no measure.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from doppel.adapters.lora_file import read_lora
from doppel.adapters.versions import Manifest, read_manifest
from doppel.config import Config
from doppel.engine.local.lora import Adapters
from doppel.models.base import choose_device, choose_dtype, identify, load_model, load_tokenizer, prepare_base
from doppel.terminal import print_status
from doppel.transcript import Transcript, open_transcript
from training.lora.cpu_kernels.install import accelerate
from training.lora.examples import Example, collate, micro_batches
from training.lora.head import supervised_losses
from training.lora.model import token_losses
from training.lora.packing import packing_obstacle, tokens_per_batch

_ROW = 384
"""Tokens of a row of questions: more make attention, which is their square, expensive; fewer read the weights often."""

Array = NDArray[np.float64]
Advance = Callable[[int], None]


class Scored(msgspec.Struct, frozen=True):
    """What a model thinks of one example, in nats: of the text, and of the ends of bubbles and turns."""

    text: float
    ends: float
    text_bytes: int


class Question(msgspec.Struct, frozen=True):
    """A beginning and several ways to go on. The beginning is computed once for all of them.

    Attributes:
        prompt: token ids of the beginning, at least one; with an answer shorter than a base's sliding window.
        answers: token ids of each continuation, at least one each.
    """

    prompt: list[int]
    answers: list[list[int]]

    @property
    def size(self) -> int:
        """Tokens of it all."""
        return len(self.prompt) + sum(map(len, self.answers))


class Subject:
    """A base model with one adapter that may be in force or not.

    Args:
        model: the base, on its device, in evaluation mode.
        transcript: in which the adapter was trained.
        adapters: attached to the model.
        name: of the adapter among them.
        manifest: of the adapter.
    """

    def __init__(
        self, model: PreTrainedModel, transcript: Transcript, adapters: Adapters, name: str, manifest: Manifest
    ) -> None:
        self.model = model
        self.transcript = transcript
        self.manifest = manifest
        self._adapters = adapters
        self._name = name
        adapters.activate(name)

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        """Within it the adapter is out of force."""
        self._adapters.activate(None)
        try:
            yield
        finally:
            self._adapters.activate(self._name)

    @torch.no_grad()
    def score(self, items: Sequence[Example], advance: Advance = lambda _: None) -> list[Scored]:
        """A score for every example, in their order. `advance` hears how many tokens were read."""
        scores: dict[int, Scored] = {}
        for group in micro_batches(items, tokens_per_batch(self.model)):
            losses, loss_mask = token_losses(self.model, collate(group))
            parts = zip(*(one.split([item.supervised for item in group]) for one in (losses, loss_mask)), strict=True)
            for item, (loss, role) in zip(group, parts, strict=True):
                is_text = role == 1
                text, ends = float(loss[is_text].double().sum()), float(loss[~is_text].double().sum())
                scores[id(item)] = Scored(text, ends, item.text_bytes)
            advance(sum(len(item.ids) for item in group))
        return [scores[id(item)] for item in items]

    def answer(self, questions: Sequence[Question], advance: Advance = lambda _: None) -> list[Array]:
        """log p(answer | prompt) in nats, (answers,) for every question, in their order."""
        return [np.array([one.sum() for one in parts]) for parts in self.tokens(questions, advance)]

    @torch.no_grad()
    def tokens(self, questions: Sequence[Question], advance: Advance = lambda _: None) -> list[list[Array]]:
        """log p of each token of each answer in nats, for every question, in their order."""
        if packing_obstacle(self.model) is not None:
            return [self._one_by_one(question, advance) for question in questions]
        results: dict[int, list[Array]] = {}
        for places in _rows(questions):
            row = [questions[place] for place in places]
            results.update(zip(places, self._row(row), strict=True))
            advance(sum(one.size for one in row))
        return [results[place] for place in range(len(questions))]

    def _row(self, questions: Sequence[Question]) -> list[list[Array]]:
        """Questions end to end; in each, answers see the prompt and themselves, and neither sees another answer."""
        ids: list[int] = []
        positions: list[int] = []
        sources: list[int] = []
        targets: list[int] = []
        total = sum(one.size for one in questions)
        seen = torch.zeros(total, total, dtype=torch.bool)
        for question in questions:
            start, prompt = len(ids), len(question.prompt)
            ids += question.prompt
            positions += range(prompt)
            seen[start : start + prompt, start : start + prompt] = _causal(prompt)
            for answer in question.answers:
                at, count = len(ids), len(answer)
                sources += [start + prompt - 1, *range(at, at + count - 1)]
                targets += answer
                ids += answer
                positions += range(prompt, prompt + count)
                seen[at : at + count, start : start + prompt] = True
                seen[at : at + count, at : at + count] = _causal(count)
        scores = -self._losses(ids, positions, seen, sources, targets).double().cpu().numpy()
        ends = np.cumsum([len(answer) for question in questions for answer in question.answers])
        parts = iter(np.split(scores, ends[:-1]))
        return [[next(parts) for _ in question.answers] for question in questions]

    def _one_by_one(self, question: Question, advance: Advance) -> list[Array]:
        """As `_row` for models that keep a state along the row."""
        values = []
        for answer in question.answers:
            ids = question.prompt + answer
            hidden = self.model.base_model(input_ids=self._tensor([ids]), use_cache=False).last_hidden_state[0]
            losses = self._head(hidden[len(question.prompt) - 1 : -1], answer)
            values.append(-losses.double().cpu().numpy())
            advance(len(ids))
        return values

    def _losses(
        self, ids: list[int], positions: list[int], seen: torch.Tensor, sources: list[int], targets: list[int]
    ) -> torch.Tensor:
        hidden = self.model.base_model(
            input_ids=self._tensor([ids]),
            position_ids=self._tensor([positions]),
            attention_mask=seen[None, None].to(self.model.device),  # four dimensions: taken as it is
            use_cache=False,
        ).last_hidden_state[0]
        return self._head(hidden[torch.tensor(sources, device=hidden.device)], targets)

    def _head(self, hidden: torch.Tensor, targets: list[int]) -> torch.Tensor:
        softcap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        weight = self.model.get_output_embeddings().weight
        return supervised_losses(hidden, weight, self._tensor(targets), softcap)

    def _tensor(self, numbers: list[int] | list[list[int]]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.model.device)


def open_subject(config: Config, folder: Path) -> Subject:
    """A published adapter on the configured base model.

    Raises:
        AdapterRefused: it is damaged, or of another base. UserError: the base cannot be used.
    """
    base_folder = prepare_base(config.model, print_status)
    device = choose_device(config.model.device)
    lora = read_lora(folder, identify(base_folder, config.model.base))
    model = load_model(base_folder, choose_dtype(config.model.dtype, device), device)
    accelerate(model)
    adapters = Adapters(model)
    adapters.attach(lora)
    transcript = open_transcript(load_tokenizer(base_folder), lora.transcript)
    return Subject(model, transcript, adapters, lora.name, read_manifest(folder))


def _rows(questions: Sequence[Question]) -> list[list[int]]:
    """Places of the questions that share a row, which is full as well as their lengths allow: the longest first."""
    rows: list[list[int]] = []
    rooms: list[int] = []
    for place in sorted(range(len(questions)), key=lambda place: questions[place].size, reverse=True):
        size = questions[place].size
        row = next((number for number, room in enumerate(rooms) if room >= size), None)
        if row is None:
            rows.append([])
            rooms.append(_ROW)
            row = len(rows) - 1
        rows[row].append(place)
        rooms[row] -= size
    return rows


def _causal(count: int) -> torch.Tensor:
    return torch.ones(count, count, dtype=torch.bool).tril()

"""Mixes instruction data into the training examples, in the share of the training tokens that config.yaml sets.

The assistant's turns are learned under a header and a speaker name of their own (docs/decisions/0007-mixed-data.md),
so that they do not change how the persona writes. Which dialogues are used depends on file, share and seed alone.
"""

import heapq
import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from doppel.config import TrainingSettings
from doppel.i18n import tr
from doppel.system.durable_files import file_digest
from doppel.terminal import print_status, progress
from doppel.transcript import Header, Transcript, Turn
from training.archives.formats.instructions import Dialogue, read_instructions
from training.lora.examples import Example, count_tokens, cut

ASSISTANT = "Assistant"
HEADER = Header(kind="instruction")
"""No session has this header and serving never builds it, so the assistant's style stays apart from the persona's."""

_SPEAKERS = {"system": "System", "user": "User", "assistant": ASSISTANT}
_MAX_REPEATS = 4  # up to four epochs, repeated text teaches nearly as much as new text (arXiv 2305.16264)
_BYTES_PER_TOKEN = 32  # more than any tokenizer needs; sizes the pool of dialogues to choose from
_CLOSE_ENOUGH = 0.95  # of the share: dialogues are taken whole or not at all
_REJECTED_SHOWN = 3


class MixSource(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from one file, for the manifest.

    Attributes:
        file: its name, without folders.
        digest: SHA-256 of the file.
        share: of the training tokens, as it came out.
        tokens, dialogues: taken for one epoch, repeats included.
        left_out: number of records that could not be used.
    """

    file: str
    digest: str
    share: float
    tokens: int
    dialogues: int
    left_out: int


class MixedExamples(msgspec.Struct, frozen=True):
    """Examples to train on besides the owner's, and the files they come from."""

    examples: list[Example]
    sources: list[MixSource]


def load_mix(
    training: TrainingSettings, root: Path, own: Sequence[Example], transcript: Transcript, max_length: int
) -> MixedExamples:
    """The examples that `training.mix` adds to the owner's.

    Args:
        training: the `training` section of config.yaml.
        root: the folder that paths are relative to.
        own: the owner's examples, one epoch.
        transcript: for the base's tokenizer.
        max_length: tokens of the longest example.

    Raises:
        UserError: a file cannot be read or holds no instruction data.
    """
    shares = sum(entry.share for entry in training.mix)
    own_tokens = count_tokens(own)
    total = own_tokens / (1 - shares - training.replay)
    selections = [
        _select(root / Path(entry.path).expanduser(), round(entry.share * total), transcript, max_length, training.seed)
        for entry in training.mix
    ]
    total = (own_tokens + sum(count_tokens(selection.examples) for selection in selections)) / (1 - training.replay)
    for selection, entry in zip(selections, training.mix, strict=True):
        _print_selection(selection, entry.share, total)
    return MixedExamples(
        [example for selection in selections for example in selection.examples],
        [_source(selection, total) for selection in selections],
    )


def dialogue_examples(dialogue: Dialogue, transcript: Transcript, max_length: int) -> list[Example]:
    """A dialogue as examples with loss on the assistant's turns."""
    turns = [
        Turn(_SPEAKERS[role], tuple(utterance.text for utterance in utterances))
        for role, utterances in groupby(dialogue.turns, lambda utterance: utterance.role)
    ]
    encoded = transcript.encode(HEADER, turns, ASSISTANT)
    return [example for example in cut(encoded, max_length) if example.supervised]


class _Selection(msgspec.Struct, frozen=True):
    """What is taken from a file.

    Attributes:
        path: of the file.
        examples: one epoch.
        distinct_tokens: of them that are not repeats.
        dialogues: number taken, repeats included.
        rejected: position and reason of each record that could not be used.
    """

    path: Path
    examples: list[Example]
    distinct_tokens: int
    dialogues: int
    rejected: list[tuple[str, str]]


def _select(path: Path, budget: int, transcript: Transcript, max_length: int, seed: int) -> _Selection:
    """Examples of about `budget` tokens from a file."""
    print_status(tr("Reading {path} …", path=path))
    rejected: list[tuple[str, str]] = []
    with progress(counted=False) as bar:
        task = bar.add_task(path.name, total=path.stat().st_size if path.is_file() else None, rate="")
        dialogues = read_instructions(
            path,
            lambda position, reason: rejected.append((position, reason)),
            lambda count: bar.update(task, advance=count),
        )
        pool = _sample(dialogues, budget * _BYTES_PER_TOKEN, seed)
    groups = _fill((dialogue_examples(dialogue, transcript, max_length) for dialogue in pool), budget)
    groups = groups or [dialogue_examples(min(pool, key=_text_bytes), transcript, max_length)]
    distinct = sum(count_tokens(group) for group in groups)
    if distinct < _CLOSE_ENOUGH * budget:
        repeats = min(_MAX_REPEATS, budget // distinct)
        rest = _fill(groups, budget - repeats * distinct) if repeats < _MAX_REPEATS else []
        groups = groups * repeats + rest
    return _Selection(path, [example for group in groups for example in group], distinct, len(groups), rejected)


def _sample(dialogues: Iterable[Dialogue], min_bytes: int, seed: int) -> list[Dialogue]:
    """A random sample in random order, of at least `min_bytes` if there are that many.

    Each dialogue draws a number and those with the lowest are kept, so that memory never holds more than the sample.
    """
    draw = random.Random(seed)
    kept: list[tuple[float, int, Dialogue]] = []
    kept_bytes = 0
    smallest: Dialogue | None = None  # of those that are too large: a fallback
    for number, dialogue in enumerate(dialogues):
        if _text_bytes(dialogue) > min_bytes:
            smallest = min(filter(None, (smallest, dialogue)), key=_text_bytes)
            continue
        heapq.heappush(kept, (-draw.random(), number, dialogue))
        kept_bytes += _text_bytes(dialogue)
        while kept_bytes - _text_bytes(kept[0][2]) >= min_bytes:
            kept_bytes -= _text_bytes(heapq.heappop(kept)[2])
    sample = [dialogue for _, _, dialogue in sorted(kept, key=lambda entry: -entry[0])]
    return sample if smallest is None or sample else [smallest]


def _fill(groups: Iterable[list[Example]], budget: int) -> list[list[Example]]:
    """Groups in their order that add up to about `budget` tokens; skips a group that would overshoot by more."""
    filled: list[list[Example]] = []
    tokens = 0
    for group in groups:
        size = count_tokens(group)
        if tokens + size - budget <= budget - tokens:
            filled.append(group)
            tokens += size
        if tokens >= _CLOSE_ENOUGH * budget:
            break
    return filled


def _print_selection(selection: _Selection, requested_share: float, total: float) -> None:
    """Prints what was taken of `total` training tokens, and what was left out."""
    path, tokens = selection.path, count_tokens(selection.examples)
    for position, reason in selection.rejected[:_REJECTED_SHOWN]:
        print_status(tr("{path}, {position}: {reason}; skipped", path=path, position=position, reason=reason))
    if len(selection.rejected) > _REJECTED_SHOWN:
        print_status(tr("{path}: {count} records skipped in all", path=path, count=f"{len(selection.rejected):,}"))
    print_status(
        tr(
            "{path}: {dialogues} dialogues, {tokens} tokens, {share:.1%} of the training",
            path=path,
            dialogues=f"{selection.dialogues:,}",
            tokens=f"{tokens:,}",
            share=tokens / total,
        )
    )
    if tokens > selection.distinct_tokens:
        print_status(
            tr(
                "{path}: too small for its share, so it is read {times:.1f} times per epoch",
                path=path,
                times=tokens / selection.distinct_tokens,
            )
        )
    if tokens < _CLOSE_ENOUGH * requested_share * total:
        print_status(
            tr(
                "{path}: too small for {wanted:.1%} of the training, even when read {times} times",
                path=path,
                wanted=requested_share,
                times=_MAX_REPEATS,
            )
        )


def _source(selection: _Selection, total: float) -> MixSource:
    tokens = count_tokens(selection.examples)
    return MixSource(
        file=selection.path.name,
        digest=file_digest(selection.path),
        share=round(tokens / total, 4),
        tokens=tokens,
        dialogues=selection.dialogues,
        left_out=len(selection.rejected),
    )


def _text_bytes(dialogue: Dialogue) -> int:
    return sum(len(utterance.text.encode(errors="replace")) for utterance in dialogue.turns)

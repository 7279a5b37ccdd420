"""Instruction data among the training examples, in the share of the training tokens that config.yaml asks for.

What an assistant says is learned under a header and a name of its own (docs/decisions/0007-mixed-data.md), so the
persona's words stay the persona's. Which dialogues are taken depends on file, share and seed alone. Knows no model.
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
from training.lora.examples import Example, cut

ASSISTANT = "Assistant"
HEADER = Header(kind="instruction")
"""No session has it and serving never builds it, so it keeps the assistant's manner apart from the persona's."""

_NAMES = {"system": "System", "user": "User", "assistant": ASSISTANT}
_MOST_TIMES = 4  # up to four readings repeated text teaches nearly as much as new (arXiv 2305.16264)
_BYTES_PER_TOKEN = 32  # more than any tokenizer needs: dialogues of so many bytes are kept to choose from
_NEAR = 0.95  # of a share is near enough: a dialogue is taken whole or not at all
_BAD_SHOWN = 3


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from one file, for the manifest.

    Attributes:
        file: its name, without the folders above it.
        digest: SHA-256 of the file.
        share: of the training tokens, as it came out.
        tokens, dialogues: taken for one epoch, repetitions counted.
        left_out: records that could not be used.
    """

    file: str
    digest: str
    share: float
    tokens: int
    dialogues: int
    left_out: int


class MixedExamples(msgspec.Struct, frozen=True):
    """Examples to train on beside the owner's, and where they are from."""

    items: list[Example]
    sources: list[Source]


def mix(
    training: TrainingSettings, root: Path, own: Sequence[Example], transcript: Transcript, max_length: int
) -> MixedExamples:
    """The examples that `training.mix` asks for, beside the owner's own.

    Args:
        training: config.yaml's section.
        root: the folder that paths are relative to.
        own: the owner's examples, one epoch.
        transcript: for the base's tokenizer.
        max_length: tokens of the longest example.

    Raises:
        UserError: a file cannot be read or holds no instruction data.
    """
    shares = sum(one.share for one in training.mix)
    own_tokens = count_tokens(own)
    total = own_tokens / (1 - shares - training.replay)
    taken = [
        _take(root / Path(one.path).expanduser(), round(one.share * total), transcript, max_length, training.seed)
        for one in training.mix
    ]
    total = (own_tokens + sum(count_tokens(one.items) for one in taken)) / (1 - training.replay)
    for one, wanted in zip(taken, training.mix, strict=True):
        _tell(one, wanted.share, total)
    return MixedExamples([item for one in taken for item in one.items], [_source(one, total) for one in taken])


def count_tokens(items: Iterable[Example]) -> int:
    """Tokens of examples together."""
    return sum(len(example.ids) for example in items)


def dialogue_examples(dialogue: Dialogue, transcript: Transcript, max_length: int) -> list[Example]:
    """A dialogue as examples with loss on the assistant's turns."""
    turns = [
        Turn(_NAMES[role], tuple(one.text for one in run))
        for role, run in groupby(dialogue.turns, lambda one: one.role)
    ]
    encoded = transcript.encode(HEADER, turns, ASSISTANT)
    return [example for example in cut(encoded, max_length) if example.supervised]


class _Taken(msgspec.Struct, frozen=True):
    """What is taken from a file: `items` make one epoch, `distinct` of their tokens are no repetition."""

    path: Path
    items: list[Example]
    distinct: int
    dialogues: int
    bad: list[tuple[str, str]]


def _take(path: Path, budget: int, transcript: Transcript, max_length: int, seed: int) -> _Taken:
    """Examples of about `budget` tokens from a file."""
    print_status(tr("Reading {path} …", path=path))
    bad: list[tuple[str, str]] = []
    with progress(counted=False) as bar:
        task = bar.add_task(path.name, total=path.stat().st_size if path.is_file() else None, rate="")
        dialogues = read_instructions(
            path, lambda position, reason: bad.append((position, reason)), lambda count: bar.update(task, advance=count)
        )
        chosen = _sample(dialogues, budget * _BYTES_PER_TOKEN, seed)
    groups = _fill((dialogue_examples(one, transcript, max_length) for one in chosen), budget)
    groups = groups or [dialogue_examples(min(chosen, key=_size), transcript, max_length)]
    distinct = sum(count_tokens(group) for group in groups)
    if distinct < _NEAR * budget:
        times = min(_MOST_TIMES, budget // distinct)
        groups = groups * times + (_fill(groups, budget - times * distinct) if times < _MOST_TIMES else [])
    return _Taken(path, [example for group in groups for example in group], distinct, len(groups), bad)


def _sample(dialogues: Iterable[Dialogue], most_bytes: int, seed: int) -> list[Dialogue]:
    """A random sample in random order, of `most_bytes` at least if there are so many.

    Every dialogue draws a lot and the lowest stay, so that memory holds no more than the sample.
    """
    lots = random.Random(seed)
    kept: list[tuple[float, int, Dialogue]] = []
    held = 0
    smallest: Dialogue | None = None  # of those too large to be taken: better than nothing
    for number, dialogue in enumerate(dialogues):
        if _size(dialogue) > most_bytes:
            smallest = min(filter(None, (smallest, dialogue)), key=_size)
            continue
        heapq.heappush(kept, (-lots.random(), number, dialogue))
        held += _size(dialogue)
        while held - _size(kept[0][2]) >= most_bytes:
            held -= _size(heapq.heappop(kept)[2])
    in_order = [dialogue for _, _, dialogue in sorted(kept, key=lambda one: -one[0])]
    return in_order if smallest is None or in_order else [smallest]


def _fill(groups: Iterable[list[Example]], budget: int) -> list[list[Example]]:
    """Groups that together come near to `budget` tokens, in their order; one that would lead away is passed over."""
    taken: list[list[Example]] = []
    tokens = 0
    for group in groups:
        size = count_tokens(group)
        if tokens + size - budget <= budget - tokens:
            taken.append(group)
            tokens += size
        if tokens >= _NEAR * budget:
            break
    return taken


def _tell(taken: _Taken, wanted: float, total: float) -> None:
    """Says what was taken, and what was left out, of `total` training tokens."""
    path, tokens = taken.path, count_tokens(taken.items)
    for position, reason in taken.bad[:_BAD_SHOWN]:
        print_status(tr("{path}, {position}: {reason}; left out", path=path, position=position, reason=reason))
    if len(taken.bad) > _BAD_SHOWN:
        print_status(tr("{path}: {count} records left out in all", path=path, count=f"{len(taken.bad):,}"))
    print_status(
        tr(
            "{path}: {dialogues} dialogues, {tokens} tokens, {share:.1%} of the training",
            path=path,
            dialogues=f"{taken.dialogues:,}",
            tokens=f"{tokens:,}",
            share=tokens / total,
        )
    )
    if tokens > taken.distinct:
        print_status(
            tr(
                "{path}: small for its share, so read {times:.1f} times an epoch",
                path=path,
                times=tokens / taken.distinct,
            )
        )
    if tokens < _NEAR * wanted * total:
        print_status(
            tr(
                "{path}: too small for {wanted:.1%} of the training, even read {times} times",
                path=path,
                wanted=wanted,
                times=_MOST_TIMES,
            )
        )


def _source(taken: _Taken, total: float) -> Source:
    tokens = count_tokens(taken.items)
    return Source(
        file=taken.path.name,
        digest=file_digest(taken.path),
        share=round(tokens / total, 4),
        tokens=tokens,
        dialogues=taken.dialogues,
        left_out=len(taken.bad),
    )


def _size(dialogue: Dialogue) -> int:
    return sum(len(one.text.encode(errors="replace")) for one in dialogue.turns)

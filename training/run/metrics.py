"""metrics.jsonl: what a training measured, one line per step and one per validation.

Numbers only: no text, no names, no paths. The file is published with the adapter. When a run resumes from a
checkpoint, the lines after that checkpoint are removed first, so that each step appears once.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from doppel.system.atomic_file import write_atomically

FILE = "metrics.jsonl"


class MetricsRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. A step has the fields from `loss` to `tokens_per_second`, a validation the last two.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the training examples.
        tokens: trained on so far.
        seconds: of training so far, without the time between an interruption and resuming.
        loss: mean over the step's supervised tokens, nats.
        learning_rate: of the step.
        grad_norm: of all trained weights together, before clipping.
        tokens_per_second: of this step.
        bits_per_byte: of the validation messages.
        end_nats: mean loss at the ends of their bubbles and turns, nats.
    """

    step: int
    epoch: float
    tokens: int
    seconds: float
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    bits_per_byte: float | None = None
    end_nats: float | None = None


def read_metrics(path: Path) -> Iterator[MetricsRow]:
    """The lines of a metrics.jsonl up to the first damaged one; none if the file does not exist."""
    decoder = msgspec.json.Decoder(MetricsRow)
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield decoder.decode(line)
        except msgspec.MsgspecError:
            return


def truncate_metrics(path: Path, step: int) -> None:
    """Removes the lines after a step, atomically. Raises DoppelError."""
    write_atomically(path, b"".join(_line(row) for row in read_metrics(path) if row.step <= step))


def append_metrics(path: Path, row: MetricsRow) -> None:
    """Appends a line. Raises OSError."""
    with path.open("ab") as file:
        file.write(_line(row))


def _line(row: MetricsRow) -> bytes:
    return msgspec.json.encode(row) + b"\n"

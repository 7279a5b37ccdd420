"""metrics.jsonl: what a training measured, a line a step and a line a validation.

Numbers only: no text, no names, no paths. The file grows with the run and is published with the adapter. Where a
run goes on from a checkpoint, the lines after it are cut off first, so that every step stands in it once.
Knows no trainer.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

FILE = "metrics.jsonl"


class MetricsRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. A step has the fields from `loss` to `tokens_per_second`, a validation the last two.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the training examples.
        tokens: tokens trained on so far.
        seconds: since training began, times between an interruption and going on left out.
        loss: mean of the step's supervised tokens, nats.
        learning_rate: of the step.
        grad_norm: of all trained weights together, before clipping.
        tokens_per_second: of the step alone.
        bits_per_byte: of the persona's held-out text.
        end_nats: mean loss of the held-out ends of bubbles and turns, nats.
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
    """The lines of a metrics.jsonl; none where there is no file, and no further than a kill let the last line grow."""
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


def truncate_metrics(path: Path, step: int) -> MetricsRow | None:
    """Keeps the lines up to a step, in one swap, and returns the last of them. Raises OSError."""
    kept = [metric for metric in read_metrics(path) if metric.step <= step]
    part = path.with_name(f".{path.name}")
    part.write_bytes(b"".join(_line(metric) for metric in kept))
    part.replace(path)
    return kept[-1] if kept else None


def append_metric(path: Path, metric: MetricsRow) -> None:
    """Appends a line. Raises OSError."""
    with path.open("ab") as file:
        file.write(_line(metric))


def _line(metric: MetricsRow) -> bytes:
    return msgspec.json.encode(metric) + b"\n"

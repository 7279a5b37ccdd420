"""metrics.jsonl has each step once, also after an interruption."""

from pathlib import Path

from training.run.metrics import MetricsRow, append_metrics, read_metrics, truncate_metrics


def metric(step: int, **numbers: float) -> MetricsRow:
    return MetricsRow(step=step, epoch=step / 10, tokens=step * 100, seconds=float(step), **numbers)


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    lines = [metric(1, loss=2.5, learning_rate=1e-4, grad_norm=0.5, tokens_per_second=50.0), metric(1, end_nats=0.25)]
    for line in lines:
        append_metrics(tmp_path / "metrics.jsonl", line)
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == lines
    assert list(read_metrics(tmp_path / "none.jsonl")) == []


def test_resuming_from_a_checkpoint_removes_later_lines_and_an_incomplete_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        append_metrics(path, metric(step, loss=1.0))
    append_metrics(path, metric(3, bits_per_byte=1.5))
    path.write_bytes(path.read_bytes() + b'{"step": 6, "epo')
    truncate_metrics(path, 3)
    append_metrics(path, metric(4, loss=2.0))
    assert [(line.step, line.loss) for line in read_metrics(path)] == [(1, 1), (2, 1), (3, 1), (3, None), (4, 2)]
    truncate_metrics(path, 0)
    assert path.read_bytes() == b""


def test_a_missing_file_is_truncated_to_nothing(tmp_path: Path) -> None:
    truncate_metrics(tmp_path / "metrics.jsonl", 5)
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == []

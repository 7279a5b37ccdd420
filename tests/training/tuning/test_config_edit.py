"""Editing config.yaml changes the values asked for, and not one other character."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from doppel.config import load_config
from doppel.errors import UserError
from training.tuning.config_edit import _dump, _yaml, edited, write_settings

ROOT = Path(__file__).parents[3]
VALUES = {"learning_rate": 0.00042, "rank": 64, "epochs": 1.5, "sessions_per_step": 8}


@pytest.mark.parametrize("name", ["config.yaml", "config.zh-CN.yaml"])
def test_the_shipped_file_keeps_everything_but_the_values(tmp_path: Path, name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    write_settings(path, "training", VALUES)
    training = load_config(path).training
    assert {key: getattr(training, key) for key in VALUES} == VALUES
    before, after = text.splitlines(), path.read_text(encoding="utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [new.split(":")[0].strip() for _, new in changed] == [
        key for key in yaml.safe_load(text)["training"] if key in VALUES
    ]
    for old, new in changed:  # the comments stay in their column, where there is room
        assert old.partition("#")[2] == new.partition("#")[2]
        if "learning_rate" in old:
            assert old.index("#") == new.index("#")


@pytest.mark.parametrize("name", ["config.yaml", "config.zh-CN.yaml"])
def test_the_shipped_file_is_unchanged_if_nothing_changes(name: str) -> None:
    text = (ROOT / name).read_bytes().decode("utf-8")
    assert edited(text, "training", {}) == text
    parser = _yaml(2)
    assert _dump(parser.load(text), 2) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "training:\n  rank: 8\n"),
        ("# only words\n", "# only words\ntraining:\n  rank: 8\n"),
        ("archive: sample", "archive: sample\n\ntraining:\n  rank: 8\n"),
        ("training:\narchive: sample\n", "training:\n  rank: 8\narchive: sample\n"),
        ("training: null # mine\n", "training:      # mine\n  rank: 8\n"),
        ("training: {seed: 1, # mine\n  rank: 4}\n", None),
        ("a: &x 4\ntraining:\n  rank: *x\n", "a: &x 4\ntraining:\n  rank: 8\n"),
        ("training: { rank: 4 }\nreply: { max_bubbles:  1 }\n", "training: {rank: 8}\nreply: { max_bubbles:  1 }\n"),
        ("a:  'x'\nb:\n    - 1\ntraining:\n  rank: 4\n", "a:  'x'\nb:\n    - 1\ntraining:\n  rank: 8\n"),
        ("training:\n  rank: 4\n  # seed: 0\n", "training:\n  rank: 8\n  # seed: 0\n"),
        ("training:\n  seed: 1\n  # rank: 0\n\n# Next\n", "training:\n  rank: 8\n  seed: 1\n  # rank: 0\n\n# Next\n"),
        ("training: {}\n", "training: {rank: 8}\n"),
        ("training: {seed: 1}\n", "training: {seed: 1, rank: 8}\n"),
        ("training: {rank: 4, seed: 1}\n", "training: {rank: 8, seed: 1}\n"),
        ("training:\n    # mine\n    seed: 1\n", "training:\n    # mine\n    rank: 8\n    seed: 1\n"),
        ("training:\n  rank:\n  seed: 1\n", "training:\n  rank: 8\n  seed: 1\n"),
        ("training:\n  rank: 128    # big\n", "training:\n  rank: 8      # big\n"),
        ("training:\r\n  rank: 4\r\nweb: {port: 1}\r\n", "training:\r\n  rank: 8\r\nweb: {port: 1}\r\n"),
        ("reply: {max_bubbles: 1}\ntraining: {rank: 2}\n", "reply: {max_bubbles: 1}\ntraining: {rank: 8}\n"),
    ],
)
def test_only_the_value_changes_in_any_usual_layout(text: str, expected: str | None) -> None:
    assert edited(text, "training", {"rank": 8}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "training: 3",
        "- a",
        "training: [1]",
        "training: &t {rank: 4}\nother: *t\n",
        "a: [",
        "training:\n  rank: 1\n  rank: 2\n",
    ],
)
def test_what_cannot_be_edited_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"under `training:` yourself: rank: 8, learning_rate: 0\.0005"):
        write_settings(path, "training", {"rank": 8, "learning_rate": 5e-4})
    assert path.read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@given(st.floats(1e-9, 0.999), st.integers(1, 256), st.booleans())
def test_numbers_come_back_as_numbers(rate: float, rank: int, flow: bool) -> None:
    text = "training: {seed: 3}\n" if flow else "training:\n  seed: 3\n"
    made = edited(text, "training", {"learning_rate": round(rate, 9), "rank": rank})
    assert made is not None
    assert yaml.safe_load(made)["training"] == {"seed": 3, "learning_rate": round(rate, 9), "rank": rank}


def test_a_link_is_followed_and_rights_stay(tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    real.write_text("training: {rank: 4}\n")
    real.chmod(0o640)
    link = tmp_path / "config.yaml"
    link.symlink_to(real)
    write_settings(link, "training", {"rank": 8})
    assert link.is_symlink()
    assert real.read_text() == "training: {rank: 8}\n"
    assert real.stat().st_mode & 0o777 == 0o640

"""`doppel train` as a command: what it refuses before anything is loaded."""

from pathlib import Path

import msgspec
import pytest

from doppel.cli import Run
from doppel.config import load_config
from doppel.errors import UserError
from training.commands.train import train


def test_a_data_set_of_other_archives_is_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("persona: {name: ann}\narchive: sample\n")
    folder = load_config(path).data_dir
    folder.mkdir(parents=True)
    (folder / "report.json").write_bytes(msgspec.json.encode({"archive_digest": load_config(path).archive_digest}))
    path.write_text("persona: {name: ann}\narchive: mine.zip\n")
    with pytest.raises(UserError, match=r"made from other archives .* run `doppel build` first"):
        train(Run(path))

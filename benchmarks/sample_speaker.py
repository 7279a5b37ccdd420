"""Builds the data set of another speaker of the sample archive, to check on somebody else what was chosen on one.

    python benchmarks/sample_speaker.py RANK FOLDER

RANK is the place among the speakers with the most messages: 1 is who `archive: sample` reads. FOLDER gets a config.yaml
and the data set; `doppel` commands and other benchmarks then run there.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/ and benchmarks/ are not installed

from benchmarks.doppel_command import write_config
from doppel.config import load_config
from tests.training.dataset.test_build import SilentProgress
from training.archives import sample
from training.archives.discovery import sample_path
from training.dataset.build import build_dataset


def main() -> None:
    """Builds it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rank", type=int)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    chats = json.loads(sample_path().read_text(encoding="utf-8"))
    counts = Counter(bubble["sender"] for chat in chats.values() for turn in chat["messages"] for bubble in turn)
    sample.SPEAKER = counts.most_common(arguments.rank)[-1][0]
    name = f"speaker{arguments.rank}"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    content = {"archive": "sample", "timezone": "UTC", "persona": {"name": name}, "training": {"gate": False}}
    path = write_config(arguments.folder, content)
    report = build_dataset(load_config(path), SilentProgress(), [sample.SampleReader()])
    print(json.dumps({"speaker": sample.SPEAKER, **report.summary()}))


if __name__ == "__main__":
    main()

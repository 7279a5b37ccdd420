"""All readers together: whatever is in an archive, it is read, counted or refused in one line, and it ends.

Each run tries the same damage; `benchmarks/fuzz.py` looks for more.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.archives.hostile import EXPORTS, damaged, survive, write
from tests.training.exports import ZONE
from training.archives.discovery import discover, installed_readers

READERS = installed_readers()
OWNERS = sorted(name for name in EXPORTS if name[0] != "sample")
"""Exports that come from the owner; the sample is a file of a package."""

NAMES = ("archive.bin", "result.json", "chat.txt", "_chat.txt", "data.csv", "tweets.js", "chat.md", "x.zip", "y.zst")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def emptied(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("name", EXPORTS)
def test_every_sound_export_is_recognised_by_its_reader_alone(
    tmp_path: Path, name: tuple[str, str], as_zip: bool
) -> None:
    path = write(tmp_path, EXPORTS[name], as_zip=as_zip)
    discovery = discover([str(path)], tmp_path, ZONE, READERS)
    discovery.close()
    assert {source.reader.name for source in discovery.sources} == {name[0]}
    assert survive(path, READERS)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(NAMES), st.binary(max_size=400))
def test_any_bytes(place: Path, name: str, data: bytes) -> None:
    survive(write(emptied(place), {name: data}, as_zip=False) / name, READERS)
    survive(write(emptied(place), {name: data}, as_zip=True), READERS)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(OWNERS), st.data())
def test_any_bytes_behind_a_sound_beginning(place: Path, name: tuple[str, str], data: st.DataObject) -> None:
    files = dict(EXPORTS[name])
    file = data.draw(st.sampled_from(sorted(files)))
    kept = data.draw(st.integers(0, len(files[file])))
    files[file] = files[file][:kept] + data.draw(st.binary(max_size=200))
    survive(write(emptied(place), files, as_zip=False), READERS)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.sampled_from(OWNERS), st.booleans(), st.data())
def test_damaged_exports(place: Path, name: tuple[str, str], as_zip: bool, data: st.DataObject) -> None:
    files = damaged(EXPORTS[name], lambda below: data.draw(st.integers(0, below - 1)))
    survive(write(emptied(place), files, as_zip=as_zip), READERS)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is not None, reason="it would fuzz")
def test_the_benchmark_says_when_it_cannot_look() -> None:
    script = Path(__file__).parents[3] / "benchmarks" / "fuzz.py"
    done = subprocess.run([sys.executable, script, "--seconds", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "atheris is not installed, so nothing was fuzzed: pip install atheris\n"

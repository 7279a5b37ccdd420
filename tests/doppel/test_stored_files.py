"""What becomes of every kind of file, and of every table, when somebody is forgotten."""

import ast
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from bot.store.erasure import HANDLED_TABLES
from bot.store.schema import metadata
from doppel.stored_files import STORED_FILES

ROOT = Path(__file__).parents[2]
STORED_FORMATS = ROOT / "tests" / "stored_formats"

WRITING_CALLS = {
    *("write_atomically", "open_atomically", "write_private", "write_bytes", "write_text", "atomic_folder"),
    *("staging_folder", "save_file", "save_pretrained", "copytree", "copy2", "mkdir", "touch", "make_private_folder"),
}


def called(node: ast.Call) -> str:
    function = node.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def opens_for_writing(node: ast.Call) -> bool:
    modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return called(node) in ("open", "fdopen") and any(len(mode) <= 3 and set(mode) & set("wax+") for mode in modes)


def writing_modules() -> Iterator[str]:
    """Every module that writes a file, but for the tools in `doppel.system` that others write with."""
    for package in ("bot", "doppel", "training"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
            if not name.startswith("doppel.system.") and any(
                called(node) in WRITING_CALLS or opens_for_writing(node) for node in calls
            ):
                yield name


def test_every_module_that_writes_files_is_listed() -> None:
    listed = {writer for kind in STORED_FILES for writer in kind.writers}
    assert set(writing_modules()) == listed


@pytest.mark.parametrize("archive", ["adapter", "database", "dataset", "training", "training_from", "tuning"])
def test_every_file_of_earlier_versions_is_listed(archive: str) -> None:
    patterns = [pattern for kind in STORED_FILES for pattern in kind.patterns]
    for version in sorted(STORED_FORMATS.glob("v*")):
        with tarfile.open(version / f"{archive}.tar.gz") as files:
            names = [member.name for member in files.getmembers() if member.isfile()]
        written = [name for name in names if name.startswith(("data/", "adapters/"))]
        assert [name for name in written if not any(fnmatchcase(name, pattern) for pattern in patterns)] == []
        assert written


def test_every_table_is_listed() -> None:
    """A new table needs a line that says what forgetting somebody does to it."""
    assert set(HANDLED_TABLES) == set(metadata.tables)

"""Who may import whom, how large a module may be, and what starting a command must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"doppel": {"training", "bot", "tests"}, "training": {"bot", "tests"}, "bot": {"training", "tests"}}
SLOW = {"torch", "transformers", "peft", "gradio", "telegram", "discord", "sklearn", "sqlalchemy", "apscheduler"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level names of everything a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_it_must_not_know(package: str) -> None:
    assert {
        str(path.relative_to(ROOT)): wrong
        for path in modules(package)
        if (wrong := FORBIDDEN[package].intersection(imported(path)))
    } == {}


def test_platforms_know_neither_store_nor_conversation() -> None:
    allowed = {"bot.platforms", "bot.redaction"}
    for path in (ROOT / "bot" / "platforms").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("bot", "bot.store")):
                assert any(node.module == name or node.module.startswith(f"{name}.") for name in allowed), path


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_module_is_at_most_400_lines(package: str) -> None:
    long = {str(path): length for path in modules(package) if (length := len(path.read_text().splitlines())) > 400}
    assert long == {}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_module_says_what_it_does(package: str) -> None:
    silent = [str(path) for path in modules(package) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert [path for path in silent if not path.endswith("__init__.py")] == []


def test_starting_a_command_loads_nothing_slow() -> None:
    code = f"import sys; from doppel.cli.app import app; app(); print(*({SLOW!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

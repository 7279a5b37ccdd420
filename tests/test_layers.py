"""Who may import whom, how large a module may be, and what starting a command must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bot", "training", "doppel")

# The floors of the house, from the top down: a folder imports itself and what stands below it, nothing above.
# A module in no row of its own belongs to the longest row that its name begins with.
FLOORS = {
    "bot": (
        "bot.commands",
        "bot.app",
        "bot.metrics",
        "bot.web",
        "bot.posts",
        "bot.chat",
        "bot.platforms",
        "bot.store",
        "bot.logs",
        "bot.systemd",
        "bot.cancellation",
        "bot.clock",
    ),
    "training": (
        "training.commands",
        "training.personal_data",
        "training.tuning",
        "training.fidelity",
        "training.run",
        "training.lora",
        "training.dataset",
        "training.privacy",
        "training.cleaning",
        "training.people",
        "training.archives",
    ),
    "doppel": (
        "doppel.cli",
        "doppel.persona",
        "doppel.engine.check",
        "doppel.engine.llamacpp",
        "doppel.engine.remote",
        "doppel.engine.local",
        "doppel.engine.registry",
        "doppel.engine",
        "doppel.reports",
        "doppel.adapters",
        "doppel.models",
        "doppel.personal_data",
        "doppel.transcript",
        "doppel.system",
        "doppel.config",
        "doppel.plugins",
        "doppel.redaction",
        "doppel.stored_files",
        "doppel.secrets",
        "doppel.terminal",
        "doppel.i18n",
        "doppel.errors",
    ),
}
ROWS = [*FLOORS["bot"], *FLOORS["training"], *FLOORS["doppel"]]
MAY_IMPORT = {"bot": {"bot", "doppel"}, "training": {"training", "doppel"}, "doppel": {"doppel"}}
COMMANDS = ("bot.commands", "training.commands", "training.__main__", "doppel.cli", "doppel.__main__")
"""What may import `doppel.cli`: commands, and nothing beneath them."""
SLOW = {"torch", "transformers", "peft", "gradio", "telegram", "discord", "sklearn", "sqlalchemy", "apscheduler"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for package in PACKAGES for path in modules(package)}


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a module imports, wherever in it; of ours the module that is meant."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in NAMES else str(node.module)


def imported(path: Path) -> Iterator[str]:
    """Top-level names of everything a module imports, wherever in it."""
    return (name.partition(".")[0] for name in imports(path))


def row_of(name: str) -> str | None:
    rows = [row for row in ROWS if name == row or name.startswith(f"{row}.")]
    return max(rows, key=len, default=None)


def wrong_import(importer: str, target: str) -> str | None:
    """What is wrong with one module's import of another of ours, naming the two folders; None: nothing."""
    above, below = importer.partition(".")[0], target.partition(".")[0]
    if below not in MAY_IMPORT[above]:
        return f"{importer} imports {target}: {above} must not import {below}"
    if row_of(target) == "doppel.cli" and not importer.startswith(COMMANDS):
        return f"{importer} imports {target}: only commands import doppel.cli"
    from_row, to_row = row_of(importer), row_of(target)
    if from_row and to_row and ROWS.index(from_row) > ROWS.index(to_row):
        return f"{importer} imports {target}: {from_row} stands below {to_row}"
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_lead_downwards(package: str) -> None:
    wrong = [
        message
        for name, path in NAMES.items()
        if name.partition(".")[0] == package
        for target in imports(path)
        if target in NAMES and (message := wrong_import(name, target))
    ]
    assert wrong == []


def test_a_wrong_import_is_told_by_the_names_of_both_folders() -> None:
    assert wrong_import("training.lora.model", "training.run.plan") == (
        "training.lora.model imports training.run.plan: training.lora stands below training.run"
    )
    assert wrong_import("doppel.engine.local.lora", "doppel.engine.check") == (
        "doppel.engine.local.lora imports doppel.engine.check: doppel.engine.local stands below doppel.engine.check"
    )
    assert wrong_import("bot.app", "training.run") == "bot.app imports training.run: bot must not import training"
    assert wrong_import("training.run.plan", "doppel.cli.app") is not None
    assert wrong_import("training.run.plan", "training.lora.model") is None


def test_every_module_has_a_floor() -> None:
    faces = {"bot", "training", "doppel", "training.__main__", "doppel.__main__"}
    assert {name for name in NAMES if row_of(name) is None} == faces
    assert [row for row in ROWS if row not in NAMES] == []


def test_imports_go_in_no_circle() -> None:
    graph = {name: {target for target in imports(path) if target in NAMES} - {name} for name, path in NAMES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_module_is_at_most_400_lines(package: str) -> None:
    long = {str(path): length for path in modules(package) if (length := len(path.read_text().splitlines())) > 400}
    assert long == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_module_says_what_it_does(package: str) -> None:
    assert [str(path) for path in modules(package) if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_starting_a_command_loads_nothing_slow() -> None:
    code = f"import sys; from doppel.cli.app import app; app(); print(*({SLOW!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

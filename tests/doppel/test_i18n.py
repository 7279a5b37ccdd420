"""Every text for the user stands in English in the code and in Chinese in zh.yaml, with the same placeholders."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from doppel.cli.app import app, command_line
from doppel.i18n import language, set_language, tr

ROOT = Path(__file__).parents[2]
PACKAGES = ("doppel", "training", "bot")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of tr(), with where it stands."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tr":
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def texts() -> dict[str, str]:
    """Every text given to tr(), and one place where it is."""
    found = {}
    for place, call in calls():
        text = call.args[0]
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[text.value] = place
    return found


def help_texts() -> set[str]:
    """The help of every command of the project's and of its options."""
    found: set[str] = set()

    def collect(command: Any) -> None:
        found.update([command.help] if command.help else [])
        found.update(parameter.help for parameter in command.params if getattr(parameter, "help", None))
        for inner in getattr(command, "commands", {}).values():
            collect(inner)

    collect(get_command(app()))
    return found


def constants() -> set[str]:
    """Every string in the code."""
    return {
        node.value
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.fixture(scope="module")
def catalog() -> dict[str, str]:
    content = yaml.safe_load((ROOT / "doppel" / "locale" / "zh.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_every_text_has_a_translation(catalog: dict[str, str]) -> None:
    assert {text: place for text, place in texts().items() if text not in catalog} == {}


def test_help_has_a_translation(catalog: dict[str, str]) -> None:
    assert help_texts() - catalog.keys() == set()


def test_the_command_line_speaks_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    command = command_line()
    assert command.commands["doctor"].help == tr(
        "Check this machine, the configuration, the models and the bots; says what to do."
    )
    assert "检查" in command.commands["doctor"].help


def test_no_translation_is_left_over(catalog: dict[str, str]) -> None:
    assert catalog.keys() - constants() - help_texts() == set()


def test_no_text_stands_twice_in_the_catalog(catalog: dict[str, str]) -> None:
    lines = (ROOT / "doppel" / "locale" / "zh.yaml").read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if line and not line.startswith(("#", " "))]
    assert len(keys) == len(catalog)


def test_translations_have_the_placeholders_of_their_text(catalog: dict[str, str]) -> None:
    assert {
        text: translation for text, translation in catalog.items() if placeholders(text) != placeholders(translation)
    } == {}


def test_every_placeholder_is_filled_in() -> None:
    wrong = []
    for place, call in calls():
        given = {keyword.arg for keyword in call.keywords}
        if isinstance(call.args[0], ast.Constant) and None not in given and placeholders(call.args[0].value) != given:
            wrong.append(place)
    assert wrong == []


def test_the_language_is_the_one_chosen_or_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{path}: {name} is missing"
    assert tr(text, path="a", name="b") == "a: b is missing"
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert language() == "zh"
    assert tr(text, path="a", name="b") == "a：缺少 b"
    set_language("en")
    assert tr(text, path="a", name="b") == "a: b is missing"
    set_language("auto")
    monkeypatch.setenv("LC_ALL", "en_GB.UTF-8")
    assert language() == "en"
    set_language("zh")
    assert tr("a text without translation {sic}") == "a text without translation {sic}"

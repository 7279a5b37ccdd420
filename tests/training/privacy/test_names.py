"""Names of people in the text: replaced word by word where they are found, and a clear line without the packages."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.errors import UserError
from tests.training.dataset.test_build import assert_accounted, build_messages, sessions_of
from tests.training.messages import message
from training.privacy.names import NameFinder, presidio_recognizer
from training.privacy.scrub import SCRUBBED_FILE, Scrubber
from training.privacy.secret_span import SecretSpan

NAMES = re.compile("Tom Berg|Tom|tom|ANA|王小明|李雷")


def recognise(text: str, language: str) -> list[tuple[int, int]]:
    """Stands in for a model: knows a few names, Chinese ones only in Chinese."""
    return [match.span() for match in NAMES.finditer(text) if language == "zh" or match[0].isascii()]


def found_in(text: str, *secrets: SecretSpan) -> list[str]:
    return [text[span.start : span.end] for span in NameFinder(recognise).add_names(text, list(secrets))]


def test_names_are_found_word_by_word() -> None:
    assert found_in("Tom Berg knows Tom") == ["Tom", "Berg", "Tom"]
    assert found_in("我和王小明去找 Tom") == ["王小明", "Tom"]
    assert found_in("nobody here") == found_in("123 ?!") == found_in("") == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("lol nice", []),
        ("omg hahaha", []),
        ("OMG Tom", ["Tom"]),
        ("hey tom berg", ["tom", "berg"]),
        ("tom berg", ["tom", "berg"]),
        ("Joy Ho", ["Joy", "Ho"]),
        ("小明哈哈", ["小明哈哈"]),
    ],
)
def test_cries_are_no_names_though_a_model_says_so(text: str, names: list[str]) -> None:
    spans = NameFinder(lambda whole, _: [(0, len(whole))]).add_names(text, [])
    assert [text[span.start : span.end] for span in spans] == names


def test_a_secret_comes_before_a_name_in_it() -> None:
    text = "write to Tom@example.net or Tom"
    assert found_in(text, SecretSpan(9, 24, "email", "email")) == ["Tom@example.net", "Tom"]


@given(st.text(alphabet="Tom Berg王小明@1 ", max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))
def test_names_and_secrets_never_overlap(text: str, recognised: list[tuple[int, int]]) -> None:
    names = NameFinder(lambda whole, _: [(min(span), min(max(span), len(whole))) for span in recognised])
    secret = [SecretSpan(2, 5, "email", "email")] if len(text) > 5 else []
    spans = names.add_names(text, secret)
    assert all(span.start < span.end <= len(text) for span in spans)
    assert all(left.end <= right.start for left, right in pairwise(spans))
    assert set(secret) <= set(spans)


def test_the_same_name_has_the_same_stand_in(tmp_path: Path) -> None:
    scrubber = Scrubber(tmp_path, tmp_path, (), NameFinder(recognise))
    first, second, third = (scrubber.scrub(text, "x:1") for text in ("Tom Berg is here", "tom too", "ANA and 王小明"))
    scrubber.close()
    tom = first.split()[0]
    assert re.fullmatch(r"[A-Z][a-z]{5} [A-Z][a-z]{5} is here", first)
    assert second == f"{tom.lower()} too"
    assert re.fullmatch(r"[A-Z]{6} and [\u4e00-\u9fff]{3}", third)
    assert "王小明" not in third
    assert scrubber.counts == {"name": 5}
    listed = (tmp_path / SCRUBBED_FILE).read_text(encoding="utf-8")
    assert {json.loads(line)["kind"] for line in listed.splitlines()} == {"name"}
    assert "Tom" not in listed


def test_a_build_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.dataset.build.presidio_recognizer", lambda: recognise)
    rows = [message(1, "has Tom written?", sender="ana"), message(2, "Tom never writes, his mail is tom@gmail.com")]
    report = build_messages(tmp_path, rows, privacy={"names": True})
    assert_accounted(report)
    assert report.scrubbed == {"name": 2, "email": 1}
    question, answer = (turn.bubbles[0] for turn in sessions_of(tmp_path)[0].turns)
    assert "Tom" not in question + answer
    assert question.split()[1] == answer.split()[0]
    build_messages(tmp_path, rows)
    assert "Tom" in sessions_of(tmp_path)[0].turns[0].bubbles[0]


def test_without_presidio_a_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"^privacy\.names: needs presidio; .*pip install 'doppel\[names\]'"):
        build_messages(tmp_path, [message(1, "hi")], privacy={"names": True})
    assert not (tmp_path / "data").exists()


def test_without_a_model_a_line_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, installed=[])
    with pytest.raises(
        UserError, match=r"^privacy\.names: needs a spaCy model .*\(en: .*zh: zh_core_web_sm.*download en_core_web_sm`"
    ):
        presidio_recognizer()


def test_only_languages_with_a_model_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, installed=["en_core_web_sm"])
    find = presidio_recognizer()
    assert find("Tom is here", "en") == [(0, 3)]
    assert find("Tom 在这里", "zh") == []


def packages(monkeypatch: pytest.MonkeyPatch, installed: list[str]) -> None:
    """Stand-ins for presidio and spaCy, as far as they are used."""

    class Provider:
        def __init__(self, nlp_configuration: dict[str, object]) -> None:
            self.models = nlp_configuration["models"]

        def create_engine(self) -> object:
            return self.models

    class Result:
        start, end = 0, 3

    class Engine:
        def __init__(self, nlp_engine: object, supported_languages: list[str]) -> None:
            assert nlp_engine == [{"lang_code": "en", "model_name": "en_core_web_sm"}]
            assert supported_languages == ["en"]

        def analyze(self, text: str, language: str, **options: object) -> list[Result]:
            assert (language, options["entities"]) == ("en", ["PERSON"])
            return [Result()]

    modules = {name: ModuleType(name) for name in ("spacy", "presidio_analyzer", "presidio_analyzer.nlp_engine")}
    modules["spacy"].util = ModuleType("util")  # type: ignore[attr-defined]
    modules["spacy"].util.is_package = lambda name: name in installed
    modules["presidio_analyzer"].AnalyzerEngine = Engine  # type: ignore[attr-defined]
    modules["presidio_analyzer.nlp_engine"].NlpEngineProvider = Provider  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

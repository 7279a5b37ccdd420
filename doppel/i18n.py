"""Translates messages to the user: they are English in the code, and `locale/zh.yaml` has the Chinese texts."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_chosen: list[str] = []  # empty: the language of the environment


def set_language(language: str) -> None:
    """Sets the language to `en` or `zh`; `auto` takes it from the environment (LC_ALL, LC_MESSAGES, LANG)."""
    _chosen[:] = [] if language == "auto" else [language]


def language() -> str:
    """The current language: `en` or `zh`."""
    if _chosen:
        return _chosen[0]
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def tr(english: str, **values: Any) -> str:
    """The text in the current language, English if it has no translation, with the values in its `{placeholders}`."""
    text = _catalog().get(english, english) if language() == "zh" else english
    return text.format(**values) if values else text


@cache
def _catalog() -> dict[str, str]:
    content: dict[str, str] = yaml.safe_load((Path(__file__).parent / "locale" / "zh.yaml").read_text(encoding="utf-8"))
    return content

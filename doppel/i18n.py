"""Messages to the user in their language: English in the code, Chinese in `locale/zh.yaml`."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_chosen: list[str] = []


def set_language(language: str) -> None:
    """Chooses `en` or `zh`; `auto` follows the environment (LC_ALL, LC_MESSAGES, LANG)."""
    _chosen[:] = [] if language == "auto" else [language]


def language() -> str:
    """The language in force: `en` or `zh`."""
    if _chosen:
        return _chosen[0]
    spoken = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return "zh" if spoken.lower().startswith("zh") else "en"


def tr(english: str, **values: Any) -> str:
    """The text in the user's language with `{names}` filled in; English where no translation exists."""
    text = _catalog().get(english, english) if language() == "zh" else english
    return text.format(**values) if values else text


@cache
def _catalog() -> dict[str, str]:
    content: dict[str, str] = yaml.safe_load((Path(__file__).parent / "locale" / "zh.yaml").read_text(encoding="utf-8"))
    return content

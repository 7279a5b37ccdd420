"""Finds names of people in messages, where `privacy.names` asks for it: with presidio and the models of spaCy.

Both are optional, large, and never fetched here. A model finds most names and takes some other words for names; what
it misses stays. A message is looked at in Chinese when it holds Chinese characters, else in English.
"""

import re
from collections.abc import Callable

from doppel.errors import UserError
from doppel.i18n import tr
from training.privacy.personal_data import Found

Recognise = Callable[[str, str], list[tuple[int, int]]]
"""Where names of people begin and end in a text, given the language."""

MODELS = {"en": "en_core_web_sm", "zh": "zh_core_web_sm"}
"""A model of spaCy's for each language."""

_CHINESE = re.compile("[\u4e00-\u9fff]")
_WORD = re.compile(r"[^\W\d_]{2,}|[\u4e00-\u9fff]")
_UNSURE = 0.5

# What models of written language take for names in chats, or for a part of the name that follows.
_CRY = re.compile(
    r"lo+l+|lmf?a+o+|rofl|omf?g|(?:h[aeiou]+){2,}h?|(?:xa|ja|je|ji){2,}|x+d+|idk+|idc|brb|ttyl|tbh|ikr|wtf+|gg+|w+o+w+|h+m+"
    r"|y+a+y+|y+e+a+h*|n+o+p+e+|u+h+|nvm|smh|ngl|rn",
    re.IGNORECASE,
)
_CALL = re.compile(r"h+e+y+|y+o+|bruh+|dude|bro|ok+(?:ay)?|thx+|pls+|plz+|gn|gm", re.IGNORECASE)


class Names:
    """Adds the names in a text to the secrets that were found in it.

    Args:
        recognise: for example `presidio()`.
    """

    def __init__(self, recognise: Recognise) -> None:
        self._recognise = recognise

    def added(self, text: str, found: list[Found]) -> list[Found]:
        """The secrets and the names, in order. A name is replaced word by word, so that its parts stay the same ones.

        Args:
            text: a message's.
            found: secrets in it, which come before a name that they overlap.
        """
        if not any(map(str.isalpha, text)):
            return found
        names: list[Found] = []
        for start, end in self._recognise(text, "zh" if _CHINESE.search(text) else "en"):
            words = list(_WORD.finditer(text[start:end]))
            cries = [word for word in words if _CRY.fullmatch(word[0])]
            called = [word for word in words if word not in cries and not _CALL.fullmatch(word[0])]
            # `lol nice` is no name; of `omg Tom` one word is.
            if cries and not any(word[0].istitle() for word in called):
                continue
            names += (Found(start + word.start(), start + word.end(), "name", "name") for word in called)
        taken = sorted(found)
        for name in sorted(set(names)):
            if all(name.end <= other.start or other.end <= name.start for other in taken):
                taken.append(name)
        return sorted(taken)


def presidio() -> Recognise:
    """Presidio with the models of spaCy that are installed.

    Raises:
        UserError: it is not installed, or no model is.
    """
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        raise UserError(
            tr("privacy.names: needs presidio; install it with `pip install 'doppel[names]'`, or write false")
        ) from None
    models = {language: model for language, model in MODELS.items() if spacy.util.is_package(model)}
    if not models:
        raise UserError(
            tr(
                "privacy.names: needs a model of spaCy's for each language you write; run `python -m spacy download "
                "{model}` ({models}), or write false",
                model=MODELS["en"],
                models=", ".join(f"{language}: {model}" for language, model in MODELS.items()),
            )
        )
    engine = NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": language, "model_name": model} for language, model in models.items()],
        }
    ).create_engine()
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=list(models))

    def recognise(text: str, language: str) -> list[tuple[int, int]]:
        if language not in models:
            return []
        found = analyzer.analyze(text, language, entities=["PERSON"], score_threshold=_UNSURE)
        return [(one.start, one.end) for one in found]

    return recognise

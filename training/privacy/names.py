"""Finds names of people in messages with presidio and spaCy models, if `privacy.names` is on.

Both are optional and large, and never downloaded here. The models miss some names and take some other words for
names. A message that contains Chinese characters is analyzed as Chinese, any other as English.
"""

import re
from collections.abc import Callable

from doppel.errors import UserError
from doppel.i18n import tr
from training.privacy.secret_span import SecretSpan

RecognizeNames = Callable[[str, str], list[tuple[int, int]]]
"""Given a text and its language, returns the (start, end) of each name of a person."""

MODELS = {"en": "en_core_web_sm", "zh": "zh_core_web_sm"}
"""The spaCy model for each language."""

_CHINESE = re.compile("[\u4e00-\u9fff]")
_WORD = re.compile(r"[^\W\d_]{2,}|[\u4e00-\u9fff]")
_MIN_SCORE = 0.5

# Chat slang that the models, trained on written language, take for names or for a part of the name that follows.
_INTERJECTION = re.compile(
    r"lo+l+|lmf?a+o+|rofl|omf?g|(?:h[aeiou]+){2,}h?|(?:xa|ja|je|ji){2,}|x+d+|idk+|idc|brb|ttyl|tbh|ikr|wtf+|gg+|w+o+w+|h+m+"
    r"|y+a+y+|y+e+a+h*|n+o+p+e+|u+h+|nvm|smh|ngl|rn",
    re.IGNORECASE,
)
_GREETING = re.compile(r"h+e+y+|y+o+|bruh+|dude|bro|ok+(?:ay)?|thx+|pls+|plz+|gn|gm", re.IGNORECASE)


class NameFinder:
    """Adds the names in a text to the secrets found in it.

    Args:
        recognize: finds names, for example `presidio_recognizer()`.
    """

    def __init__(self, recognize: RecognizeNames) -> None:
        self._recognize = recognize

    def add_names(self, text: str, secrets: list[SecretSpan]) -> list[SecretSpan]:
        """The secrets and the names, in order. Each word of a name is a span, so that it always gets the same stand-in.

        Args:
            text: of a message.
            secrets: the secrets found in it; names that overlap one are left out.
        """
        if not any(map(str.isalpha, text)):
            return secrets
        names: list[SecretSpan] = []
        for start, end in self._recognize(text, "zh" if _CHINESE.search(text) else "en"):
            words = list(_WORD.finditer(text[start:end]))
            interjections = [word for word in words if _INTERJECTION.fullmatch(word[0])]
            name_words = [word for word in words if word not in interjections and not _GREETING.fullmatch(word[0])]
            # `lol nice` contains no name; `omg Tom` contains one.
            if interjections and not any(word[0].istitle() for word in name_words):
                continue
            names += (SecretSpan(start + word.start(), start + word.end(), "name", "name") for word in name_words)
        spans = sorted(secrets)
        for name in sorted(set(names)):
            if all(name.end <= span.start or span.end <= name.start for span in spans):
                spans.append(name)
        return sorted(spans)


def presidio_recognizer() -> RecognizeNames:
    """A recognizer that uses presidio with the installed spaCy models.

    Raises:
        UserError: presidio or the models are not installed.
    """
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        raise UserError(
            tr("privacy.names: needs presidio; run `pip install 'doppel[names]'`, or set it to false")
        ) from None
    models = {language: model for language, model in MODELS.items() if spacy.util.is_package(model)}
    if not models:
        raise UserError(
            tr(
                "privacy.names: needs a spaCy model for each language you write in ({models}); run `python -m spacy "
                "download {model}`, or set it to false",
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

    def recognize(text: str, language: str) -> list[tuple[int, int]]:
        if language not in models:
            return []
        results = analyzer.analyze(text, language, entities=["PERSON"], score_threshold=_MIN_SCORE)
        return [(result.start, result.end) for result in results]

    return recognize

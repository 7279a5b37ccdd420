"""Guesses the language of a text from its script or, in Latin script, from common short words."""

import re
from collections import Counter
from functools import lru_cache

_SCRIPTS = (
    ("ja", "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9d"),
    ("ko", "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"),
    ("zh", "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"),
    ("ru", "\u0400-\u04ff"),
    ("ar", "\u0600-\u06ff\u0750-\u077f"),
    ("he", "\u0590-\u05ff"),
    ("el", "\u0370-\u03ff"),
    ("th", "\u0e00-\u0e7f"),
    ("hi", "\u0900-\u097f"),
)
_SCRIPT = re.compile("|".join(f"(?P<{name}>[{ranges}])" for name, ranges in _SCRIPTS))
_WORD = re.compile(r"[a-zà-öø-ÿœ']+")
_URL = re.compile(r"https?://\S+|@\w+")

_MIN_WORDS = 2
"""Common words of a language that a text must have: "no" alone may be English, Spanish or Italian."""

_MAX_CHARACTERS = 1500
"""Only the beginning of a longer text is examined."""

_COMMON_WORDS = {
    "en": "the and you to is it i'm it's that what not just my for have was are this with of yeah how your do",
    "es": "que de no el la es y los se por qué un una con para pero está me lo muy sí como si",
    "fr": "que de je le la les et est pas un une c'est pour des ça mais qui sur du en il j'ai oui",
    "de": "und ich nicht das die der ist du es ein wir mit auch aber zu ja noch was auf mir hab so",
    "pt": "que não de é o eu um uma para com mas você por se do da os isso muito tá sim",
    "it": "che di non è il la un per sono una ma mi ho con si anche cosa come lo gli sì",
    "id": "yang aku di ini itu tidak gak ya saya dan kamu ada mau apa sudah juga bisa udah",
    "tr": "bir ve bu da de ne için çok ben var mı gibi ama daha yok değil",
}
_LANGUAGES_OF = {
    word: tuple(language for language, words in _COMMON_WORDS.items() if word in words.split())
    for word in " ".join(_COMMON_WORDS.values()).split()
}


_NON_LETTERS = {code: " " for code in range(128) if chr(code) not in "abcdefghijklmnopqrstuvwxyz'"}


@lru_cache(maxsize=1 << 14)
def _script_of(character: str) -> str | None:
    match = _SCRIPT.match(character)
    return match.lastgroup if match else None


def language_of(text: str, min_words: int = _MIN_WORDS) -> str | None:
    """ISO 639-1 code of the main language of a text; None if it cannot be determined.

    Args:
        text: of any length.
        min_words: common words of the language that it must have, in Latin script.
    """
    text = text[:_MAX_CHARACTERS]
    if "@" in text or "://" in text:
        text = _URL.sub("", text)
    text = text.casefold()
    if text.isascii():
        words = text.translate(_NON_LETTERS).split()
    else:
        words, scripts = _WORD.findall(text), Counter[str]()
        for character, count in Counter(text).items():  # in order of first occurrence
            if (script := _script_of(character)) is not None:
                scripts[script] += count
        if scripts and scripts.total() >= len(words):
            # Japanese mixes kana with Han characters; Chinese has no kana.
            if scripts["ja"] and scripts["ja"] * 5 >= scripts["zh"]:
                return "ja"
            return max(scripts, key=lambda name: scripts[name])
    votes: dict[str, int] = {}
    for word, count in Counter(words).items():
        for language in _LANGUAGES_OF.get(word, ()):
            votes[language] = votes.get(language, 0) + count
    first, second = 0, 0
    likeliest = None
    for language, count in votes.items():
        if count > first:
            likeliest, first, second = language, count, first
        elif count > second:
            second = count
    return likeliest if first > second and first >= min_words else None

"""Detects whether a text names the persona, and removes mentions from a text."""

import unicodedata
from collections.abc import Iterable, Sequence

# Scripts without spaces between words, or with particles attached to names: words have no visible boundaries there.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "IDEOGRAPHIC")

_AFTER_LEADING_MENTION = " \t\n,:;–—，：；、"
_CLOSING_PUNCTUATION = ",:;.!?)]}，：；、。！？）】"


def is_named(text: str, names: Iterable[str]) -> bool:
    """Whether one of the names occurs in the text as a whole word, ignoring case.

    Word boundaries are required only in scripts with spaces: `Ann` is not in `Annual`, but 小明 is in 小明你好.
    """
    text = _folded(text)
    return any(_contains_word(text, _folded(name)) for name in names if name.strip())


def remove_spans(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Removes the spans (start and end in code points) and the extra spaces and punctuation around them."""
    rest = text
    for start, end in sorted(spans, reverse=True):
        before, after = rest[:start], rest[end:]
        if not before.strip():
            after = after.lstrip(_AFTER_LEADING_MENTION)
        elif before[-1:].isspace() and (not after or after[0].isspace() or after[0] in _CLOSING_PUNCTUATION):
            before = before[:-1]
        rest = before + after
    return rest.strip()


def _contains_word(text: str, name: str) -> bool:
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not _same_word(text[:start][-1:], name[0]) and not _same_word(name[-1], text[end : end + 1]):
            return True
        start = text.find(name, start + 1)
    return False


def _same_word(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and not _is_unspaced(left) and not _is_unspaced(right)


def _is_unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(_UNSPACED)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())

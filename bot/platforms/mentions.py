"""Whether a text names somebody, and a text without the mentions of them. Knows no platform and no persona."""

import unicodedata
from collections.abc import Iterable, Sequence

# Scripts that put no spaces between words, or hang particles onto a name: there "a whole word" has no edges.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "IDEOGRAPHIC")

_LEADING = " \t\n,:;–—，：；、"
_CLINGING = ",:;.!?)]}，：；、。！？）】"


def is_named(text: str, names: Iterable[str]) -> bool:
    """Whether one of the names stands in the text as a whole word, whatever its case.

    Edges count only between letters of spaced scripts: `Ann` is not in `Annual`, but 小明 is in 小明你好.
    """
    text = _folded(text)
    return any(_stands_in(text, _folded(name)) for name in names if name.strip())


def cut_out(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without the spans (start and end in code points) and without the gaps they would leave."""
    rest = text
    for start, end in sorted(spans, reverse=True):
        before, after = rest[:start], rest[end:]
        if not before.strip():
            after = after.lstrip(_LEADING)
        elif before[-1:].isspace() and (not after or after[0].isspace() or after[0] in _CLINGING):
            before = before[:-1]
        rest = before + after
    return rest.strip()


def _stands_in(text: str, name: str) -> bool:
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not _joins(text[:start][-1:], name[0]) and not _joins(name[-1], text[end : end + 1]):
            return True
        start = text.find(name, start + 1)
    return False


def _joins(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and not _is_unspaced(left) and not _is_unspaced(right)


def _is_unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(_UNSPACED)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())

"""Cutting long bubbles."""

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from bot.chat.split_text import split


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def test_short_text_is_left_alone() -> None:
    assert split("hello", 10, len) == ["hello"]
    assert split("  ", 10, len) == []


def test_prefers_lines_then_sentences_then_words() -> None:
    assert split("first line\nsecond. line", 16, len) == ["first line", "second. line"]
    assert split("A sentence. Another one here", 20, len) == ["A sentence.", "Another one here"]
    assert split("just some words here", 12, len) == ["just some", "words here"]
    assert split("今天天气很好。我们去公园吧", 8, len) == ["今天天气很好。", "我们去公园吧"]


def test_word_without_end_is_cut_hard() -> None:
    assert split("a" * 25, 10, len) == ["a" * 10, "a" * 10, "a" * 5]


def test_units_are_the_platforms() -> None:
    assert split("😀" * 6, 4, utf16) == ["😀😀"] * 3


def test_visible_characters_stay_whole() -> None:
    family = "👨\u200d👩\u200d👧"
    assert split(f"aaaa{family}", 7, len) == ["aaaa", family]
    assert split("aaae\u0301x", 4, len) == ["aaa", "e\u0301x"]


@given(st.text(max_size=400), st.integers(2, 60), st.booleans())
def test_nothing_but_white_space_is_lost(text: str, limit: int, units: bool) -> None:
    length = utf16 if units else len
    pieces = split(text, limit, length)
    assert all(piece and length(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece == piece.strip() for piece in pieces)


@given(st.text(alphabet="ab .\n", min_size=1, max_size=200), st.integers(5, 40))
@example("aaa aaa", 6)
def test_words_that_fit_are_not_torn(text: str, limit: int) -> None:
    if max(map(len, text.split()), default=0) <= limit // 2:
        assert " ".join(split(text, limit, len)).split() == text.split()


@given(st.text(alphabet="ae\u0301\u0302", min_size=1, max_size=60))
def test_accents_stay_with_their_letters(text: str) -> None:
    if not any(unicodedata.combining(text[at]) and unicodedata.combining(text[at - 1]) for at in range(1, len(text))):
        assert not any(unicodedata.combining(piece[0]) for piece in split("a" + text, 8, len))

"""Near repeats: found where they are, never made up, the earliest kept, and quick among templates."""

import random
import time
from array import array
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.cleaning import near_duplicates as near
from training.cleaning.near_duplicates import MIN_SIMILARITY, MIN_WORDS, find_near_duplicates, word_hashes


def found_in(texts: list[str]) -> list[bool]:
    """Which of the texts, each of them long enough, nearly repeat an earlier one."""
    words = [word_hashes(text) for text in texts]
    lengths = np.array([len(word) for word in words if word is not None], dtype=np.int64)
    assert len(lengths) == len(texts)
    flat = array("I")
    for word in words:
        flat.extend(word or ())
    return list(map(bool, find_near_duplicates(np.asarray(flat, dtype=np.uint32), lengths)))


def text_of(count: int, seed: int = 0) -> list[str]:
    """Words that nobody else uses."""
    dice = random.Random(seed)
    return [f"w{dice.randrange(10**9)}" for _ in range(count)]


def changed(words: list[str], *places: int) -> str:
    """The words with others at some places."""
    return " ".join(f"other{place}" if place in places else word for place, word in enumerate(words))


def pairs_of(text: str) -> set[tuple[int, int]]:
    return set(pairwise(word_hashes(text) or ()))


def test_the_second_is_a_repeat_whatever_its_case_and_signs() -> None:
    words = text_of(20)
    plain = " ".join(words)
    assert found_in([plain, plain.upper() + "!!!", changed(words, 10), " ".join(text_of(20, 1))]) == [
        False,
        True,
        True,
        False,
    ]


def test_one_word_in_ten_makes_another_text_and_one_in_twenty_does_not() -> None:
    assert found_in([" ".join(text_of(10)), changed(text_of(10), 4)]) == [False, False]
    assert found_in([" ".join(text_of(40)), changed(text_of(40), 9, 29)]) == [False, True]
    assert found_in([" ".join(text_of(40)), changed(text_of(40), 9, 19, 29)]) == [False, False]


def test_what_is_put_together_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [changed(text_of(30, seed), *places) for places in ((), (3,), (20,), (1,)) for seed in range(20)]
    is_duplicate = found_in(texts)
    assert is_duplicate == [False] * 20 + [True] * 60
    monkeypatch.setattr(near, "_CACHED_TEXTS", 1)
    assert found_in(texts) == is_duplicate


def test_the_order_of_the_words_counts() -> None:
    words = text_of(30)
    assert found_in([" ".join(words), " ".join(sorted(words))]) == [False, False]


def test_what_changes_step_by_step_is_in_the_end_another_text() -> None:
    """However alike it is to a repeat that went."""
    words = text_of(30)
    texts = [changed(words, *range(5, 5 + step)) for step in range(0, 20, 2)]
    is_duplicate = found_in(texts)
    assert is_duplicate[0] is False
    assert is_duplicate[1] is True
    assert is_duplicate.count(False) >= 2


def test_short_texts_are_not_for_here() -> None:
    assert word_hashes("") is None
    assert word_hashes("!" * 100) is None
    assert word_hashes("one two three four five six seven") is None
    assert word_hashes("one two three four five six seven eight") is not None
    assert word_hashes("今天天气很好呀") is None
    assert word_hashes("今天天气很好呀啊") is not None
    assert word_hashes("привет " * MIN_WORDS) is not None


def test_chinese_is_compared_by_characters() -> None:
    first = "周六下午三点在老地方开会，请大家务必准时到场，带上自己的电脑和充电器，谢谢"
    assert found_in([first, first.replace("电脑", "手机"), first.replace("周六", "周日") + "！"]) == [False, True, True]


def test_none_or_one_has_no_repeat() -> None:
    nothing = np.array([], dtype=np.uint32)
    assert find_near_duplicates(nothing, np.array([], dtype=np.int64)).tolist() == []
    assert found_in([" ".join(text_of(9))]) == [False]


def test_only_the_beginning_of_an_endless_text_is_looked_at() -> None:
    words = text_of(2000)
    assert len(word_hashes(" ".join(words)) or ()) == 400
    assert found_in([" ".join(words), " ".join(words[:500])]) == [False, True]


WORDS = st.lists(st.sampled_from("abcdefg"), min_size=MIN_WORDS, max_size=40)


@given(st.lists(WORDS, max_size=30))
def test_never_made_up_and_equal_ones_always_found(texts: list[list[str]]) -> None:
    lines = [" ".join(words) for words in texts]
    is_duplicate = found_in(lines)
    for number, (line, is_repeat) in enumerate(zip(lines, is_duplicate, strict=True)):
        likes = [
            len(pairs_of(line) & pairs_of(earlier)) / len(pairs_of(line) | pairs_of(earlier))
            for earlier, is_gone in zip(lines[:number], is_duplicate, strict=False)
            if not is_gone
        ]
        assert not is_repeat or max(likes) >= MIN_SIMILARITY
        assert is_repeat or line not in lines[:number]


@given(st.text())
def test_any_text_has_words_or_none(text: str) -> None:
    words = word_hashes(text)
    assert words is None or len(words) >= MIN_WORDS


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [" ".join(text_of(30, number)) for number in range(40)]
    lines += [changed(text_of(30, number), 20) for number in range(40)]
    whole = found_in(lines)
    monkeypatch.setattr(near, "_BLOCK", 64)
    assert found_in(lines) == whole == [False] * 40 + [True] * 40


def test_nearly_all_repeats_are_found() -> None:
    pairs = 400
    lines = [" ".join(text_of(40, number)) for number in range(pairs)]
    lines += [changed(text_of(40, number), 9, 29) for number in range(pairs)]  # likeness 0.81
    is_duplicate = found_in(lines)
    assert not any(is_duplicate[:pairs])
    assert sum(is_duplicate[pairs:]) > 0.95 * pairs


def test_a_template_filled_in_differently_does_not_take_for_ever() -> None:
    frame = text_of(10)
    lines = [" ".join([*frame, *text_of(10, number + 1)]) for number in range(5000)]
    started = time.monotonic()
    assert not any(found_in(lines))
    assert time.monotonic() - started < 20

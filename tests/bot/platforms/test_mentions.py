"""Names and mentions in texts of many scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.platforms.mentions import is_named, remove_spans


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mina, are you there?", "Mina"),
        ("what does MINA think", "mina"),
        ("Mina's idea", "Mina"),
        ("小明你好", "小明"),
        ("你觉得小明呢", "小明"),
        ("민수야 뭐해", "민수"),
        ("ask Mina Lee!", "Mina Lee"),
        ("cafe\u0301, please", "Caf\u00e9"),
        ("Minas friend is Mina", "Mina"),
        ("问问Mina吧", "Mina"),
    ],
)
def test_a_name_in_the_text_is_found(text: str, name: str) -> None:
    assert is_named(text, ["Nobody", name])


@pytest.mark.parametrize(
    ("text", "names"),
    [("Annual report", ["Ann"]), ("my minaret", ["Mina"]), ("hello", []), ("hello", ["", " "]), ("", ["Mina"])],
)
def test_what_is_not_the_name_is_not_taken_for_it(text: str, names: list[str]) -> None:
    assert not is_named(text, names)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("@mina hello", "hello"),
        ("@mina, hello", "hello"),
        ("@mina，你好", "你好"),
        ("hello @mina", "hello"),
        ("hey @mina how are you", "hey how are you"),
        ("hey @mina, how are you", "hey, how are you"),
        ("what now, @mina?", "what now,?"),
        ("first line\n@mina\nlast line", "first line\n\nlast line"),
        ("@mina @mina hi", "hi"),
        ("@mina", ""),
        ("@mina ...", "..."),
    ],
)
def test_mentions_leave_no_gaps(text: str, rest: str) -> None:
    spans = []
    start = text.find("@mina")
    while start >= 0:
        spans.append((start, start + 5))
        start = text.find("@mina", start + 5)
    assert remove_spans(text, spans) in (rest, rest.replace("\n\n", "\n"))


@given(st.text(), st.text(), st.text(min_size=1))
def test_nothing_but_the_mention_and_spacing_is_lost(before: str, after: str, mention: str) -> None:
    rest = remove_spans(before + mention + after, [(len(before), len(before) + len(mention))])
    kept = [letter for letter in before + after if letter.isalnum()]
    assert [letter for letter in rest if letter.isalnum()] == kept


@given(st.text())
def test_without_mentions_the_text_stays(text: str) -> None:
    assert remove_spans(text, []) == text.strip()


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_any_name_between_spaces_is_found(text: str, name: str) -> None:
    assert is_named(f"{text} {name} {text}", [name])

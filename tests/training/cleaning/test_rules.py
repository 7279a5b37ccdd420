"""Which messages are dropped, and why."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.transcript import normalize
from tests.training.messages import message
from training.cleaning.rules import clean_text, drop_reason


@pytest.mark.parametrize(
    ("text", "more", "reason"),
    [
        ("hello", {}, None),
        ("哈哈", {}, None),
        ("lol", {}, None),
        ("?", {}, None),
        ("😀", {}, None),
        ("", {}, "empty"),
        (" \n\u200b".replace("\u200b", ""), {}, "empty"),
        ("", {"mark": "media"}, "media"),
        ("a caption", {"mark": "media"}, None),
        ("😀", {"mark": "sticker"}, "media"),
        ("joined", {"mark": "service"}, "service"),
        ("words of another", {"mark": "forward"}, "forward"),
        ("RT @a: words", {"mark": "retweet"}, "retweet"),
        ("I am a bot", {"mark": "bot"}, "bot"),
        ("teh", {"mark": "superseded"}, "superseded"),
        ("oops", {"mark": "deleted"}, "deleted"),
        ("https://example.org/a?b=c", {}, "link-only"),
        ("http://a.b http://c.d", {}, "link-only"),
        ("www.example.org", {}, "link-only"),
        ("look: https://example.org", {}, None),
        ("https://example.org 好", {}, None),
    ],
)
def test_reasons(text: str, more: dict[str, Any], reason: str | None) -> None:
    assert drop_reason(message(1, text, **more), clean_text(text)) == reason


def test_text_loses_control_characters_and_keeps_lines() -> None:
    assert clean_text(" a\x07b\x1b[0m\r\nc\td ") == "ab[0m\nc\td"
    assert clean_text("Zu\u0308rich") == "Zürich"


@given(st.text() | st.text(alphabet=st.characters(max_codepoint=127)))
def test_the_short_way_for_plain_text_is_no_other_way(text: str) -> None:
    assert clean_text(text) == normalize(re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", text))
    assert normalize(clean_text(text)) == clean_text(text)

"""The language of a text, where it can be told."""

import pytest

from doppel.transcript.language import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I don't know what you mean, but it was fun", "en"),
        ("今天我们去哪里吃饭", "zh"),
        ("ok 我们走吧", "zh"),
        ("今日はどこで食べますか", "ja"),
        ("오늘 뭐 먹을까", "ko"),
        ("что ты делаешь сегодня", "ru"),
        ("ماذا تفعل اليوم", "ar"),
        ("ich weiß nicht, das ist mir auch zu viel", "de"),
        ("je ne sais pas, mais c'est pour toi", "fr"),
        ("no sé qué hacer con esto pero está muy bien", "es"),
        ("não sei o que você tem, mas é muito bom", "pt"),
        ("", None),
        ("42!", None),
        ("haha", None),
        ("no", None),
        ("yes", None),
        ("https://example.com/the/and/you @theand", None),
    ],
)
def test_language_of(text: str, language: str | None) -> None:
    assert language_of(text) == language

"""Texts in every encoding that owners have, and files that mix two: no letter vanishes, and none becomes another."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.archives.hostile import EXPORTS, write
from tests.training.exports import read_all, telegram_chat, telegram_message
from training.archives.encodings import decoded, wide_encoding

TEXTS = {
    "cp1252": (
        "café naïve Zürich",
        "don’t “quote” — it’s €5",
        "déjà vu, ça va?",
        "smørrebrød",
        "50 °C",
        "Þetta er ágætt",
    ),
    "latin-1": ("Grüße aus Köln", "¿qué?", "é"),
    "cp1250": ("zażółć gęślą jaźń", "Příliš žluťoučký kůň"),
    "cp1254": ("günaydın, nasılsın? şu an ağır",),
    "cp1251": ("Привет, как дела?", "да", "ёлка"),
    "koi8-r": ("Привет, как дела?", "привет всем, кто тут"),
    "cp1253": ("Καλημέρα, τι κάνεις;",),
    "gb18030": ("你好", "小林", "喝茶吗？", "我在图书馆，café", "😀 好"),
    "big5": ("你好", "今天晚上吃什麼"),
    "shift-jis": ("こんにちは", "明日行きますか？"),
    "euc-kr": ("안녕하세요", "오늘 저녁에 뭐 먹을까"),
}
CASES = [(encoding, text) for encoding, texts in TEXTS.items() for text in texts]


@pytest.mark.parametrize(("encoding", "text"), CASES)
def test_a_line_alone_says_what_it_said(encoding: str, text: str) -> None:
    assert decoded(f"hello\n{text}\n".encode(encoding)) == f"hello\n{text}\n"


def irc_log(*lines: bytes) -> bytes:
    return b"".join(b"2021-03-13 10:00:%02d\tTom\t%s\n" % (number % 60, line) for number, line in enumerate(lines))


@pytest.mark.parametrize("encoding", ["cp1252", "cp1251", "gb18030", "big5", "euc-kr"])
def test_a_log_that_mixes_two_encodings_loses_no_letter(tmp_path: Path, encoding: str) -> None:
    said = ["plain", "naïve 鹿 Привет 안녕", *TEXTS[encoding], "日本", "und tschüß", *TEXTS[encoding] * 3]
    theirs = set(TEXTS[encoding])
    log = irc_log(*(text.encode(encoding if text in theirs else "utf-8") for text in said))
    (tmp_path / "irc.libera.#tea.weechatlog").write_bytes(log)
    messages, bad = read_all(tmp_path / "irc.libera.#tea.weechatlog")
    assert [message.text for message in messages] == said
    assert not bad


def test_one_line_of_two_encodings(tmp_path: Path) -> None:
    (tmp_path / "irc.libera.#tea.weechatlog").write_bytes(irc_log("Zoë: ".encode() + "café à 5 €".encode("cp1252")))
    (message,) = read_all(tmp_path / "irc.libera.#tea.weechatlog")[0]
    assert message.text == "Zoë: café à 5 €"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "utf-8-sig"])
@pytest.mark.parametrize("indent", [None, 1])
def test_json_in_any_encoding(tmp_path: Path, encoding: str, indent: int | None) -> None:
    said = [f"café naïve {number}" for number in range(30_000)]
    chat = telegram_chat([telegram_message(number, 1001, text) for number, text in enumerate(said, 1)])
    (tmp_path / "result.json").write_bytes(json.dumps(chat, ensure_ascii=False, indent=indent).encode(encoding))
    messages, bad = read_all(tmp_path / "result.json")
    assert [message.text for message in messages] == said
    assert not bad


@pytest.mark.parametrize("indent", [None, 1])
def test_chinese_json_of_an_old_windows(tmp_path: Path, indent: int | None) -> None:
    said = ["今天晚上吃什么", "好的", "plain", "小林去图书馆了"] * 2000
    chat = telegram_chat([telegram_message(number, 1001, text) for number, text in enumerate(said, 1)])
    (tmp_path / "result.json").write_bytes(json.dumps(chat, ensure_ascii=False, indent=indent).encode("gb18030"))
    messages, bad = read_all(tmp_path / "result.json")
    assert [message.text for message in messages] == said
    assert not bad


WIDE = [name for name in EXPORTS if name[0] not in ("bluesky", "qq", "sample") and name[1] != "packed"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", WIDE)
def test_every_export_in_utf_16(tmp_path: Path, name: tuple[str, str], encoding: str) -> None:
    again = {file: data.decode().encode(encoding) for file, data in EXPORTS[name].items()}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before, bad_before = read_all(write(tmp_path / "a", EXPORTS[name], as_zip=False))
    after, bad_after = read_all(write(tmp_path / "b", again, as_zip=False))
    assert [(message.sender, message.text, message.sent_at) for message in after] == [
        (message.sender, message.text, message.sent_at) for message in before
    ]
    assert len(bad_after) == len(bad_before)


def test_zeros_and_marks_in_the_middle_cost_nothing(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    rows = (
        b"username,text,timestamp\nTom,a\0b,1600000000\n\0\0\n" + mark + b"username,text,timestamp\nAnn,c,1600000001\n"
    )
    (tmp_path / "tea.csv").write_bytes(mark + rows + b"\0" * 100)
    messages, bad = read_all(tmp_path / "tea.csv")
    assert [(message.sender, message.text) for message in messages] == [("Tom", "ab"), ("Ann", "c")]
    assert not bad


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="cp1252", min_codepoint=32), max_size=60))
def test_utf_8_is_never_taken_for_anything_else(text: str) -> None:
    assert decoded(text.encode()) == text
    assert wide_encoding(f"{{{text}".encode()) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_some_text(data: bytes) -> None:
    assert isinstance(decoded(data), str)

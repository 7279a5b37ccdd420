"""Small sound exports of the formats, ways to damage them, and whether reading survives that. Made up throughout.

Used by the tests and by `benchmarks/fuzz.py`. Where the choices come from, this does not know.
"""

import json
import re
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from doppel.errors import UserError
from tests.training.archives import (
    test_bluesky,
    test_discord,
    test_google_chat,
    test_imessage,
    test_instruction_data,
    test_irc,
    test_kakaotalk,
    test_line,
    test_mastodon,
    test_matrix,
    test_meta,
    test_qq_exporter,
    test_qq_text,
    test_reddit,
    test_signal,
    test_signal_plaintext,
    test_slack,
    test_wechat_csv,
    test_wechat_json,
    test_weibo,
    test_whatsapp,
)
from tests.training.exports import (
    ZONE,
    conversation,
    direct_message,
    telegram_account,
    telegram_chat,
    telegram_message,
    tweet,
    twitter_files,
)
from training.archives.discovery import discover, installed_readers
from training.archives.message import Message
from training.archives.reader import Reader
from training.archives.sample import SPEAKER

Files = dict[str, bytes]
Choose = Callable[[int], int]
"""Gives a number from 0 to below the one it is called with."""


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def _encoded(files: dict[str, str]) -> Files:
    return {name: text.encode() for name, text in files.items()}


def _exports() -> dict[tuple[str, str], Files]:
    stamp = "2020-10-10T10:10:10.000Z"
    message_record = telegram_message
    chat = telegram_chat(
        [message_record(1, 1001, "hi"), message_record(2, 2002, ["see ", {"type": "link", "text": "a.example"}])]
    )
    talk = conversation("1001-2002", direct_message(2, "2002", "yes", stamp), direct_message(1, "1001", "hi", stamp))
    tweets = [tweet(1, "hello"), tweet(2, "@tom no", in_reply_to_status_id_str="1")]
    bubble = {"text": "hi", "timestamp": "2020-01-01T00:00:00", "sender": SPEAKER}
    records = test_reddit.lines(test_reddit.submission(1, "Which pot?", "two"), test_reddit.comment(1, "iron"))
    inbox = test_meta.conversation(
        test_meta.message_record(2, "Zoë", "tschüß"), test_meta.message_record(1, "Tom", "hi")
    )
    table = 'AuthorID,Author,Date,Content,Attachments,Reactions\n"1","Mara","03/14/2021 9:00 AM","hi","",""\n'
    letter = {"senderName": "Zoë", "text": "hi", "timestamp": 1_600_000_000_000, "isUnsent": False, "media": []}
    encrypted = {"participants": ["Tom", "Zoë"], "threadName": "Zoë_7", "messages": [letter]}
    chat_message = test_google_chat.message_record(1, test_google_chat.MARA, "hi")
    words = {"message_content": {"segment": [{"type": "TEXT", "text": "hi"}]}}
    hangout = {"sender_id": {"gaia_id": "1"}, "timestamp": "1600000000123456", "event_id": "e", "chat_message": words}
    element = test_matrix.room(test_matrix.event(1, "hello"), test_matrix.event(2, "moin", "@tom:example.org"))
    listed, me = test_wechat_json.listed, test_wechat_json.ME
    return {
        ("telegram", "chat"): {"result.json": _json(chat)},
        ("telegram", "account"): {"result.json": _json(telegram_account(chat))},
        ("twitter", ""): _encoded(twitter_files(tweets=tweets, direct_messages=[talk])),
        ("discord", ""): _encoded(test_discord.package()),
        ("discord-exporter", "table"): {"general.csv": table.encode()},
        ("discord-exporter", ""): {
            "general.json": _json(
                test_discord.exported(test_discord.message_record(1, "hi"), test_discord.message_record(2, "yes"))
            )
        },
        ("slack", ""): _encoded(
            test_slack.workspace(
                test_slack.message_record(1, "U1", "hi <@U2>"), test_slack.message_record(2, "U2", "x")
            )
        ),
        ("mastodon", ""): {"outbox.json": _json(test_mastodon.outbox(test_mastodon.created(1, "<p>Hello<br>you</p>")))},
        ("matrix", ""): {"export.json": _json(element)},
        ("meta", "encrypted"): {"Zoe_7.json": _json(encrypted)},
        ("meta", ""): {"inbox/zoe_1/message_1.json": _json(inbox)},
        ("google-chat", "hangouts"): {"Hangouts.json": _json({"conversations": [test_google_chat.hangout(hangout)]})},
        ("google-chat", ""): _encoded(test_google_chat.takeout(chat_message)),
        ("imessage", ""): {"Tom.txt": test_imessage.CHAT.encode()},
        ("irc", "weechat"): {"irc.libera.#tea.weechatlog": test_irc.WEECHAT.encode()},
        ("irc", "irssi"): {"#tea.log": test_irc.IRSSI.encode()},
        ("irc", "znc"): {"#tea_20210313.log": test_irc.ZNC.encode()},
        ("kakaotalk", "text"): {"chat.txt": test_kakaotalk.PC.encode()},
        ("kakaotalk", "phone"): {"chat.txt": test_kakaotalk.ANDROID.encode()},
        ("kakaotalk", "table"): {"chat.csv": test_kakaotalk.TABLE.encode()},
        ("line", ""): {"chat.txt": test_line.PHONE.encode()},
        ("line", "desktop"): {"chat.txt": b"2021.03.13 Saturday\n21:05 Tom hi\n21:06 Mara Photos\n"},
        ("signal", "text"): {"chat.md": test_signal.MARKDOWN.encode()},
        ("signal", "records"): {"data.json": test_signal.JSON_LINES.encode()},
        ("signal-desktop", ""): {
            "main.jsonl": b"\n".join(
                map(
                    _json,
                    (
                        *test_signal_plaintext.PEOPLE,
                        test_signal_plaintext.item(1, "2", "hi"),
                        test_signal_plaintext.item(2, "1", "x"),
                    ),
                )
            )
        },
        ("whatsapp", "android"): {"_chat.txt": test_whatsapp.ANDROID.encode()},
        ("whatsapp", "ios"): {"_chat.txt": test_whatsapp.IOS.encode()},
        ("reddit", "request"): _encoded(test_reddit.request()),
        ("reddit", "dump"): {"dump.jsonl": records},
        ("reddit", "packed"): {"dump.zst": zstandard.ZstdCompressor().compress(records)},
        ("bluesky", ""): {"repo.car": test_bluesky.repository(test_bluesky.records())},
        ("instructions", "array"): {
            "data.json": _json([test_instruction_data.ALPACA, {"instruction": "tea?", "input": "", "output": "yes"}])
        },
        ("instructions", "lines"): {
            "data.jsonl": _json(test_instruction_data.SHAREGPT) + b"\n" + _json(test_instruction_data.OPENAI) + b"\n"
        },
        ("instructions", "table"): {"data.csv": b"instruction,output\nhi,hello\n"},
        ("table", ""): {
            "chat.csv": "username,text,timestamp\nTom,hallo,1600000000\n小林,好,2020-10-10 10:10\n".encode()
        },
        ("qq", "text"): {"小鹿.txt": test_qq_text.FRIEND.encode()},
        ("qq", "group"): {"茶会.txt": test_qq_text.GROUP.encode()},
        ("qq", "mht"): {
            "小鹿.mht": test_qq_text.mht(test_qq_text.row("小鹿", "8:43:38", test_qq_text.font("在吗<br>嗯"))).encode()
        },
        ("qq-exporter", ""): {
            "小鹿.json": _json(
                test_qq_exporter.exported(
                    test_qq_exporter.message_record(1, test_qq_exporter.DEER, test_qq_exporter.text("在吗")),
                    test_qq_exporter.message_record(2, test_qq_exporter.ME, test_qq_exporter.text("在")),
                )
            )
        },
        ("qq-exporter", "chunks"): _encoded(test_qq_exporter.chunked()),
        ("wechat", ""): {"小鹿.csv": test_wechat_csv.DUMPED.encode()},
        ("wechat", "traced"): {
            "messages.csv": test_wechat_csv.table(
                test_wechat_csv.TRACE, test_wechat_csv.traced(1, "在吗", "我")
            ).encode()
        },
        ("wechat-json", "list"): {"小鹿.json": _json([listed(1, test_wechat_json.DEER, "在吗"), listed(2, me, "在")])},
        ("wechat-json", "session"): {
            "小鹿.json": _json(
                test_wechat_json.session(test_wechat_json.kept(1, "在吗"), test_wechat_json.kept(2, "在", own=1))
            )
        },
        ("weibo", "json"): {
            "1.json": _json(test_weibo.crawled(test_weibo.post(1, "早"), test_weibo.post(2, "//@小王:嗯")))
        },
        ("weibo", "table"): {
            "1.csv": test_weibo.table(test_weibo.row(1, "早"), test_weibo.row(2, "是", "原文")).encode()
        },
        ("parents", ""): {"parents.jsonl": _json({"id": "77", "author": "@tom", "text": "tea"}) + b"\n"},
        ("sample", ""): {"dataset.json": _json({SPEAKER: {"messages": [[bubble, bubble]]}})},
    }


EXPORTS = _exports()
"""Files of small sound exports, by the reader's name and what sets this one apart."""

_WORDS = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\t", b"\0", b"<", b"&", b"=", b";", b"-"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff", b"\xc3", b"\xe2\x80\xa8", b"\xe2\x80\x8e", b"\x81\x30"),
    *(b"\\x41", b"\\ud800", b"\\u0000", b"\\u12", b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"0" * 40),
    *(b"[" * 3000, b'{"a":' * 3000, b"<div>" * 500, b'"' * 50, b"99999-99-99", b"/../", b"%s{0}", b"\x1b[31m"),
)
_VALUES = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e999", b"1e400", b"9" * 400, b'""', b'"x"', b'"-"', b'"\\ud800"'),
    *(b"[]", b"{}", b"[[]]", b"[{}]", b"[null]", b'{"a": 1}', b'{"id": null}', b'["x", 1]', b'"0000-00-00T00:00:00Z"'),
    *(b'"9999-12-31T23:59:59-23:59"', b'"0001-01-01T00:00:00+23:59"', b"253402300800", b"-62135596801"),
)
_VALUE = re.compile(rb'"(?:[^"\\]|\\.){0,200}"|-?\d+(?:\.\d+)?|true|false|null|\[\]|\{\}')
_LONGEST = 1 << 16


def damaged(files: Files, choose: Choose) -> Files:
    """The files with one to four changes."""
    changed = dict(files)
    for _ in range(1 + choose(4)):
        name = sorted(changed)[choose(len(changed))]
        changed[name] = _changed(changed[name], choose)[:_LONGEST]
    return changed


def _changed(data: bytes, choose: Choose) -> bytes:
    """One change: of a value, a byte, a stretch, or a word where none was."""
    values = list(_VALUE.finditer(data))
    way = choose(8)
    if way < 3 and values:  # what formats get wrong most: a value of another kind
        match = values[choose(len(values))]
        return data[: match.start()] + _VALUES[choose(len(_VALUES))] + data[match.end() :]
    start = choose(len(data) + 1)
    end = min(len(data), start + 1 + choose(40))
    if way < 5:
        return data[:start] + _WORDS[choose(len(_WORDS))] + data[start:]
    if way == 5:
        return data[:start] + bytes((choose(256),)) + data[start + 1 :]
    if way == 6:
        return data[:start] + data[end:]
    return data[:end] + data[start:] if choose(2) else data[:start]


def write(place: Path, files: Files, *, as_zip: bool) -> Path:
    """The files in a folder, or in a zip."""
    if as_zip:
        path = place / "archive.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    for name, data in files.items():
        path = place / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return place / "archive"


def survive(path: Path, readers: list[Reader] | None = None) -> list[Message]:
    """Finds and reads whatever is there. Only a UserError of one line may end that, and every message is sound."""
    messages: list[Message] = []
    try:
        discovery = discover([str(path)], path.parent, ZONE, readers or installed_readers())
        with closing(discovery):
            for source in discovery.sources:
                for message in source.reader.read(source.tree):
                    require_sound(message)
                    messages.append(message)
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError(f"not one line: {error}") from error
    return messages


def require_sound(message: Message) -> None:
    """Raises when a field is not of its type, or the time is not in UTC."""
    msgspec.convert(msgspec.structs.asdict(message), Message)
    shift = message.sent_at.utcoffset()
    if shift is None or shift:
        raise AssertionError(f"not in UTC: {message.sent_at!r}")

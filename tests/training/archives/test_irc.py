"""IRC logs of WeeChat, irssi and ZNC."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import ZONE, read_all
from training.archives.irc import IRCReader
from training.archives.message import Message
from training.archives.source_tree import BadRecord, SourceTree, open_folder

WEECHAT = (
    "2021-03-13 21:05:10\t-->\tmara (~m@host.example) has joined #tea\n"
    "2021-03-13 21:05:11\t@tom\thello \x02there\x02 \x0304,05you\x03\n"
    "2021-03-13 21:05:12\tmara\ttom: hi\n"
    "2021-03-13 21:05:13\t--\tmara is now known as mara_away\n"
    "2021-03-13 21:05:14\t *\tmara_away waves\n"
    "2021-03-13 21:05:15\t--\tNotice(tom): psst\n"
    "2021-03-13 21:05:16\tmara_away\ttom: you there?\n"
    "2021-03-13 21:05:17\t<--\tmara_away (~m@host.example) has quit (bye)\n"
)
IRSSI = (
    "--- Log opened Sat Mar 13 21:00:12 2021\n"
    "21:05 -!- mara [~m@host.example] has joined #tea\n"
    "21:05 <@tom> hello\n21:05 < mara> hi <b>\n21:05  * mara waves\n21:05 -tom:#tea- psst\n"
    "21:06 -!- mara is now known as Mara2\n21:06 <+Mara2> still me\n"
    "--- Day changed Sun Mar 14 2021\n00:30 <@tom> late\n--- Log closed Sun Mar 14 00:31:00 2021\n"
)
ZNC = (
    "[21:05:10] *** Joins: mara (~m@host.example)\n[21:05:11] <tom> hello\n[21:05:12] * mara waves\n"
    "[21:05:13] -tom- psst\n[21:05:14] *** mara is now known as mara2\n[21:05:15] <mara2> still me\n"
    "[21:05:16] *** Quits: mara2 (~m@host.example) (bye)\n"
)


def read(path: Path) -> tuple[list[Message], list[BadRecord]]:
    return read_all(path, [IRCReader()])


def written(folder: Path, text: str, name: str = "#tea.log") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def senders_marks_and_texts(messages: list[Message]) -> list[tuple[str, str, str]]:
    return [(message.sender, message.mark, message.text) for message in messages if message.mark != "service"]


def test_weechat(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, WEECHAT, "irc.libera.#tea.weechatlog"))
    assert bad == []
    assert senders_marks_and_texts(messages) == [
        ("tom", "", "hello there you"),
        ("mara", "", "tom: hi"),
        ("mara", "", "/me waves"),
        ("mara", "", "tom: you there?"),
    ]
    assert len(messages) == 8
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)
    assert messages[6].sender_name == "mara_away"
    assert {(message.kind, message.chat, message.platform, message.is_owner) for message in messages} == {
        ("group", "libera/#tea", "irc", None)
    }
    assert len({message.id for message in messages}) == len(messages)


def test_only_who_spoke_just_before_is_answered_for_sure(tmp_path: Path) -> None:
    messages, _ = read(written(tmp_path, WEECHAT, "irc.libera.#tea.weechatlog"))
    assert [(message.text, message.reply_to) for message in messages if message.reply_to] == [
        ("tom: hi", messages[1].id)
    ]


def test_irssi(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, IRSSI))
    assert bad == []
    assert senders_marks_and_texts(messages) == [
        ("tom", "", "hello"),
        ("mara", "", "hi <b>"),
        ("mara", "", "/me waves"),
        ("tom", "bot", "psst"),
        ("mara", "", "still me"),
        ("tom", "", "late"),
    ]
    assert messages[1].sent_at == datetime(2021, 3, 13, 20, 5, tzinfo=UTC)
    assert messages[-1].sent_at == datetime(2021, 3, 13, 23, 30, tzinfo=UTC)
    assert {(message.kind, message.chat) for message in messages} == {("group", "#tea")}


@pytest.mark.parametrize(
    ("name", "chat", "kind"),
    [
        ("libera/#tea/2021-03-13.log", "#tea", "group"),
        ("default_libera_#tea_20210313.log", "#tea", "group"),
        ("libera/tom/2021-03-13.log", "tom", "dm"),
    ],
)
def test_znc_has_the_day_in_the_name(tmp_path: Path, name: str, chat: str, kind: str) -> None:
    messages, bad = read(written(tmp_path, ZNC, name))
    assert bad == []
    assert senders_marks_and_texts(messages) == [
        ("tom", "", "hello"),
        ("mara", "", "/me waves"),
        ("tom", "bot", "psst"),
        ("mara", "", "still me"),
    ]
    assert messages[0].sent_at == datetime(2021, 3, 13, 20, 5, 10, tzinfo=UTC)
    assert {(message.kind, message.chat) for message in messages} == {(kind, chat)}


def test_a_log_of_two_that_is_not_called_after_a_channel_is_a_query(tmp_path: Path) -> None:
    messages, _ = read(written(tmp_path, IRSSI, "tom.log"))
    assert {(message.kind, message.chat) for message in messages} == {("dm", "tom")}
    messages, _ = read(written(tmp_path, IRSSI + "00:32 <kim> hi\n", "tea.log"))
    assert {(message.kind, message.chat) for message in messages} == {("group", "tea")}


def test_a_nick_that_left_may_be_another_person_when_it_comes_again(tmp_path: Path) -> None:
    text = ZNC + "[21:06:00] *** Joins: mara2 (~other@host.example)\n[21:06:01] <mara2> hello\n"
    messages, _ = read(written(tmp_path, text, "#tea_20210313.log"))
    assert [message.sender for message in messages if message.text in ("still me", "hello")] == ["tom", "mara", "mara2"]


def test_a_nick_taken_back_is_the_same_person(tmp_path: Path) -> None:
    text = "".join(
        f"2021-03-13 21:05:1{n}\t{line}\n"
        for n, line in enumerate(("a\tx", "--\ta is now known as b", "b\ty", "--\tb is now known as a", "a\tz"))
    )
    messages, _ = read(written(tmp_path, text))
    assert {message.sender for message in messages if message.text in "xyz"} == {"a"}


def test_weechat_times_with_a_zone(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, "2021-03-13T21:05:10.123456Z\ttom\thi\n"))
    assert bad == []
    assert messages[0].sent_at == datetime(2021, 3, 13, 21, 5, 10, 123456, tzinfo=UTC)


def test_what_is_no_line_of_a_log_is_noted(tmp_path: Path) -> None:
    messages, bad = read(written(tmp_path, IRSSI + "\nnonsense\n25:61 <tom> x\n--- Day changed ma maalis 15 2021\n"))
    assert len(senders_marks_and_texts(messages)) == 6
    assert [record.position for record in bad] == ["line 13", "line 14", "line 15"]


def test_after_a_day_that_cannot_be_read_nothing_is_dated_by_the_day_before(tmp_path: Path) -> None:
    text = IRSSI + "--- Day changed ma maalis 15 2021\n10:00 <tom> x\n--- Day changed Tue Mar 16 2021\n10:00 <tom> y\n"
    messages, bad = read(written(tmp_path, text))
    assert [message.text for message in messages][-2:] == ["late", "y"]
    assert len(bad) == 2


def test_ids_stay_the_same_in_a_later_export(tmp_path: Path) -> None:
    first, _ = read(written(tmp_path, IRSSI + "00:32 <tom> ok\n00:32 <tom> ok\n"))
    again, _ = read(written(tmp_path, IRSSI + "00:32 <tom> ok\n00:32 <tom> ok\n00:33 <tom> more\n"))
    assert len({message.id for message in again}) == len(again)
    assert [message.id for message in again][:-1] == [message.id for message in first]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "[21:05:10] <tom> no day anywhere\n",
        "[2021-03-13 21:05:10] Tom: hi\n",
        "21:05\tTom\thi\n",
        "2021-03-13 21:05:10 tom(123)\nhi\n",
        "{}",
    ],
)
def test_other_files_are_left_to_others(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text, "chat.log")
    assert not IRCReader().sniff(SourceTree(open_folder(path), path.name, path.name, ZONE))


@given(st.binary(max_size=300))
def test_no_bytes_stop_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for text in (WEECHAT, IRSSI):
        path = tmp_path_factory.mktemp("any") / "#tea.log"
        path.write_bytes(text.encode() + data)
        messages, _ = read(path)
        assert len(messages) >= 7


def test_nicks_of_any_script(tmp_path: Path) -> None:
    lines = ("mara\thi", "@женя\tпривет", "1337\tyo", "[b]o_\tx: y", "-->\tkim (k@x) has joined", "⇶\tnotice")
    text = "".join(f"2023-03-05 14:05:0{number}\t{line}\n" for number, line in enumerate(lines))
    messages, bad = read(written(tmp_path, text, "irc.libera.#tea.weechatlog"))
    assert bad == []
    assert [(message.sender_name, message.text) for message in messages if not message.mark] == [
        ("mara", "hi"),
        ("женя", "привет"),
        ("1337", "yo"),
        ("[b]o_", "x: y"),
    ]

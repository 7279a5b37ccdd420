"""The whole build: every message accounted for, splits and files right, nothing half-written."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.adapters.habits import Habits, read_habits
from doppel.config import parse_config
from doppel.errors import UserError
from doppel.transcript import Header, pseudonym
from tests.training.exports import (
    OWN_ID,
    conversation,
    direct_message,
    telegram_account,
    telegram_chat,
    telegram_message,
    tweet,
    twitter_files,
    write_json,
    write_zip,
)
from tests.training.messages import FixedReader, message
from training.archives.message import Message
from training.archives.reader import Reader
from training.dataset import sessions
from training.dataset.build import build_dataset
from training.dataset.files import Session, read_sessions
from training.dataset.report.build_report import Report


class SilentProgress:
    """Ignores the progress."""

    def stage(self, text: str) -> None: ...
    def add_bytes_total(self, size: int) -> None: ...
    def add_bytes_read(self, size: int) -> None: ...
    def add_messages(self, count: int) -> None: ...


def build(root: Path, archive: Any, *, readers: list[Reader] | None = None, **config: Any) -> Report:
    content = {"archive": archive, "timezone": "Europe/Berlin", **config}
    return build_dataset(parse_config(content, root / "config.yaml"), SilentProgress(), readers)


def build_messages(root: Path, *archives: list[Message], **config: Any) -> Report:
    """A build from messages: each list is an archive of its own."""
    readers: list[Reader] = []
    for number, messages in enumerate(archives):
        (root / f"archive-{number}").write_text("x")
        readers.append(OneFile(messages, f"archive-{number}"))
    return build(root, [f"archive-{number}" for number in range(len(archives))], readers=readers, **config)


class OneFile(FixedReader):
    """A reader of given messages that recognises one file name, so that several can stand side by side."""

    def sniff(self, tree: Any) -> bool:
        return tree.is_file and tree.files() == [self.name]


def sessions_of(root: Path, persona: str = "sample") -> list[Session]:
    return list(read_sessions(root / "data" / persona))


def assert_accounted(report: Report) -> None:
    assert report.read == report.kept + sum(report.dropped.values())
    for source in report.sources.values():
        assert source.read == source.kept + sum(source.dropped.values())
        assert source.read == sum(chat.read for chat in source.chats)
        for chat in source.chats:
            assert chat.read == chat.kept + sum(chat.dropped.values())
    assert report.read == sum(source.read for source in report.sources.values())


TEXTS = st.sampled_from(["", "hi", "https://example.org", "one two three four five six seven eight nine", "哈哈"])
MARKS = st.sampled_from(["", "", "", "forward", "retweet", "service", "bot", "media", "sticker", "deleted"])
MESSAGES = st.lists(
    st.builds(
        dict,
        text=TEXTS,
        mark=MARKS,
        at=st.integers(0, 3000),
        chat=st.sampled_from(["a", "b"]),
        sender=st.sampled_from(["me", "ana", "tom"]),
        kind=st.sampled_from(["dm", "group", "post", "reply", "quote"]),
        reply_to=st.none() | st.integers(0, 20).map(str),
        source=st.integers(0, 1),
        number=st.integers(0, 30),
    ),
    max_size=50,
)


@settings(deadline=None, max_examples=60)
@given(MESSAGES)
def test_everything_read_is_kept_or_dropped_for_a_reason(rows: list[dict[str, Any]]) -> None:
    archives: list[list[Message]] = [[message(0, "hello there")], []]
    for row in rows:
        fields = dict(row)
        archives[fields.pop("source")].append(message(fields.pop("number"), fields.pop("text"), **fields))
    with tempfile.TemporaryDirectory() as folder:
        report = build_messages(Path(folder), *archives)
        assert_accounted(report)
        assert report.read == len(rows) + 1
        built = sessions_of(Path(folder))
    assert report.kept == sum(len(turn.bubbles) for session in built for turn in session.turns)
    mine = sum(len(turn.bubbles) for session in built for turn in session.turns if turn.is_mine)
    assert report.owner.kept == mine
    assert report.sessions == {split: sum(session.split == split for session in built) for split in report.sessions}
    for session in built:
        assert any(turn.is_mine for turn in session.turns)
        assert all(bubble.strip() for turn in session.turns for bubble in turn.bubbles)


def test_a_telegram_account(tmp_path: Path) -> None:
    chat = telegram_chat(
        [
            telegram_message(1, 2002, "你好"),
            telegram_message(2, 2002, "在吗", at=21),
            telegram_message(3, 1001, "在的", at=24),
            telegram_message(4, 1001, "什么事\n说吧", at=27),
            telegram_message(5, 2002, "", photo="(File not included.)"),
            telegram_message(6, 1001, "forwarded", forwarded_from="x"),
            telegram_message(7, 2002, "anyone?", at=90_000),
        ]
    )
    write_json(tmp_path / "archive" / "result.json", telegram_account(chat))
    report = build(tmp_path, "archive")
    assert_accounted(report)
    assert (report.read, report.kept) == (7, 4)
    assert report.dropped == {"media": 1, "forward": 1, "no turn of yours": 1}
    assert report.owner.accounts == ["telegram: Mara Lind"]
    (session,) = sessions_of(tmp_path)
    tom = pseudonym("telegram", "2002")
    assert [(turn.speaker, turn.bubbles) for turn in session.turns] == [
        (tom, ("你好", "在吗")),
        ("me", ("在的", "什么事\n说吧")),
    ]
    assert session.split == "train"
    assert session.started_at.isoformat() == "2017-07-14T02:40:10+00:00"
    assert read_habits(tmp_path / "data" / "sample").bubbles_per_turn == 2.0


def test_a_twitter_zip(tmp_path: Path) -> None:
    files = twitter_files(
        tweets=[
            tweet(3, "and a third thing", in_reply_to_status_id_str="2"),
            tweet(1, "a thread begins"),
            tweet(2, "and goes on", in_reply_to_status_id_str="1"),
            tweet(4, "@tom indeed, that is so", in_reply_to_status_id_str="999"),
            tweet(5, "RT @ana: what she said"),
        ],
        direct_messages=[
            conversation(
                f"{OWN_ID}-2002",
                direct_message(2, OWN_ID, "hi you", "2018-10-11T10:00:05.000Z"),
                direct_message(1, "2002", "hi", "2018-10-11T10:00:00.000Z"),
            )
        ],
    )
    write_zip(tmp_path / "t.zip", files, "x/y/")
    report = build(tmp_path, "t.zip")
    assert_accounted(report)
    assert report.dropped == {"retweet": 1}
    assert {chat.name: chat.read for chat in report.sources["twitter"].chats} == {
        "tweets": 5,
        pseudonym("twitter", "2002"): 2,
    }
    built = {
        tuple(bubble for turn in session.turns for bubble in turn.bubbles): session for session in sessions_of(tmp_path)
    }
    assert set(built) == {
        ("a thread begins", "and goes on", "and a third thing"),
        ("indeed, that is so",),
        ("hi", "hi you"),
    }
    full = {tuple(bubbles): session.header for bubbles, session in built.items() if session.header != Header()}
    for bubbles, kind in ((("indeed, that is so",), "reply"), (("hi", "hi you"), "dm")):
        assert bubbles not in full or full[bubbles].kind in (kind, None)


def test_overlapping_exports_count_each_message_once(tmp_path: Path) -> None:
    messages = [message(number, f"number {number}", sender="me" if number % 2 else "ana") for number in range(6)]
    report = build_messages(tmp_path, messages, messages[2:])
    assert_accounted(report)
    assert report.dropped == {"duplicate": 4}
    assert report.kept == 6


def test_half_a_character_in_a_name_or_text_is_no_obstacle(tmp_path: Path) -> None:
    half = "\ud83d"
    chat = telegram_chat(
        [telegram_message(1, 3003, f"hi {half}"), telegram_message(2, 1001, "hello")], name=f"Tom {half}"
    )
    (tmp_path / "result.json").write_text(json.dumps(chat))
    report = build(tmp_path, "result.json", persona={"me": ["1001"]})
    assert_accounted(report)
    assert report.kept == 2
    (session,) = sessions_of(tmp_path)
    assert session.turns[0].bubbles == ("hi ?",)


def test_persona_me_settles_a_single_group(tmp_path: Path) -> None:
    group = telegram_chat(
        [telegram_message(1, 3003, "hi"), telegram_message(2, 1001, "hello")], id=5, type="private_group"
    )
    write_json(tmp_path / "result.json", group)
    with pytest.raises(UserError, match=r"Mara Lind \(1001, 1 messages\)"):
        build(tmp_path, "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    for me in ("mara lind", 1001, "1001"):
        assert build(tmp_path, "result.json", persona={"me": [me]}).owner.kept == 1


def test_a_session_like_one_in_the_test_leaves_training(tmp_path: Path) -> None:
    said = "the very same eight words every single day here"
    day = 24 * 60
    messages = [message(number, f"something new {number}", at=number * day) for number in range(9)]
    messages += [message(20, said, at=3.5 * day), message(21, said, at=50 * day)]
    report = build_messages(tmp_path, messages, cleaning={"near_duplicates": False})
    assert_accounted(report)
    assert report.dropped == {"also in test": 1}
    assert Counter(session.split for session in sessions_of(tmp_path) if session.turns[0].bubbles == (said,)) == {
        "test": 1
    }


def test_time_order_and_whole_sessions(tmp_path: Path) -> None:
    rows = [
        message(n, f"text {n}", at=n * 30 if n % 3 else n * 200, sender="me" if n % 2 else "ana") for n in range(90)
    ]
    build_messages(tmp_path, rows)
    order = [session.split for session in sessions_of(tmp_path)]
    assert order == sorted(order, key=["train", "validation", "test"].index)


def test_the_contact_of_somebody_who_never_answered_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 24 * 60
    build_messages(tmp_path, [message(1, "hi"), message(2, "oh hello", sender="ana", at=day), message(3, at=day + 1)])
    assert [session.header.contact for session in sessions_of(tmp_path)] == [pseudonym("test", "ana")] * 2


def test_several_of_one_format_are_numbered(tmp_path: Path) -> None:
    for number in (1, 2):
        chat = telegram_chat([telegram_message(1, 1001, "hi there")], id=number)
        write_json(tmp_path / "archive" / f"{number}" / "result.json", telegram_account(chat))
    assert list(build(tmp_path, "archive").sources) == ["telegram", "telegram 2"]


def test_a_build_is_the_same_twice_and_report_is_complete(tmp_path: Path) -> None:
    messages = [message(number, f"number {number}", at=number * 50) for number in range(40)]
    first = build_messages(tmp_path, messages)
    before = (tmp_path / "data" / "sample" / "sessions.jsonl").read_bytes()
    build_messages(tmp_path, messages)
    folder = tmp_path / "data" / "sample"
    assert (folder / "sessions.jsonl").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["habits.json", "report.json", "sessions.jsonl"]
    written = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert msgspec.structs.replace(written, seconds=0) == msgspec.structs.replace(first, seconds=0)
    assert json.loads((folder / "report.json").read_bytes())["sources"]["archive-0"]["chats"][0]["read"] == 40


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "contains no messages"),
        ([message(1, sender="ana")], "contains no messages of yours"),
        ([message(1, mark="forward"), message(2, "")], "no messages of yours are left to learn from; dropped: "),
    ],
)
def test_nothing_to_learn_from(tmp_path: Path, messages: list[Message], error: str) -> None:
    build_messages(tmp_path, [message(1, "the old data set")])
    before = (tmp_path / "data" / "sample" / "sessions.jsonl").read_bytes()
    with pytest.raises(UserError, match=error):
        build_messages(tmp_path, messages)
    assert (tmp_path / "data" / "sample" / "sessions.jsonl").read_bytes() == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["sample"]


def test_an_interrupted_build_leaves_the_old_data(tmp_path: Path) -> None:
    class Interrupted(OneFile):
        def read(self, tree: Any) -> Any:
            yield message(1)
            raise KeyboardInterrupt

    build_messages(tmp_path, [message(1, "the old data set")])
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "archive-0", readers=[Interrupted([], "archive-0")])
    assert sessions_of(tmp_path)[0].turns[0].bubbles == ("the old data set",)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["sample"]


def test_the_sample(tmp_path: Path) -> None:
    report = build(tmp_path, "sample")
    assert_accounted(report)
    assert report.owner.read == 25_272
    assert report.read == 45_016
    assert len(report.sources["sample"].chats) == 777
    assert report.owner.kept > 25_200
    built = sessions_of(tmp_path)
    assert {session.header.platform for session in built} == {"web"}
    assert all(session.header.kind == "dm" and session.header.year == "2018" for session in built)
    mine = Counter[str]()
    for session in built:
        mine[session.split] += sum(len(turn.bubbles) for turn in session.turns if turn.is_mine)
    assert mine["test"] / report.owner.kept == pytest.approx(0.10, abs=0.02)
    assert mine["validation"] / report.owner.kept == pytest.approx(0.05, abs=0.02)
    habits = read_habits(tmp_path / "data" / "sample")
    assert habits != Habits()
    assert 1 < habits.bubbles_per_turn < 5
    assert 1 < habits.bubble_gap_seconds[4] < 60
    assert sessions.DEFAULT_GAP == 3600

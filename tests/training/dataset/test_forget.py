"""Forgetting somebody: gone from the data set, from its lists and page, and from every build after it."""

import asyncio
import json
import random
import re
import stat
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from bot.store import Store, inbox
from bot.store.schema import NewMessage
from doppel.cli.app import as_command
from doppel.cli.forget import forget as forget_command
from doppel.cli.mydata import mydata as mydata_command
from doppel.config import Config, parse_config
from doppel.errors import DoppelError, UserError
from doppel.personal_data import Account, find_person, person_pseudonym
from doppel.reports.quiz import QuestionSet, QuizQuestion, QuizSession, write_questions
from doppel.stored_files import STORED_FILES
from doppel.transcript import Turn, pseudonym
from tests.training.dataset.test_build import assert_accounted, build_messages, sessions_of
from tests.training.exports import telegram_account, telegram_chat, telegram_message, write_json
from tests.training.messages import message
from training.archives.message import Message
from training.commands.build import build as build_command
from training.dataset.forget import ForgetResult, forget_accounts
from training.dataset.report.build_report import Report
from training.people.contacts import CONTACTS_FILE, read_contacts
from training.personal_data import DataSet
from training.privacy.blocklist import Blocklist
from training.privacy.scrub import SCRUBBED_FILE

DAY = 24 * 60
ANA, TOM = pseudonym("test", "ana"), pseudonym("test", "tom")


def config_of(root: Path, **more: Any) -> Config:
    return parse_config({"timezone": "Europe/Berlin", **more}, root / "config.yaml")


def forget(config: Config, name: str) -> ForgetResult:
    person = find_person(config, [DataSet(config)], name)
    return forget_accounts(config.data_dir, person.name, person.accounts)


def folder_of(root: Path) -> Path:
    return root / "data" / "sample"


def report_of(root: Path) -> Report:
    return msgspec.json.decode((folder_of(root) / "report.json").read_bytes(), type=Report)


def bubbles_of(root: Path) -> list[str]:
    return [bubble for session in sessions_of(root) for turn in session.turns for bubble in turn.bubbles]


def assert_consistent(root: Path) -> Report:
    """What report.json says of a data set agrees with the data set."""
    report = report_of(root)
    assert_accounted(report)
    built = sessions_of(root)
    assert report.kept == len(bubbles_of(root))
    assert report.owner.kept == sum(len(turn.bubbles) for session in built for turn in session.turns if turn.is_mine)
    assert report.sessions == {split: sum(session.split == split for session in built) for split in report.sessions}
    assert len({session.id for session in built}) == len(built)
    assert all(any(turn.is_mine for turn in session.turns) for session in built)
    assert all(count > 0 for chat in report.sources.values() for count in chat.dropped.values())
    return report


def archive() -> list[Message]:
    """Conversations with ana and tom, and a group of both."""
    ana, tom = {"sender": "ana", "sender_name": "Ana B"}, {"sender": "tom", "sender_name": "Tom"}
    with_ana, with_tom = {"chat": "with ana", "chat_name": "Ana B"}, {"chat": "with tom", "chat_name": "Tom"}
    group: dict[str, Any] = {"kind": "group", "chat": "group", "chat_name": "The group"}
    return [
        message(1, "from ana", **ana, **with_ana),
        message(2, "to ana", **with_ana),
        message(3, "from tom", **tom, **with_tom),
        message(4, "to tom", **with_tom),
        message(10, "group by tom", at=DAY, **tom, **group),
        message(11, "group to tom", at=DAY + 1, **group),
        message(12, "group by ana", at=DAY + 2, **ana, **group),
        message(13, "group to ana", at=DAY + 3, **group),
        message(14, "more by tom", at=DAY + 4, **tom, **group),
        message(15, "more to tom", at=DAY + 5, **group),
        message(20, "of my own accord", at=2 * DAY, kind="post", chat="posts"),
    ]


LEFT = ["from tom", "to tom", "group by tom", "group to tom", "more by tom", "more to tom", "of my own accord"]


@pytest.mark.parametrize("name", ["ana", "ANA", "@ana", "Ana B", "test:ana", "test: Ana B", ANA, ANA.lower()])
def test_a_contact_by_whatever_name(tmp_path: Path, name: str) -> None:
    build_messages(tmp_path, archive())
    gone = forget(config_of(tmp_path), name)
    assert (gone.accounts, gone.messages, gone.sessions) == (["test:ana"], 4, 2)
    assert sorted(bubbles_of(tmp_path)) == sorted(LEFT)
    report = assert_consistent(tmp_path)
    assert report.dropped == {"forgotten": 4}
    assert report.read == len(archive())
    assert {contact.account for contact in read_contacts(folder_of(tmp_path))} == {"tom"}


def test_what_the_quiz_asks_of_them_goes_too(tmp_path: Path) -> None:
    build_messages(tmp_path, archive())
    asked = QuizQuestion((Turn(ANA, ("from ana",)),), ("to ana",), True)
    write_questions(folder_of(tmp_path), QuestionSet("0001", (QuizSession(0, (asked,)),)))
    forget(config_of(tmp_path), "ana")
    assert [path.name for path in folder_of(tmp_path).iterdir() if b"from ana" in path.read_bytes()] == []


def test_a_build_after_it_leaves_them_out_as_well(tmp_path: Path) -> None:
    build_messages(tmp_path, archive())
    forget(config_of(tmp_path), "ana")
    before = sorted(bubbles_of(tmp_path))
    report = build_messages(tmp_path, archive())
    assert sorted(bubbles_of(tmp_path)) == before
    assert report.dropped == {"forgotten": 4}
    assert_consistent(tmp_path)


def test_new_conversations_with_them_are_left_out_too(tmp_path: Path) -> None:
    build_messages(tmp_path, archive())
    forget(config_of(tmp_path), "ana")
    later: dict[str, Any] = {"at": 3 * DAY, "chat": "new"}
    news = [message(30, "ana again", sender="ana", **later), message(31, "to ana again", **later)]
    news += [message(40, "never answered", chat="ana", at=4 * DAY)]
    report = build_messages(tmp_path, [*archive(), *news])
    assert sorted(bubbles_of(tmp_path)) == sorted(LEFT)
    assert report.dropped == {"forgotten": 7}


def test_a_group_or_a_feed_is_not_lost_for_one_of_its_people(tmp_path: Path) -> None:
    """Even where nobody else but the owner wrote in it."""
    rows = [
        *archive(),
        message(50, "my first post", at=5 * DAY, kind="post", chat="feed"),
        message(51, "their reply", at=6 * DAY, kind="reply", chat="feed", sender="ana"),
        message(60, "good evening all", at=7 * DAY, kind="group", chat="small"),
        message(61, "ana in a small group", at=7 * DAY + 1, kind="group", chat="small", sender="ana"),
    ]
    build_messages(tmp_path, rows)
    forget(config_of(tmp_path), "ana")
    before = sorted(bubbles_of(tmp_path))
    assert before == sorted([*LEFT, "my first post", "good evening all"])
    build_messages(tmp_path, rows)
    assert sorted(bubbles_of(tmp_path)) == before


def test_an_answer_far_from_its_question_goes_in_the_next_build(tmp_path: Path) -> None:
    group: dict[str, Any] = {"kind": "group", "chat": "group"}
    rows = [
        message(1, "who has the key", sender="ana", **group),
        message(2, "who has the car", sender="tom", **group),
        message(3, "i have it", reply_to="1", **group),
        message(4, "thanks", sender="tom", **group),
        message(5, "welcome", **group),
    ]
    build_messages(tmp_path, rows)
    forget(config_of(tmp_path), "ana")
    build_messages(tmp_path, rows)
    assert bubbles_of(tmp_path) == ["thanks", "welcome"]


def test_all_accounts_of_a_person(tmp_path: Path) -> None:
    people = [{"name": "Ana Maria", "accounts": ["ana", "other:a1"]}]
    rows = [
        *archive(),
        message(70, "on the other one", platform="other", sender="a1", chat="c", at=8 * DAY),
        message(71, "seen", platform="other", chat="c", at=8 * DAY + 1),
    ]
    for name in ("Ana Maria", "a1", person_pseudonym("Ana Maria")):
        build_messages(tmp_path, rows, people=people)
        assert person_pseudonym("Ana Maria") in {
            turn.speaker for session in sessions_of(tmp_path) for turn in session.turns
        }
        gone = forget(config_of(tmp_path, people=people), name)
        assert gone.accounts == ["other:a1", "test:ana"]
        assert sorted(bubbles_of(tmp_path)) == sorted(LEFT)
        assert_consistent(tmp_path)
        build_messages(tmp_path, rows, people=people)
        assert sorted(bubbles_of(tmp_path)) == sorted(LEFT)
        Path(gone.path).unlink()


def test_two_who_are_called_so_are_asked_about(tmp_path: Path) -> None:
    rows = [
        *archive(),
        message(80, "me too", sender="ana2", sender_name="Ana B", chat="d"),
        message(81, "ok", chat="d"),
    ]
    build_messages(tmp_path, rows)
    before = (folder_of(tmp_path) / "sessions.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"ana b: matches 2 contacts\. .*: test:ana \(Ana B\), test:ana2 \(Ana B\)$"):
        forget(config_of(tmp_path), "ana b")
    assert (folder_of(tmp_path) / "sessions.jsonl").read_bytes() == before
    assert forget(config_of(tmp_path), "ana2").accounts == ["test:ana2"]


@pytest.mark.parametrize("name", ["nobody", "", "me", "other:ana", "te:st:ana"])
def test_nobody_is_called_so(tmp_path: Path, name: str) -> None:
    build_messages(tmp_path, archive())
    with pytest.raises(UserError, match=r"no such contact\. .*contacts\.json"):
        forget(config_of(tmp_path), name)
    assert not Blocklist(folder_of(tmp_path)).path.exists()


def test_with_a_damaged_report(tmp_path: Path) -> None:
    build_messages(tmp_path, archive())
    (folder_of(tmp_path) / "report.json").write_text("{")
    with pytest.raises(UserError, match=r"report\.json: cannot be read"):
        forget(config_of(tmp_path), "ana")


def test_when_nothing_would_be_left_nothing_changes(tmp_path: Path) -> None:
    build_messages(tmp_path, archive()[:2])
    before = {path.name: path.read_bytes() for path in folder_of(tmp_path).iterdir()}
    with pytest.raises(UserError, match="without ana, no messages of yours would be left"):
        forget(config_of(tmp_path), "ana")
    assert {path.name: path.read_bytes() for path in folder_of(tmp_path).iterdir()} == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["sample"]


def test_one_after_the_other_and_both_stay_forgotten(tmp_path: Path) -> None:
    build_messages(tmp_path, archive())
    forget(config_of(tmp_path), "ana")
    gone = forget(config_of(tmp_path), "Tom")
    assert bubbles_of(tmp_path) == ["of my own accord"]
    assert_consistent(tmp_path)
    assert gone.messages == 6
    assert not (folder_of(tmp_path) / CONTACTS_FILE).exists()
    report = build_messages(tmp_path, archive())
    assert bubbles_of(tmp_path) == ["of my own accord"]
    assert report.dropped == {"forgotten": 10}


def test_no_name_is_written_down(tmp_path: Path) -> None:
    build_messages(tmp_path, archive())
    gone = forget(config_of(tmp_path), "ana")
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8").casefold()
            assert "ana b" not in text
            assert "with ana" not in text
    other_root = tmp_path / "other"
    other_root.mkdir()
    build_messages(other_root, archive())
    again = forget(config_of(other_root), "ana")
    hashes = [set(json.loads(Path(result.path).read_bytes())["accounts"]) for result in (gone, again)]
    assert [len(digests) for digests in hashes] == [2, 2]
    assert not hashes[0] & hashes[1]


def test_exports_that_overlap_are_accounted_for(tmp_path: Path) -> None:
    rows = archive()
    build_messages(tmp_path, rows, rows[1:], [message(90, "elsewhere", chat="with ana", platform="x"), *rows[:3]])
    forget(config_of(tmp_path), "ana")
    assert_consistent(tmp_path)
    assert sorted(bubbles_of(tmp_path)) == sorted([*LEFT, "elsewhere"])


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["me", "ana", "tom", "ben"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 300),
        st.sampled_from(["", "", "", "forward", "media"]),
        st.integers(0, 1),
    ),
    min_size=4,
    max_size=40,
)


@settings(deadline=None, max_examples=40)
@given(ROWS, st.randoms(use_true_random=False))
def test_whoever_is_forgotten_the_accounts_are_right(rows: list[Any], dice: random.Random) -> None:
    kinds = {"a": "dm", "b": "group", "c": "reply"}
    archives: list[list[Message]] = [[message(1000, "always here", chat="p", kind="post")], []]
    for number, (sender, chat, at, mark, source) in enumerate(rows):
        text = "" if mark == "media" else f"text {number}"
        fields: dict[str, Any] = {"chat": chat, "kind": kinds[chat], "at": at * 7, "mark": mark, "sender": sender}
        archives[source].append(message(number, text, **fields))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        build_messages(root, *archives)
        contacts = read_contacts(folder_of(root))
        if not contacts:
            return
        theirs = dice.choice(contacts)
        kept = len(bubbles_of(root))
        gone = forget(config_of(root), theirs.account)
        report = assert_consistent(root)
        assert kept == report.kept + gone.messages
        for _ in range(2):
            built = sessions_of(root)
            assert theirs.pseudonym not in {turn.speaker for session in built for turn in session.turns}
            assert theirs.pseudonym not in {session.header.contact for session in built}
            assert theirs.account not in {contact.account for contact in read_contacts(folder_of(root))}
            build_messages(root, *archives)
            assert_consistent(root)


# The list of whom to forget ------------------------------------------------------------------------------------------


def test_the_list_is_read_again(tmp_path: Path) -> None:
    first = Blocklist(tmp_path / "sample")
    assert not first.contains("test", "ana")
    first.add("test", "ana", ["c1", "c2"])
    first.save()
    second = Blocklist(tmp_path / "sample")
    asked = [("test", "ana"), ("test", "c1"), ("tes", "tana"), ("other", "ana")]
    assert [second.contains(*key) for key in asked] == [True, False, False, False]
    assert [second.contains("test", chat, "chat") for chat in ("c1", "c2", "c3", "ana")] == [True, True, False, False]
    second.add("test", "\ud800", [])
    assert second.contains("test", "\ud800")
    second.save()
    assert Blocklist(tmp_path / "sample").contains("test", "ana")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"salt": "x"}', b"\x00"])
def test_a_damaged_list_stops_the_build(tmp_path: Path, content: bytes) -> None:
    build_messages(tmp_path, archive())
    (tmp_path / "data" / "sample.forgotten.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"sample\.forgotten\.json: the list of forgotten people cannot be read: .*doppel forget"
    ):
        build_messages(tmp_path, archive())
    with pytest.raises(UserError, match="the list of forgotten people cannot be read"):
        forget(config_of(tmp_path), "ana")


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_messages(tmp_path, archive())
    before = {path.name: path.read_bytes() for path in folder_of(tmp_path).iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("doppel.system.atomic_file.os.fsync", full)
    with pytest.raises(DoppelError, match="cannot be written"):
        forget(config_of(tmp_path), "ana")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder_of(tmp_path).iterdir()} == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["sample"]


# The command ---------------------------------------------------------------------------------------------------------


def run(root: Path, *arguments: str, **config: Any) -> Result:
    """A command in a folder with config.yaml, on the real command line."""
    content = {"archive": "archive", "model": {"device": "cpu"}, **config}
    (root / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("build")(as_command(build_command))
    app.command("forget")(as_command(forget_command))
    app.command("mydata")(as_command(mydata_command))
    command, *rest = arguments
    return CliRunner().invoke(app, [command, "--config", str(root / "config.yaml"), *rest], catch_exceptions=False)


@pytest.fixture
def telegram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Telegram export, without any base model."""
    monkeypatch.setenv("DOPPEL_CACHE", str(tmp_path / "cache"))
    tom = [telegram_message(n, 1001 if n % 2 else 2002, f"tom {n}") for n in range(1, 9)]
    ida = [telegram_message(n, 1001 if n % 2 else 3003, f"ida {n}") for n in range(1, 7)]
    chats = telegram_chat(tom), telegram_chat(ida, id=3003, name="Ida")
    write_json(tmp_path / "archive" / "result.json", telegram_account(*chats))
    return tmp_path


def test_the_command_forgets_and_draws_the_page_anew(telegram: Path) -> None:
    assert run(telegram, "build").exit_code == 0
    page = folder_of(telegram) / "report.html"
    assert "ida 3" in page.read_text(encoding="utf-8")
    result = run(telegram, "forget", "User 3003")
    assert result.exit_code == 0
    assert result.stdout == ""
    said = " ".join(result.stderr.split())
    assert "User 3003: removed 6 messages from 1 sessions" in said
    assert "sample.forgotten.json" in said
    assert "Existing adapters" not in said
    text = page.read_text(encoding="utf-8")
    assert "tom 3" in text
    assert re.search(r"\bida\b", text) is None
    assert re.search(r"<td>forgotten contact</td><td>6</td>", text)
    assert pseudonym("telegram", "3003") not in text
    again = run(telegram, "build")
    assert again.exit_code == 0
    assert "forgotten contact 6" in again.stderr
    assert "ida" not in (folder_of(telegram) / "sessions.jsonl").read_text(encoding="utf-8")


def test_the_command_in_json_and_in_chinese(telegram: Path) -> None:
    (telegram / "adapters" / "sample").mkdir(parents=True)
    (telegram / "data" / "sample.tuning").mkdir(parents=True)
    assert run(telegram, "build").exit_code == 0
    result = run(telegram, "forget", "3003", "--json", language="zh")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "accounts": ["telegram:3003"],
        "erased": {
            "messages": {"records": 0},
            "quiz-results": {"records": 0},
            "dataset": {
                "records": 6,
                "accounts": ["telegram:3003"],
                "messages": 6,
                "sessions": 1,
                "path": str(telegram / "data" / "sample.forgotten.json"),
            },
        },
    }
    assert "sample.forgotten.json" in result.stderr
    assert "removed 6 messages" not in result.stderr
    assert str(telegram / "adapters" / "sample") in result.stderr
    assert str(telegram / "data" / "sample.tuning") in result.stderr
    assert str(telegram / "data" / "sample.training") not in result.stderr
    assert '<html lang="zh">' in (folder_of(telegram) / "report.html").read_text(encoding="utf-8")


def test_mistakes_of_the_command_are_one_line(telegram: Path) -> None:
    result = run(telegram, "forget", "ida")
    assert result.exit_code == 2
    assert "ida: no such contact" in result.stderr
    assert run(telegram, "build").exit_code == 0
    result = run(telegram, "forget", "Nobody At All")
    assert result.exit_code == 2
    assert len([line for line in result.stderr.splitlines() if line.startswith("doppel: ")]) == 1
    assert "Nobody At All: no such contact" in result.stderr


def test_the_report_names_neither_them_nor_their_chat(telegram: Path) -> None:
    assert run(telegram, "build").exit_code == 0
    assert run(telegram, "forget", "3003").exit_code == 0
    report = report_of(telegram)
    assert report.dropped == {"forgotten": 6}
    assert {(chat.chat, chat.name) for chat in report.sources["telegram"].chats} == {
        ("user2002", "Tom"),
        (pseudonym("telegram", "user3003"), ""),
    }
    assert set(report.gaps) == {"telegram:user2002"}


def test_mydata_is_what_forget_would_remove(telegram: Path) -> None:
    assert run(telegram, "build").exit_code == 0
    output = telegram / "ida.json"
    result = run(telegram, "mydata", "User 3003", "--output", str(output))
    assert (result.exit_code, result.stdout) == (0, "")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    content = json.loads(output.read_bytes())
    assert content["accounts"] == ["telegram:3003"]
    assert (content["messages"], content["quiz-results"]) == ([], [])
    contact, *turns = content["dataset"]
    assert (contact["type"], contact["account"]) == ("contact", "3003")
    held = [bubble for turn in turns for bubble in turn["bubbles"]]
    assert sorted(held) == [f"ida {number}" for number in range(1, 7)]
    printed = run(telegram, "mydata", "telegram:3003")
    assert json.loads(printed.stdout)["dataset"] == content["dataset"]
    assert json.loads(run(telegram, "mydata", "3003", "--json").stdout)["dataset"] == content["dataset"]
    assert run(telegram, "forget", "3003").exit_code == 0
    assert run(telegram, "mydata", "3003").exit_code == 2


def test_in_a_group_only_what_they_wrote_is_exported(tmp_path: Path) -> None:
    build_messages(tmp_path, archive())
    data = DataSet(config_of(tmp_path))
    records = data.export(find_person(config_of(tmp_path), [data], "ana"))
    held = [bubble for record in records for bubble in record.get("bubbles", ())]
    assert held == ["from ana", "to ana", "group by ana"]


def test_the_log_of_replaced_secrets_goes_too(tmp_path: Path) -> None:
    """Its lines name files of the archive, which may be named after people."""
    build_messages(tmp_path, archive())
    (folder_of(tmp_path) / SCRUBBED_FILE).write_text('{"origin":"Chat with Ana.txt:3"}')
    forget(config_of(tmp_path), "ana")
    assert not (folder_of(tmp_path) / SCRUBBED_FILE).exists()


def test_somebody_without_messages_in_the_data_set_is_left_out_of_later_builds(tmp_path: Path) -> None:
    accounts = {Account("test", "ana")}
    assert forget_accounts(folder_of(tmp_path), "ana", accounts).messages == 0
    build_messages(tmp_path, archive())
    assert sorted(bubbles_of(tmp_path)) == sorted(LEFT)


def test_the_bot_and_the_data_set_name_the_same_person(telegram: Path) -> None:
    """By the name in contacts.json, although the bot's database has ids only; and what is written is listed."""
    assert run(telegram, "build").exit_code == 0
    store = Store(f"sqlite:///{telegram / 'data' / 'doppel.db'}", "sample")
    now = datetime(2026, 3, 1, tzinfo=UTC)
    live = NewMessage(
        platform="telegram", event_id="1", chat="3003", kind="dm", sender="3003", text="live zebra", message_id="1",
        mentions_bot=True, sent_at=now,
    )  # fmt: skip
    with closing(store):
        asyncio.run(store.run(inbox.receive, "sample", live, now))
    result = run(telegram, "forget", "User 3003", "--json")
    assert json.loads(result.stdout)["erased"]["messages"] == {"records": 1, "messages": 1, "bubbles": 0, "chats": 1}
    assert "removed 1 messages and 0 of the persona's from 1 chats" in " ".join(result.stderr.split())
    written = [path for path in (telegram / "data").rglob("*") if path.is_file()]
    assert not any(b"zebra" in path.read_bytes() or b"ida 3" in path.read_bytes() for path in written)
    patterns = [pattern for kind in STORED_FILES for pattern in kind.patterns]
    names = [path.relative_to(telegram).as_posix() for path in written]
    assert [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)] == []

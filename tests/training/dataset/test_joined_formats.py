"""Pairs of exports of one chat, in every format: each message once, each person once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training import conversations as talks
from tests.training.conversations import FIRST, SECOND, TALK
from tests.training.dataset.test_build import assert_accounted, build, sessions_of
from training.dataset.report.build_report import Report
from training.people.contacts import Contact, read_contacts

Write = Callable[[Path], Any]

ANN = {"name": "sample", "me": ["Ann Reed", "Ann", "ann"]}


def built(root: Path, *exports: Write, **config: Any) -> Report:
    """The build of several exports, each in a folder of its own."""
    folders = []
    for number, write in enumerate(exports):
        write(root / f"export {number}")
        folders.append(f"export {number}")
    report = build(root, folders, **{"persona": ANN, **config})
    assert_accounted(report)
    return report


def said(root: Path) -> list[tuple[bool, str]]:
    """Everything in the data set, in order of time: whether the owner said it, and what."""
    ordered = sorted(sessions_of(root), key=lambda session: session.started_at)
    return [(turn.is_mine, bubble) for session in ordered for turn in session.turns for bubble in turn.bubbles]


def contacts(root: Path) -> list[Contact]:
    """Everybody in the data set."""
    return read_contacts(root / "data" / "sample")


WHOLE = [(line.writer == "ann", line.text) for line in TALK]

PAIRS: dict[str, tuple[Write, Write]] = {
    "whatsapp: android and iphone": (
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, phone="iphone"),
    ),
    "whatsapp: contact renamed": (
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Tommy"),
    ),
    "whatsapp: contact renamed, second phone": (
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Tommy", phone="iphone"),
    ),
    "whatsapp: a number instead of a name": (
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "+49 170 0000000"),
    ),
    "whatsapp: another time zone": (
        lambda to: talks.whatsapp(to, TALK[:7], phone="iphone"),
        lambda to: talks.whatsapp(to, TALK[1:], phone="iphone", zone="Asia/Kolkata"),
    ),
    "whatsapp: the owner is called differently": (
        lambda to: talks.whatsapp(to, FIRST),
        lambda to: talks.whatsapp(to, SECOND, "Tommy", ann="Ann R."),
    ),
    "line: phone and desktop": (
        lambda to: talks.line_phone(to, FIRST),
        lambda to: talks.line_desktop(to, SECOND),
    ),
    "line: contact renamed": (
        lambda to: talks.line_phone(to, FIRST),
        lambda to: talks.line_phone(to, SECOND, "Tommy"),
    ),
    "kakaotalk: phone and pc": (
        lambda to: talks.kakaotalk_phone(to, FIRST),
        lambda to: talks.kakaotalk_pc(to, SECOND, "Tommy"),
    ),
    "signal: signal-export and the app's own": (
        lambda to: talks.signal_export(to, FIRST),
        lambda to: talks.signal_desktop(to, SECOND),
    ),
    "signal: contact renamed": (
        lambda to: talks.signal_export(to, FIRST),
        lambda to: talks.signal_export(to, SECOND, "Tommy"),
    ),
    "telegram: twice": (lambda to: talks.telegram(to, FIRST), lambda to: talks.telegram(to, SECOND)),
    "telegram: chat renamed": (
        lambda to: talks.telegram(to, FIRST),
        lambda to: talks.telegram(to, SECOND, name="Tommy"),
    ),
    "telegram: group that became a supergroup": (
        lambda to: talks.telegram(to, FIRST, type="private_group", id=77),
        lambda to: talks.telegram(to, SECOND, type="private_supergroup", id=88, first=-999_999_999),
    ),
    "discord: package and exporter": (
        lambda to: talks.discord_package(to, TALK),
        lambda to: talks.discord_json(to, TALK),
    ),
    "discord: json and csv": (lambda to: talks.discord_json(to, FIRST), lambda to: talks.discord_csv(to, SECOND)),
    "discord: json and csv of another name": (
        lambda to: talks.discord_json(to, FIRST),
        lambda to: talks.discord_csv(to, SECOND, "Direct Messages - tom"),
    ),
    "discord: json twice": (
        lambda to: talks.discord_json(to, FIRST),
        lambda to: talks.discord_json(to, SECOND, "Tommy"),
    ),
    "messenger: title changed": (
        lambda to: talks.meta(to / "facebook", FIRST, path="tomberg_10002000"),
        lambda to: talks.meta(to / "facebook", SECOND, path="tommy_10002000", title="Tommy", files=2),
    ),
    "instagram: twice, in several files": (
        lambda to: talks.meta(to / "instagram", FIRST, path="tomberg_17002000", files=3),
        lambda to: talks.meta(to / "instagram", SECOND, path="tomberg_17002000"),
    ),
    "slack: channel renamed": (
        lambda to: talks.slack(to, FIRST),
        lambda to: talks.slack(to, SECOND, "plants"),
    ),
    "wechat: PyWxDump and chatlog": (lambda to: talks.pywxdump(to, FIRST), lambda to: talks.chatlog(to, SECOND)),
    "wechat: PyWxDump by the remark and chatlog": (
        lambda to: talks.pywxdump(to, FIRST, "Tom"),
        lambda to: talks.chatlog(to, SECOND),
    ),
    "hangouts and google chat": (lambda to: talks.hangouts(to, FIRST), lambda to: talks.google_chat(to, SECOND)),
    "imessage: number and name": (
        lambda to: talks.imessage(to, FIRST),
        lambda to: talks.imessage(to, SECOND, "Tom", "Tom"),
    ),
    "matrix: room renamed": (
        lambda to: talks.matrix(to, FIRST, with_room_id=False),
        lambda to: talks.matrix(to, SECOND, "Plants", with_room_id=False),
    ),
    "matrix: twice": (lambda to: talks.matrix(to, FIRST), lambda to: talks.matrix(to, SECOND, "Plants")),
    "qq: text and exporter": (lambda to: talks.qq_text(to, FIRST), lambda to: talks.qq_json(to, SECOND)),
    "qq: contact renamed": (lambda to: talks.qq_text(to, FIRST), lambda to: talks.qq_text(to, SECOND, "Tommy")),
    "table: file and person renamed": (
        lambda to: talks.table(to, FIRST),
        lambda to: talks.table(to, SECOND, "tommy", "Tommy"),
    ),
    "irc: two clients": (
        lambda to: talks.irc(to, FIRST, "irc.libera.#garden.weechatlog"),
        lambda to: talks.irc(to, SECOND, "#garden.log", seconds=False),
    ),
}


@pytest.mark.parametrize("swapped", [False, True], ids=["", "swapped"])
@pytest.mark.parametrize("name", PAIRS)
def test_two_exports_of_a_chat_have_every_message_once(tmp_path: Path, name: str, swapped: bool) -> None:
    exports = PAIRS[name][::-1] if swapped else PAIRS[name]
    report = built(tmp_path, *exports)
    assert said(tmp_path) == WHOLE
    assert (report.kept, report.dropped) == (len(TALK), {"duplicate": report.read - len(TALK)})
    assert [chat.copies for chat in report.joined] == [report.read - len(TALK)]
    assert len({chat.chat for source in report.sources.values() for chat in source.chats}) == 1
    assert len({contact.pseudonym for contact in contacts(tmp_path)}) == 1
    speakers = {turn.speaker for session in sessions_of(tmp_path) for turn in session.turns}
    assert speakers == {"me", contacts(tmp_path)[0].pseudonym}

"""A group in which only two people happened to write is a group, in every format that does not say so itself."""

from pathlib import Path

import pytest

from tests.training.conversations import TALK, hangouts, imessage, kakaotalk_phone, line_phone, whatsapp
from tests.training.exports import read_all
from training.archives.formats.group_notices import is_group_notice, is_named_after

NOTICES = (
    "Tom created group “Trip to Rome”",
    "Tom added Lia",
    "Lia left",
    "Tom hat die Gruppe „Rom“ erstellt",
    "Tom hat Lia hinzugefügt",
    "Tom creó el grupo “Roma”",
    "Tom añadió a Lia",
    "Tom a créé le groupe “Rome”",
    "Tom criou o grupo “Roma”",
    "Tom ha creato il gruppo “Roma”",
    "Tom heeft groep 'Rome' gemaakt",
    "Tom создал(-а) группу «Рим»",
    "Tom grubu oluşturdu",
    "Tom创建了群组“罗马”",
    "你已退出",
    "Tomがグループ「ローマ」を作成しました",
    "Tom님이 그룹을 만들었습니다",
    "אתה הוספת את ליה",
    "أضاف توم ليا",
)
PRIVATE = (
    "Messages and calls are end-to-end encrypted. No one outside of this chat, not even WhatsApp, can read them.",
    "Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt.",
    "Your security code with Tom changed. Tap to learn more.",
    "Tom changed their phone number to a new number. Tap to message or add the new number.",
    "You blocked this contact. Tap to unblock.",
    "Missed voice call",
    "Panggilan keluar",
    "Tom is a contact",
    "Tom :): shall we start a group",
    "消息和通话已进行端到端加密。",
)


@pytest.mark.parametrize("text", NOTICES)
def test_notices_of_groups(text: str) -> None:
    assert is_group_notice(text)


@pytest.mark.parametrize("text", PRIVATE)
def test_notices_of_private_chats(text: str) -> None:
    assert not is_group_notice(text)


def test_files_are_named_after_people_as_far_as_file_names_can() -> None:
    assert is_named_after("Tom_)", ["Ann", "Tom :)"])
    assert is_named_after("Tom", ["Ann", "Tom Berg"])
    assert is_named_after("+49 170 0000000", ["Ann", "Tom"])  # may be anybody's
    assert not is_named_after("Trip to Rome", ["Ann", "Tom"])


@pytest.mark.parametrize("write", [whatsapp, line_phone, kakaotalk_phone], ids=lambda write: write.__name__)
def test_a_chat_of_two_that_is_named_after_neither_is_a_group(tmp_path: Path, write: object) -> None:
    folder = write(tmp_path / "x", TALK, "Tom")  # type: ignore[operator]
    assert {message.kind for message in read_all(folder)[0]} == {"dm"}
    for path in folder.rglob("*.txt"):
        text = path.read_text(encoding="utf-8")
        head, body = text[:60], text[60:]
        path.write_text(head.replace("Tom", "Trip to Rome") + body, encoding="utf-8")
        path.rename(path.with_name(path.name.replace("Tom", "Trip to Rome")))
    messages, _ = read_all(folder)
    assert {message.kind for message in messages} == {"group"}
    assert {message.chat for message in messages} == {"Trip to Rome"}


def test_notices_make_groups_of_imessage(tmp_path: Path) -> None:
    folder = imessage(tmp_path / "x", TALK)
    path = next(folder.glob("*.txt"))
    notice = "Mar 05, 2023  2:30:00 PM You added Lia to the conversation.\n\n"
    path.write_text(path.read_text() + notice)
    assert {message.kind for message in read_all(folder)[0]} == {"group"}


def test_hangouts_says_it(tmp_path: Path) -> None:
    path = hangouts(tmp_path / "x", TALK)
    assert {message.kind for message in read_all(path)[0]} == {"dm"}
    path.write_text(path.read_text().replace("STICKY_ONE_TO_ONE", "GROUP"))
    assert {message.kind for message in read_all(path)[0]} == {"group"}

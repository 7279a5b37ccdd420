"""What a friend exported: the owner is who `persona.me` says, alone and beside the owner's own exports."""

import json
from pathlib import Path
from typing import Any

import pytest

from doppel.errors import UserError
from tests.training.dataset.test_build import build, sessions_of
from tests.training.exports import telegram_account, telegram_chat, telegram_message, write_json
from training.dataset.report.build_report import Report

MINE, THEIRS = "did you water the plants", "yes this morning"

Said = list[list[tuple[bool, str]]]


def said(root: Path) -> Said:
    """(is it the owner's, text) of every bubble, by session."""
    return [
        [(turn.speaker == "me", bubble) for turn in session.turns for bubble in turn.bubbles]
        for session in sessions_of(root)
    ]


def write(root: Path, **files: str) -> None:
    """Files of the archive; `__` in a name stands for a folder."""
    for name, text in files.items():
        path = root / "archive" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def built(root: Path, *me: str, **config: Any) -> Report:
    return build(root, "archive", persona={"name": "sample", "me": list(me)}, **config)


def signal(*rows: tuple[str, str]) -> str:
    return "".join(
        json.dumps({"date": f"2023-03-05 14:0{minute}:00", "sender": sender, "body": body, "quote": "", "sticker": "",
                    "reactions": [], "attachments": []}) + "\n"
        for minute, (sender, body) in enumerate(rows)
    )  # fmt: skip


FRIENDS_FILES: dict[str, dict[str, str]] = {
    "whatsapp": {
        "WhatsApp Chat with Ann Reed.txt": f"05.03.23, 14:05 - Ann Reed: {MINE}\n05.03.23, 14:06 - Tom Berg: {THEIRS}\n"
    },
    "line": {
        "chat.txt": "[LINE] Chat history with Ann Reed\nSaved on: 2023/03/06, 10:00\n\n"
        f"2023/03/05(Sun)\n14:05\tAnn Reed\t{MINE}\n14:06\tTom Berg\t{THEIRS}\n"
    },
    "kakaotalk": {
        "chat.txt": "Ann Reed 님과 카카오톡 대화\n저장한 날짜 : 2023-03-06 10:00:00\n\n"
        "--------------- 2023년 3월 5일 일요일 ---------------\n"
        f"[Ann Reed] [오후 2:05] {MINE}\n[회원님] [오후 2:06] {THEIRS}\n"
    },
    "signal": {"Ann Reed__data.json": signal(("Ann Reed", MINE), ("Me", THEIRS))},
    "signal, old": {
        "Ann Reed__chat.md": f"[2023-03-05 14:05] Ann Reed: {MINE}  \n\n[2023-03-05 14:06] Me: {THEIRS}  \n"
    },
    "imessage": {
        "Ann Reed.txt": f"Mar 05, 2023  2:05:00 PM\nAnn Reed\n{MINE}\n\nMar 05, 2023  2:06:00 PM\nMe\n{THEIRS}\n\n"
    },
    "qq": {
        "chat.txt": "消息记录（此消息记录为文本格式，不支持重新导入）\n\n"
        + "=" * 64 + "\n消息分组:我的好友\n" + "=" * 64 + "\n消息对象:Ann Reed\n" + "=" * 64 + "\n\n"
        + f"2023-03-05 14:05:00 Ann Reed\n{MINE}\n\n2023-03-05 14:06:00 Tom Berg\n{THEIRS}\n\n"
    },
    "wechat": {"Ann Reed.csv": f"消息ID,类型,发送人,时间,内容\n1,文本,Ann Reed,2023-03-05 14:05:00,{MINE}\n"
                               f"2,文本,Tom Berg,2023-03-05 14:06:00,{THEIRS}\n"},
}  # fmt: skip


@pytest.mark.parametrize("name", FRIENDS_FILES)
def test_the_one_named_is_the_owner_of_a_friends_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, **FRIENDS_FILES[name])
    built(tmp_path, "Ann Reed")
    assert said(tmp_path) == [[(True, MINE), (False, THEIRS)]]
    (session,) = sessions_of(tmp_path)
    assert session.kind == "dm"


def test_a_friends_telegram_chat(tmp_path: Path) -> None:
    rows = [telegram_message(1, 1001, MINE), telegram_message(2, 2002, THEIRS)]
    write_json(tmp_path / "archive" / "result.json", telegram_chat(rows, id=1001, name="Mara Lind"))
    for me in ("mara lind", "~ Mara\u00a0Lind", "1001", "telegram:1001"):
        built(tmp_path, me)
        assert said(tmp_path) == [[(True, MINE), (False, THEIRS)]]


def test_a_friends_chat_beside_the_owners_account_needs_no_name(tmp_path: Path) -> None:
    mine = telegram_chat([telegram_message(1, 1001, "my own copy"), telegram_message(2, 2002, "of another day")])
    theirs = [telegram_message(71, 1001, MINE, at=10**7), telegram_message(72, 2002, THEIRS, at=10**7 + 9)]
    write_json(tmp_path / "archive" / "mine" / "result.json", telegram_account(mine))
    write_json(tmp_path / "archive" / "toms" / "result.json", telegram_chat(theirs, id=1001, name="Mara L."))
    report = built(tmp_path)
    assert said(tmp_path) == [[(True, "my own copy"), (False, "of another day")], [(True, MINE), (False, THEIRS)]]
    assert report.owner.read == 2


def test_a_friends_whole_account_yields_to_persona_me_and_only_to_it(tmp_path: Path) -> None:
    chat = telegram_chat([telegram_message(1, 1001, THEIRS), telegram_message(2, 2002, MINE)])
    write_json(tmp_path / "archive" / "result.json", telegram_account(chat))
    report = built(tmp_path, "Tom Berg")
    assert said(tmp_path) == [[(False, THEIRS), (True, MINE)]]
    assert report.owner.accounts == ["telegram: Tom Berg"]
    (note,) = report.owner.notes
    assert "exported by Mara Lind, who is not you" in note
    built(tmp_path, "somebody else")
    assert said(tmp_path)[0][0] == (True, THEIRS)


def test_one_that_says_me_in_two_peoples_exports_is_two_people(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "a__Tom Berg__data.json": signal(("Me", "at noon?"), ("Tom Berg", "yes")),
            "b__Ann Reed__data.json": signal(("Ann Reed", MINE), ("Me", THEIRS)),
        },
    )
    built(tmp_path, "Ann Reed")
    assert said(tmp_path) == [[(True, "at noon?"), (False, "yes")], [(True, MINE), (False, THEIRS)]]
    speakers = {turn.speaker for session in sessions_of(tmp_path) for turn in session.turns}
    assert len(speakers) == 3


def test_chats_of_one_id_in_two_peoples_exports_stay_apart(tmp_path: Path) -> None:
    """In Telegram's export a private chat has the id of the other person, so that Kim is 3003 in both."""
    kim = telegram_chat([telegram_message(1, 3003, "hi mara"), telegram_message(2, 1001, "hi kim")], id=3003)
    write_json(tmp_path / "archive" / "mine" / "result.json", telegram_account(kim))
    toms_kim = telegram_chat([telegram_message(3, 3003, "hi tom"), telegram_message(4, 2002, "hi kim")], id=3003)
    toms_mara = telegram_chat([telegram_message(5, 1001, MINE), telegram_message(6, 2002, THEIRS)], id=1001)
    account = telegram_account(toms_kim, toms_mara)
    account["personal_information"] = {"user_id": 2002, "first_name": "Tom", "last_name": "Berg"}
    write_json(tmp_path / "archive" / "toms" / "result.json", account)
    built(tmp_path, "Mara Lind")
    assert said(tmp_path) == [[(False, "hi mara"), (True, "hi kim")], [(True, MINE), (False, THEIRS)]]


def test_a_file_is_told_apart_from_a_friends_by_the_number_of_files(tmp_path: Path) -> None:
    for name in ("Tom", "Kim"):
        write(tmp_path, **{f"WhatsApp Chat with {name}.txt": f"05.03.23, 14:05 - Ann: to {name}\n"
                           f"05.03.23, 14:06 - {name}: by {name}\n"})  # fmt: skip
    write(tmp_path, **{"b__WhatsApp Chat with Ann.txt": "06.03.23, 14:05 - Ann: mine\n06.03.23, 14:06 - Tom: his\n"})
    built(tmp_path)
    assert sorted(text for session in said(tmp_path) for is_mine, text in session if is_mine) == [
        "mine",
        "to Kim",
        "to Tom",
    ]


def test_two_files_that_contradict_each_other_are_asked_about(tmp_path: Path) -> None:
    text = "05.03.23, 14:05 - Ann: a\n05.03.23, 14:06 - Tom: b\n"
    write(tmp_path, **{"WhatsApp Chat with Ann.txt": text, "WhatsApp Chat with Tom.txt": text})
    with pytest.raises(UserError, match="does not say which messages are yours"):
        built(tmp_path)


def test_nobody_is_guessed_where_persona_me_names_nobody(tmp_path: Path) -> None:
    write(tmp_path, **FRIENDS_FILES["whatsapp"])
    with pytest.raises(UserError, match=r"has no messages from Annie Reed\. .*Tom Berg"):
        built(tmp_path, "Annie Reed")


@pytest.mark.parametrize(
    "me", ["Zoë Rivière", "ZOE\u0308 RIVIERE", "zoe riviere", "~Zoë Rivière", "\u2068Zoë Rivière\u2069"]
)
def test_names_are_compared_as_people_read_them(tmp_path: Path, me: str) -> None:
    lines = "05.03.23, 14:05 - ~\u202fZoë Rivière: a\n05.03.23, 14:06 - Tom: b\n05.03.23, 14:06 - Kim: c\n"
    write(tmp_path, **{"WhatsApp Chat with Team.txt": lines})
    assert built(tmp_path, me).owner.accounts == ["whatsapp: Zoë Rivière"]


def test_the_notices_of_a_group_are_no_candidate(tmp_path: Path) -> None:
    notices = "".join(f"05.03.23, 14:0{n} - Kim joined using this group's invite link\n" for n in range(9))
    lines = f"{notices}05.03.23, 14:10 - Ann: a\n05.03.23, 14:11 - Tom: b\n05.03.23, 14:12 - Ann: c\n"
    write(tmp_path, **{"WhatsApp Chat with Hiking.txt": lines + "05.03.23, 14:12 - Kim: d\n"})
    with pytest.raises(UserError) as raised:
        built(tmp_path)
    assert str(raised.value).endswith(
        '`persona: {me: ["Ann"]}`: Ann (Ann, 2 messages), Kim (Kim, 1 messages), Tom (Tom, 1 messages)'
    )


def test_somebody_with_the_owners_name_is_told_and_stays_somebody_else(tmp_path: Path) -> None:
    chat = telegram_chat(
        [telegram_message(1, 1001, MINE), telegram_message(2, 2002, THEIRS, **{"from": "Mara Lind"})], name="Mara Lind"
    )
    write_json(tmp_path / "archive" / "result.json", telegram_account(chat))
    report = built(tmp_path, "Mara Lind")
    assert said(tmp_path) == [[(True, MINE), (False, THEIRS)]]
    (note,) = report.owner.notes
    assert note.endswith(
        "somebody else is called Mara Lind, too: telegram:2002. If that is you, add the id to `persona.me`"
    )


def test_two_accounts_of_one_name_are_told(tmp_path: Path) -> None:
    chats = [
        telegram_chat([telegram_message(1, sender, "a", **{"from": "Ann"}), telegram_message(2, 5, "b")], id=number,
                      type="private_group", name=f"group {number}")
        for number, sender in ((71, 11), (72, 12))
    ]  # fmt: skip
    for number, chat in enumerate(chats):
        write_json(tmp_path / "archive" / str(number) / "result.json", chat)
    report = built(tmp_path, "ann")
    assert report.owner.read == 2
    (note,) = report.owner.notes
    assert "2 accounts are called Ann and are taken for you: telegram:11, telegram:12" in note
    assert built(tmp_path, "telegram:11", "5").owner.notes == []


def test_of_two_of_one_name_in_one_chat_the_one_in_more_chats_is_the_owner(tmp_path: Path) -> None:
    both = [telegram_message(number, 10 + number, "a", **{"from": "Ann"}) for number in (1, 2)]
    write_json(tmp_path / "archive" / "0" / "result.json", telegram_chat(both, id=71, type="private_group", name="A"))
    alone = [telegram_message(1, 12, "b", **{"from": "Ann"}), telegram_message(2, 5, "c")]
    write_json(tmp_path / "archive" / "1" / "result.json", telegram_chat(alone, id=72, type="private_group", name="B"))
    report = built(tmp_path, "Ann")
    assert report.owner.read == 2
    assert "somebody else is called Ann, too: telegram:11" in report.owner.notes[0]
    (tmp_path / "archive" / "1" / "result.json").unlink()
    with pytest.raises(
        UserError, match=r'several people who write to each other are called Ann.*me: \["telegram:11"\]'
    ):
        built(tmp_path, "Ann")

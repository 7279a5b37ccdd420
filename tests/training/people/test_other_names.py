"""The owner is found by any name of the account: display name, user name, number, e-mail, phone."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.dataset.test_build import build, sessions_of
from tests.training.exports import telegram_chat, telegram_message, write_json

MINE, THEIRS = "did you water the plants", "yes this morning"


def discord() -> dict[str, Any]:
    return {
        "guild": {"id": "0", "name": "Direct Messages"},
        "channel": {"id": "55", "type": "DirectTextChat", "name": "Ann"},
        "messages": [
            {
                "id": f"10{number}",
                "type": "Default",
                "timestamp": f"2023-03-05T14:0{number}:00.000+00:00",
                "content": text,
                "author": {"id": str(number), "name": name, "discriminator": "1234", "nickname": nick, "isBot": False},
            }
            for number, (name, nick, text) in enumerate((("ann.r", "Ann Reed", MINE), ("tom", "Tom", THEIRS)))
        ],
    }


def said(root: Path) -> list[tuple[bool, str]]:
    (session,) = sessions_of(root)
    return [(turn.speaker == "me", bubble) for turn in session.turns for bubble in turn.bubbles]


@pytest.mark.parametrize("me", ["Ann Reed", "ann.r", "@Ann.R", "ann.r#1234", "discord:ann.r", "discord:0"])
def test_discord(tmp_path: Path, me: str) -> None:
    write_json(tmp_path / "archive" / "chat.json", discord())
    build(tmp_path, "archive", persona={"name": "sample", "me": [me]})
    assert said(tmp_path) == [(True, MINE), (False, THEIRS)]


@pytest.mark.parametrize("me", ["user1001", "telegram:user1001"])
def test_telegram(tmp_path: Path, me: str) -> None:
    rows = [telegram_message(1, 1001, MINE), telegram_message(2, 2002, THEIRS)]
    write_json(tmp_path / "archive" / "result.json", telegram_chat(rows, id=1001, name="Mara Lind"))
    build(tmp_path, "archive", persona={"name": "sample", "me": [me]})
    assert said(tmp_path) == [(True, MINE), (False, THEIRS)]


@pytest.mark.parametrize("me", ["+49 170 123 45-67", "imessage:+491701234567"])
def test_phone_numbers(tmp_path: Path, me: str) -> None:
    path = tmp_path / "archive" / "+491701234567.txt"
    path.parent.mkdir()
    texts = (("2:05", "+491701234567", MINE), ("2:06", "Me", THEIRS))
    path.write_text("".join(f"Mar 05, 2023  {clock}:00 PM\n{who}\n{text}\n\n" for clock, who, text in texts))
    build(tmp_path, "archive", persona={"name": "sample", "me": [me]})
    assert said(tmp_path) == [(True, MINE), (False, THEIRS)]

"""Who gets an answer, and what the log says about those who do not."""

import logging
from pathlib import Path

import pytest

from bot.platforms import Incoming
from doppel.i18n import set_language
from tests.bot.conftest import MakeHarness
from tests.bot.harness import FakePlatform, access_list, config_in, incoming


def verdict(folder: Path, message: Incoming, **content: object) -> bool:
    return access_list(config_in(folder, **content)).allows(message)


def test_closed_by_default(tmp_path: Path) -> None:
    assert not verdict(tmp_path, incoming(1), telegram={"allow": []})
    assert not verdict(tmp_path, incoming(1, platform="discord"))


def test_any_key_opens(tmp_path: Path) -> None:
    server = incoming(1, platform="discord", kind="group", chat="c1", allow_ids=("c1", "s9"))
    assert verdict(tmp_path, server, discord={"allow": ["s9"]})
    assert not verdict(tmp_path, server, discord={"allow": ["s8"]})


def test_allowed_person_does_not_open_groups(tmp_path: Path) -> None:
    assert not verdict(tmp_path, incoming(1, kind="group", chat="-5", sender="7"), telegram={"allow": [7]})


def test_a_public_platform_is_open_and_an_unknown_one_is_closed(tmp_path: Path) -> None:
    assert verdict(tmp_path, incoming(1, platform="web"))
    assert not verdict(tmp_path, incoming(1, platform="matrix"))


@pytest.mark.parametrize(
    ("message", "allow", "line"),
    [
        (
            incoming(1),
            [],
            "telegram: message from Ann (7), but nobody is allowed yet; "
            "to reply, add 7 to telegram.allow in config.yaml",
        ),
        (
            incoming(1),
            [9],
            "telegram: message from Ann (7), who is not allowed; to reply, add 7 to telegram.allow in config.yaml",
        ),
        (
            incoming(1, kind="group", chat="-5"),
            [9],
            "telegram: message from Ann (7) in group -5, which is not allowed; "
            "to reply there, add -5 to telegram.allow in config.yaml",
        ),
        (
            incoming(1, platform="matrix"),
            [9],
            "matrix: message from Ann (7), but nobody is allowed yet; to reply, add 7 to matrix.allow in config.yaml",
        ),
    ],
)
def test_log_says_what_to_add(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, message: Incoming, allow: list[int], line: str
) -> None:
    with caplog.at_level(logging.INFO):
        verdict(tmp_path, message, telegram={"allow": allow})
    assert caplog.messages == [line]


def test_log_says_it_once_an_account_and_only_when_meant(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    access = access_list(config_in(tmp_path, telegram={"allow": []}))
    with caplog.at_level(logging.INFO):
        for message in (
            incoming(1, kind="group", chat="-5", mentions_bot=False),
            incoming(2),
            incoming(3),
            incoming(4, sender="8", chat="8"),
        ):
            assert not access.allows(message)
    assert ["(7)" in line for line in caplog.messages] == [True, False]


def test_log_speaks_the_users_language(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    set_language("zh")
    with caplog.at_level(logging.INFO):
        verdict(tmp_path, incoming(1), telegram={"allow": []})
    assert "请把 7 加进 config.yaml 的 telegram.allow" in caplog.text


async def test_nothing_of_strangers_is_stored(make_harness: MakeHarness) -> None:
    harness = await make_harness(FakePlatform(), telegram={"allow": [9]})
    await harness.on_message(incoming(1), incoming(2, kind="group", chat="-5"))
    await harness.clock.advance(60)
    assert await harness.inbox_states() == []
    assert harness.engine.prompts == []


async def test_empty_message_of_a_stranger_still_tells_whom_to_add(
    make_harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness = await make_harness(telegram={"allow": []})
    with caplog.at_level(logging.INFO):
        await harness.on_message(incoming(1, ""))
    assert "add 7 to telegram.allow" in caplog.text

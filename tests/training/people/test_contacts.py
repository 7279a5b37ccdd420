"""Who is who: accounts joined to people, and the list of contacts beside a data set."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.config import PersonSettings, parse_config
from doppel.errors import UserError
from doppel.personal_data import names_of_account, normalized_name, person_pseudonym
from doppel.transcript import pseudonym
from tests.training.dataset.test_build import assert_accounted, build_messages, sessions_of
from tests.training.messages import message
from training.people.contacts import (
    CONTACTS_FILE,
    Contact,
    ContactList,
    LinkedAccounts,
    read_contacts,
    write_contacts,
)


def joined(account: str, *seen: tuple[str, str, str]) -> list[bool]:
    """Which of the (platform, account, name) seen belong to a person with this one account in config.yaml."""
    people = LinkedAccounts([PersonSettings(name="Tom", accounts=(account,))])
    for number, (platform, own, name) in enumerate(seen):
        people.add(message(number, platform=platform, sender=own, sender_name=name))
    return [people.pseudonym(platform, own) == person_pseudonym("Tom") for platform, own, _ in seen]


TOM = ("telegram", "2002", "Tom Berg")
NAMESAKE = ("whatsapp", "2002", "Tom Berg")
MATRIX = ("matrix", "@tom:example.org", "tomb")


@pytest.mark.parametrize("account", ["2002", "tom berg", " @Tom Berg "])
def test_an_id_or_a_name_on_any_platform(account: str) -> None:
    assert joined(account, TOM, NAMESAKE, MATRIX) == [True, True, False]


@pytest.mark.parametrize("account", ["telegram:2002", "Telegram: tom berg", "telegram:@Tom Berg"])
def test_with_the_platform_before_it(account: str) -> None:
    assert joined(account, TOM, NAMESAKE, MATRIX) == [True, False, False]


@pytest.mark.parametrize(
    "account", ["@tom:example.org", "tom:example.org", "matrix:@tom:example.org", "Matrix: @Tom:example.org"]
)
def test_accounts_with_a_colon_of_their_own(account: str) -> None:
    assert joined(account, TOM, NAMESAKE, MATRIX) == [False, False, True]


@given(st.sampled_from(["telegram", "matrix"]), st.text(), st.text())
def test_an_account_is_found_by_whatever_it_is_called(platform: str, account: str, name: str) -> None:
    names = names_of_account(platform, account, name)
    assert "" not in names
    for account_name in (account, name):
        if normalized_name(account_name):
            assert {normalized_name(account_name), normalized_name(f" {platform.upper()} :{account_name}")} <= names


def test_without_people_everybody_is_an_account() -> None:
    people = LinkedAccounts([])
    people.add(message(1, sender="ana"))
    assert people.pseudonym("test", "ana") == pseudonym("test", "ana")


def test_a_name_that_changes_is_noticed() -> None:
    people = LinkedAccounts([PersonSettings(name="Tom", accounts=("Tommy",))])
    people.add(message(1, sender="2002", sender_name="Tom"))
    assert people.pseudonym("test", "2002") == pseudonym("test", "2002")
    people.add(message(2, sender="2002", sender_name="Tommy"))
    assert people.pseudonym("test", "2002") == person_pseudonym("Tom")


def test_two_people_may_not_have_one_name() -> None:
    people = [{"name": "Tom", "accounts": ["1"]}, {"name": "tom", "accounts": ["2"]}]
    with pytest.raises(UserError, match="two people are named Tom"):
        parse_config({"people": people}, Path("config.yaml"))


# In a build ----------------------------------------------------------------------------------------------------------

PEOPLE = [{"name": "Tom", "accounts": ["one:2002", "Tommy"]}]


def two_platforms() -> list[Any]:
    return [
        message(1, "hi", platform="one", chat="c1", sender="2002", sender_name="Tom Berg"),
        message(2, "hello", platform="one", chat="c1"),
        message(3, "hi again", platform="two", chat="c2", sender="x", sender_name="Tommy", at=500),
        message(4, "hello again", platform="two", chat="c2", at=501),
        message(5, "good morning", platform="two", chat="c3", sender="ana", sender_name="Ana", at=900),
        message(6, "and to you", platform="two", chat="c3", at=901),
    ]


def test_one_person_has_one_name_in_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = build_messages(tmp_path, two_platforms(), people=PEOPLE)
    assert_accounted(report)
    tom, ana = person_pseudonym("Tom"), pseudonym("two", "ana")
    built = sorted(sessions_of(tmp_path), key=lambda one: one.started_at)
    assert [session.header.contact for session in built] == [tom, tom, ana]
    assert [session.turns[0].speaker for session in built] == [tom, tom, ana]
    contacts = read_contacts(tmp_path / "data" / "sample")
    assert [
        (contact.platform, contact.account, contact.name, contact.pseudonym, contact.chats, contact.is_linked)
        for contact in contacts
    ] == [
        ("one", "2002", "Tom Berg", tom, ["c1"], True),
        ("two", "ana", "Ana", ana, ["c3"], False),
        ("two", "x", "Tommy", tom, ["c2"], True),
    ]


def test_two_accounts_of_one_person_in_a_group_are_one_speaker(tmp_path: Path) -> None:
    rows = [
        message(1, "from the phone", kind="group", sender="2002", platform="one"),
        message(2, "from the desk", kind="group", sender="y", sender_name="Tommy", platform="one"),
        message(3, "both are you", kind="group", platform="one"),
    ]
    build_messages(tmp_path, rows, people=PEOPLE)
    (session,) = sessions_of(tmp_path)
    assert [(turn.speaker, len(turn.bubbles)) for turn in session.turns] == [(person_pseudonym("Tom"), 2), ("me", 1)]


def test_no_name_reaches_a_session(tmp_path: Path) -> None:
    build_messages(tmp_path, two_platforms(), people=PEOPLE)
    text = (tmp_path / "data" / "sample" / "sessions.jsonl").read_text(encoding="utf-8")
    for name in ("Tom Berg", "Tommy", "Ana", "2002"):
        assert name not in text


def test_who_is_not_in_the_data_set_is_not_on_the_list(tmp_path: Path) -> None:
    rows = [message(1, "hi"), message(2, "lost", sender="ana", chat="c"), message(3, sender="tom", mark="service")]
    build_messages(tmp_path, rows)
    assert not (tmp_path / "data" / "sample" / CONTACTS_FILE).exists()


def test_joining_changes_what_a_data_set_is_made_from(tmp_path: Path) -> None:
    plainly, with_people = (
        parse_config({"people": people}, tmp_path / "config.yaml").archive_digest for people in ([], PEOPLE)
    )
    assert plainly != with_people


# The list ------------------------------------------------------------------------------------------------------------


def test_the_list_is_written_read_and_removed(tmp_path: Path) -> None:
    assert read_contacts(tmp_path) == []
    contacts = ContactList(LinkedAccounts([]))
    contacts.add("two", "b", "Bea", "c1")
    contacts.add("two", "b", "", "c1")
    contacts.add("two", "b", "", "c2")
    contacts.add("one", "a", "")
    contacts.write(tmp_path)
    written = read_contacts(tmp_path)
    assert [(contact.account, contact.name, contact.chats) for contact in written] == [
        ("a", "", []),
        ("b", "Bea", ["c1", "c2"]),
    ]
    assert not any(contact.is_linked for contact in written)
    write_contacts(tmp_path, [])
    assert not (tmp_path / CONTACTS_FILE).exists()
    write_contacts(tmp_path, [])


@pytest.mark.parametrize("content", [b"", b"[", b'{"a": 1}', b'[{"platform": 1}]', b"\xff\xfe"])
def test_a_damaged_list_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONTACTS_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"contacts\.json: cannot be read: .*run `doppel build` again"):
        read_contacts(tmp_path)


def test_the_list_is_for_people_to_read(tmp_path: Path) -> None:
    write_contacts(tmp_path, [Contact(platform="a", account="1", name="Ünal", pseudonym="Babelo")])
    text = (tmp_path / CONTACTS_FILE).read_text(encoding="utf-8")
    assert "Ünal" in text
    assert len(text.splitlines()) > 3
    assert json.loads(text)[0]["pseudonym"] == "Babelo"

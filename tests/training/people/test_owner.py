"""Finding the owner: by the export, by persona.me, by elimination; otherwise the user is asked."""

from collections.abc import Iterable

import pytest

from doppel.errors import UserError
from tests.training.messages import message
from training.archives.message import Message
from training.people.owner import OwnerAccounts
from training.people.owner_question import UnknownOwner


def resolved(messages: Iterable[tuple[int, Message]], me: Iterable[str] = (), sources: int = 1) -> OwnerAccounts:
    owner = OwnerAccounts(me)
    for source, item in messages:
        owner.add(source, item)
    owner.resolve([f"archive {number}" for number in range(sources)])
    return owner


GROUP = [
    (0, message(1, sender="ana", sender_name="Ana B", is_owner=None, kind="group")),
    (0, message(2, sender="tom", sender_name="Tom", is_owner=None, kind="group")),
    (0, message(3, sender="tom", sender_name="Tom", is_owner=None, kind="group")),
]


def test_the_export_knows() -> None:
    owner = resolved([(0, message(1)), (0, message(2, sender="ana"))])
    assert owner.accounts == {("test", "me")}
    assert owner.messages == 1
    assert owner.names == ["test: Me"]


@pytest.mark.parametrize("me", ["tom", "Tom", " @TOM "])
def test_persona_me_names_an_account_or_a_name(me: str) -> None:
    owner = resolved(GROUP, [me])
    assert owner.messages == 2
    assert owner.is_mine("test", "tom", None)
    assert not owner.is_mine("test", "ana", None)


def test_persona_me_may_be_an_id() -> None:
    assert resolved([(0, message(1, sender="1001", sender_name="", is_owner=None))], ["1001"]).messages == 1


def test_persona_me_wins_over_what_the_export_says() -> None:
    owner = resolved([(0, message(1)), (0, message(2, sender="ana", sender_name="Ana"))], ["Ana"])
    assert owner.is_mine("test", "ana", False)
    assert not owner.is_mine("test", "me", True)
    assert owner.accounts == {("test", "ana")}
    assert owner.notes == [
        "archive 0: exported by Me, who is not you according to `persona.me`. Only what you wrote in it is learned. If "
        "Me is you, add that name"
    ]


def test_in_a_chat_of_two_the_one_who_is_not_the_contact_is_the_owner() -> None:
    owner = resolved([(0, message(1, sender="x", is_owner=None)), (0, message(2, sender="ana", is_owner=False))])
    assert owner.accounts == {("test", "x")}


def test_an_account_known_from_one_export_is_known_in_another() -> None:
    other = message(9, sender="me", is_owner=None, kind="group", chat="g")
    owner = resolved([(0, message(1)), (1, other), (1, message(8, sender="ana", is_owner=None, chat="g"))], sources=2)
    assert owner.messages == 2


def test_nobody_known_asks_with_the_candidates() -> None:
    with pytest.raises(UserError) as raised:
        resolved(GROUP)
    assert str(raised.value) == (
        "archive 0: does not say which messages are yours. Set `persona.me` in config.yaml to one of these people, "
        'for example `persona: {me: ["Tom"]}`: Tom (tom, 2 messages), Ana B (ana, 1 messages)'
    )


def test_a_name_that_nobody_has_is_named() -> None:
    with pytest.raises(UserError, match=r"^archive 0: has no messages from Tim\. .* Tom \(tom, 2 messages\)"):
        resolved(GROUP, ["Tim"])


def test_every_archive_must_be_answered_for() -> None:
    with pytest.raises(UserError, match=r"^archive 0: does not say"):
        resolved([*GROUP, (1, message(1, sender="x", is_owner=True))], sources=2)


def test_where_the_one_named_only_reads_nobody_is_asked() -> None:
    rows = [*chat(0, "mara", "ana"), *chat(1, "spam", "spam"), *chat(2, "tom", "kim")]
    owner = resolved(rows, ["Mara"], sources=3)
    assert owner.messages == 1
    assert owner.absent == {"archive 1": ["Spam"], "archive 2": ["Kim", "Tom"]}
    other = message(1, sender="x", is_owner=None, platform="other")
    with pytest.raises(UnknownOwner, match=r"^archive 3: has no messages from Mara"):
        resolved([*rows, (3, other)], ["Mara"], sources=4)


def test_strange_names_stay_on_one_line() -> None:
    with pytest.raises(UserError) as raised:
        resolved([(0, message(1, sender="x", sender_name="a\nb {c}", is_owner=None))])
    assert "\n" not in str(raised.value)
    assert 'me: ["x"]' in str(raised.value)


def test_an_account_that_changed_its_name_is_found_by_either() -> None:
    rows = [message(n, sender="1", sender_name=name, is_owner=None) for n, name in enumerate(("Old", "New", "New"))]
    for me in ("old", "New", "test:1", "test: @New"):
        assert resolved([(0, row) for row in rows], [me]).messages == 3


def test_an_empty_name_is_nobodys() -> None:
    with pytest.raises(UserError):
        resolved([(0, message(1, sender="x", sender_name="", is_owner=None))], [""])


def chat(source: int, *senders: str) -> list[tuple[int, Message]]:
    return [
        (source, message(number, sender=sender, sender_name=sender.title(), is_owner=None, chat=f"chat {source}"))
        for number, sender in enumerate(senders)
    ]


def test_who_writes_in_most_chats_is_asked_about_first() -> None:
    rows = [*chat(0, "ana", "ana", "ana", "mara"), *chat(1, "tom", "tom", "mara", "mara")]
    with pytest.raises(UnknownOwner) as raised:
        resolved(rows, sources=2)
    assert [
        (candidate.name, candidate.account, candidate.chats, candidate.messages)
        for candidate in raised.value.candidates
    ] == [
        ("Mara", "mara", 2, 3),
        ("Ana", "ana", 1, 3),
        ("Tom", "tom", 1, 2),
    ]
    assert str(raised.value).startswith("archive 0: ")
    assert '`persona: {me: ["Mara"]}`: Mara (mara, 3 messages), Ana' in str(raised.value)
    assert "Tom" not in str(raised.value)
    assert resolved(rows, ["Mara"], sources=2).messages == 3


def test_a_name_that_two_have_is_no_example() -> None:
    rows = [message(n, sender=account, sender_name="Sam", is_owner=None) for n, account in enumerate(("u1", "u2"))]
    with pytest.raises(UserError, match=r'me: \["u1"\]'):
        resolved([(0, row) for row in rows])


def test_those_known_to_be_others_are_not_asked_about() -> None:
    rows = [(0, message(1, sender="ana", kind="group")), (0, message(2, sender="x", is_owner=None, kind="group"))]
    with pytest.raises(UnknownOwner) as raised:
        resolved(rows)
    assert [candidate.account for candidate in raised.value.candidates] == ["x"]

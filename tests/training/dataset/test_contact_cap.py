"""The limit for one contact: never passed but by a last session, the oldest go, and others lose nothing."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.training.dataset.test_build import assert_accounted, build_messages, sessions_of
from tests.training.messages import message
from training.archives.message import Message
from training.dataset.contact_cap import MIN_CONTACTS, sessions_over_cap
from training.dataset.splits import SessionSummary


def summary(name: str, ended_at: float, mine: int) -> SessionSummary:
    return SessionSummary(ended_at=ended_at, id=name, own_messages=mine, content_digest=b"", position=0, length=0)


def archive(**contacts: list[int]) -> tuple[list[SessionSummary], dict[str, str]]:
    """Sessions with each contact, in order of time: the owner's messages in each."""
    sessions = [
        summary(f"{contact}{at}", at, mine) for contact, sizes in contacts.items() for at, mine in enumerate(sizes)
    ]
    return sessions, {session.id: session.id[:1] for session in sessions}


FOUR = {"b": [10], "c": [10], "d": [10], "e": [10]}


def test_the_oldest_go_until_the_share_is_met() -> None:
    sessions, contacts = archive(a=[20, 20, 20], **FOUR)
    assert sessions_over_cap(sessions, contacts, 0.5) == {"a0"}
    assert sessions_over_cap(sessions, contacts, 0.4) == {"a0"}
    assert sessions_over_cap(sessions, contacts, 0.39) == {"a0", "a1"}


def test_exactly_the_share_may_stay_and_all_of_it_is_no_limit() -> None:
    sessions, contacts = archive(a=[20, 20], **FOUR)
    assert sessions_over_cap(sessions, contacts, 0.5) == set()
    assert sessions_over_cap(sessions, contacts, 1.0) == set()


def test_the_last_session_stays_however_large() -> None:
    sessions, contacts = archive(a=[1, 1000], **FOUR)
    assert sessions_over_cap(sessions, contacts, 0.1) == {"a0"}


def test_few_contacts_are_not_balanced() -> None:
    sessions, contacts = archive(a=[50, 50], b=[1], c=[1], d=[1])
    assert len(set(contacts.values())) == MIN_CONTACTS - 1
    assert sessions_over_cap(sessions, contacts, 0.1) == set()
    assert sessions_over_cap([], {}, 0.1) == set()


def test_groups_and_posts_count_as_messages_but_belong_to_nobody() -> None:
    sessions, contacts = archive(a=[20, 20], **FOUR)
    public = [summary(f"post{number}", number, 100) for number in range(10)]
    assert sessions_over_cap([*sessions, *public], contacts, 0.03) == {"a0"}
    assert sessions_over_cap([*sessions, *public], contacts, 0.04) == set()


SESSIONS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 1000), st.integers(1, 50)), max_size=60)


@given(SESSIONS, st.floats(0.01, 1))
def test_of_every_contact_at_most_the_share_or_one_session_is_left(
    rows: list[tuple[str, int, int]], share: float
) -> None:
    sessions = [summary(f"{number:03}", at, mine) for number, (_, at, mine) in enumerate(rows)]
    contacts = {session.id: row[0] for session, row in zip(sessions, rows, strict=True) if row[0] != "h"}
    gone = sessions_over_cap(sessions, contacts, share)
    assert sessions_over_cap(sessions[::-1], contacts, share) == gone
    assert gone <= contacts.keys()
    limit = share * sum(session.own_messages for session in sessions)
    left: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for session in sessions:
        if session.id in contacts and session.id not in gone:
            left[contacts[session.id]] += session.own_messages
            count[contacts[session.id]] += 1
    assert set(count) == set(contacts.values())
    if len(count) < MIN_CONTACTS:
        assert not gone
        return
    assert all(left[contact] <= limit or count[contact] == 1 for contact in left)
    for session in sessions:
        if session.id in gone:
            theirs = [one for one in sessions if contacts.get(one.id) == contacts[session.id] and one.id not in gone]
            assert all(_age(one) > _age(session) for one in theirs)
    for contact in left:  # and no more went than had to
        newest = max(
            (session for session in sessions if session.id in gone and contacts[session.id] == contact),
            key=_age,
            default=None,
        )
        assert newest is None or left[contact] + newest.own_messages > limit


def _age(session: SessionSummary) -> tuple[float, str]:
    return session.ended_at, session.id


def test_in_a_build_the_latest_with_one_contact_stay(tmp_path: Path) -> None:
    day = 24 * 60

    def talk(number: int, contact: str, at: float) -> list[Message]:
        chat = f"with {contact}"
        asked = message(number, f"question {number}", sender=contact, chat=chat, at=at)
        return [asked, message(number + 1, f"answer {number}", chat=chat, at=at + 1)]

    rows = [one for number in range(0, 40, 2) for one in talk(number, "ana", number * day)]
    for place, contact in enumerate(["tom", "ben", "ida", "eva"]):
        rows += talk(100 + 2 * place, contact, (50 + place) * day)
    report = build_messages(tmp_path, rows)
    assert_accounted(report)
    assert report.dropped == {"contact cap": 16}  # 12 of 24 answers may be to ana
    answers = [
        bubble for session in sessions_of(tmp_path) for turn in session.turns if turn.is_mine for bubble in turn.bubbles
    ]
    assert answers == [f"answer {number}" for number in (*range(16, 40, 2), 100, 102, 104, 106)]
    assert build_messages(tmp_path, rows, cleaning={"max_contact_share": 1}).dropped == {}

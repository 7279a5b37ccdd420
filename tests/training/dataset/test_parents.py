"""Parents of the owner's posts, in their sessions."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.config import parse_config
from doppel.transcript import pseudonym
from tests.training.archives.test_mastodon import ACTOR, created, outbox
from tests.training.archives.test_parents import write_parents
from tests.training.dataset.test_build import OneFile, assert_accounted, build, build_messages, sessions_of
from tests.training.exports import OWN_ID, conversation, direct_message, tweet, twitter_files, write_folder, write_json
from tests.training.messages import message
from training.archives.parents import PARENTS, UNKNOWN, ParentsReader
from training.dataset.parent_fetcher import missing_parents
from training.dataset.report.build_report import Report


def parent(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "author": "3003", "name": "tom", "text": text, **more}


def build_tweets(
    root: Path, tweets: list[Any], *parents: Any, **more: Any
) -> tuple[Report, list[list[tuple[bool, str]]]]:
    """A build of an archive of tweets with a file of parents beside it; who says what in each session."""
    write_folder(root / "archive" / "x", twitter_files(tweets=tweets, **more))
    if parents:
        write_parents(root / "archive" / "parents.jsonl", *parents)
    report = build(root, "archive")
    assert_accounted(report)
    return report, session_texts(root)


def session_texts(root: Path) -> list[list[tuple[bool, str]]]:
    return [[(turn.is_mine, text) for turn in session.turns for text in turn.bubbles] for session in sessions_of(root)]


def answer(number: int, text: str, to: int | str, **more: Any) -> Any:
    return tweet(number, text, in_reply_to_status_id_str=str(to), **more)


def quote(number: int, text: str, of: int) -> Any:
    url = {"url": "https://t.co/abc", "expanded_url": f"https://twitter.com/tom/status/{of}", "indices": ["0", "16"]}
    return tweet(number, f"https://t.co/abc {text}", entities={"urls": [url], "user_mentions": []})


def test_a_reply_gets_what_it_answers_as_its_context(tmp_path: Path) -> None:
    report, sessions = build_tweets(
        tmp_path,
        [answer(40, "@tom coffee, always", 7), tweet(50, "good morning")],
        parent(7, "tea or coffee?", created_at="2011-05-05T05:05:05Z"),
        parent(8, "nobody answers this"),
    )
    assert sessions == [[(False, "tea or coffee?"), (True, "coffee, always")], [(True, "good morning")]]
    assert report.dropped == {"no turn of yours": 1}
    session = sessions_of(tmp_path)[0]
    assert session.turns[0].speaker == pseudonym("twitter", "3003")
    assert session.header.kind in ("reply", None)  # now and then a header is thinned
    assert session.header.year in ("2018", None)
    assert session.started_at.year == 2018
    assert report.owner.first is not None
    assert report.owner.first.year == 2018


def test_a_parent_without_a_time_goes_right_before_its_answer(tmp_path: Path) -> None:
    _, sessions = build_tweets(tmp_path, [answer(40, "coffee", 7), answer(45, "and cake", 7)], parent(7, "tea?"))
    assert sessions == [[(False, "tea?"), (True, "coffee"), (True, "and cake")]]


def test_a_parent_that_claims_to_be_later_than_its_answer_still_comes_first(tmp_path: Path) -> None:
    _, sessions = build_tweets(
        tmp_path, [answer(40, "coffee", 7)], parent(7, "tea?", created_at="2030-01-01T00:00:00Z")
    )
    assert sessions == [[(False, "tea?"), (True, "coffee")]]


def test_a_conversation_is_whole_when_every_link_of_it_is_there(tmp_path: Path) -> None:
    _, sessions = build_tweets(
        tmp_path,
        [tweet(30, "what a day"), answer(40, "long story", 7)],
        parent(7, "@mara why?", reply_to="30"),
    )
    assert sessions == [[(True, "what a day"), (False, "why?"), (True, "long story")]]


def test_parents_of_parents_come_along(tmp_path: Path) -> None:
    _, sessions = build_tweets(
        tmp_path, [answer(40, "me too", 7)], parent(7, "I like it", reply_to="6"), parent(6, "a picture")
    )
    assert sessions == [[(False, "a picture"), (False, "I like it"), (True, "me too")]]


def test_parents_that_answer_each_other_in_a_circle_end(tmp_path: Path) -> None:
    _, sessions = build_tweets(
        tmp_path, [answer(40, "x y", 7)], parent(7, "a", reply_to="6"), parent(6, "b", reply_to="7")
    )
    assert sessions[0][-1:] == [(True, "x y")]


def test_a_quote_gets_what_it_quotes_but_not_the_owners_own(tmp_path: Path) -> None:
    _, sessions = build_tweets(
        tmp_path, [quote(40, "so true", 7), tweet(50, "mine"), quote(55, "as I said", 50)], parent(7, "rain is good")
    )
    assert sessions == [[(False, "rain is good"), (True, "so true")], [(True, "mine")], [(True, "as I said")]]


def test_a_parent_that_an_archive_holds_too_is_there_once(tmp_path: Path) -> None:
    report, sessions = build_tweets(
        tmp_path, [tweet(30, "mine"), answer(40, "more", 30)], parent(30, "mine"), parent(30, "mine")
    )
    assert sessions == [[(True, "mine"), (True, "more")]]
    assert sum(report.dropped.values()) == 2


def test_parents_of_another_platform_find_the_chat_that_answers_them(tmp_path: Path) -> None:
    write_json(tmp_path / "archive" / "outbox.json", outbox(created(1, "<p>yes</p>", inReplyTo="https://o.example/7")))
    write_parents(
        tmp_path / "archive" / "parents.jsonl",
        {"id": "https://o.example/7", "platform": "mastodon", "author": "https://o.example/users/tom", "text": "tea?"},
        {"id": f"{ACTOR}/statuses/1", "platform": "twitter", "author": "tom", "text": "elsewhere"},
    )
    assert_accounted(build(tmp_path, "archive"))
    assert session_texts(tmp_path) == [[(False, "tea?"), (True, "yes")]]


def test_posts_in_an_archive_of_somebody_else_are_context_too(tmp_path: Path) -> None:
    """As in a dump of Reddit beside the owner's data request, or any reader that tells whose a post is."""
    public = {"platform": "mastodon", "kind": "post"}
    report = build_messages(
        tmp_path,
        [message(5, "yes", chat="mine", reply_to="3", **{**public, "kind": "reply"})],
        [
            message(3, "tea?", chat="mine", sender="tom", **public),
            message(9, "alone", chat="theirs", sender="tom", **public),
        ],
    )
    assert_accounted(report)
    assert session_texts(tmp_path) == [[(False, "tea?"), (True, "yes")]]


def test_one_other_author_who_is_excluded_takes_no_posts_along(tmp_path: Path) -> None:
    write_folder(tmp_path / "archive" / "x", twitter_files(tweets=[answer(40, "coffee", 7), tweet(50, "morning")]))
    write_parents(tmp_path / "archive" / "parents.jsonl", parent(7, "tea?"))
    report = build(tmp_path, "archive", exclude={"people": ["tom"]})
    assert session_texts(tmp_path) == [[(True, "coffee")], [(True, "morning")]]
    assert report.dropped == {"excluded": 1}


posts = st.lists(
    st.tuples(
        st.sampled_from(["me", "ana", "parents"]),
        st.integers(0, 7),
        st.none() | st.integers(0, 7),
        st.sampled_from([0, 1, 5, 9]),
        st.sampled_from(["post", "reply", "quote"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(posts)
def test_every_post_is_accounted_for_whoever_answers_whom(written: list[tuple[str, int, int | None, int, Any]]) -> None:
    archive = [
        message(
            number,
            f"text {number} of {who}",
            at=at,
            sender="me" if who == "me" else "ana",
            chat=PARENTS if who == "parents" else "posts",
            kind="post" if who == "parents" else kind,
            reply_to=None if to is None else str(to),
            **({"sent_at": UNKNOWN} if who == "parents" and at == 0 else {}),
        )
        for who, number, to, at, kind in written
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = build_messages(Path(folder), [message(99, "always", at=99), *archive])
        assert_accounted(report)
        bubbles = [text for session in session_texts(Path(folder)) for _, text in session]
    assert len(bubbles) == report.kept


def test_an_archive_of_somebody_in_people_is_context_and_its_conversations_stay_theirs(tmp_path: Path) -> None:
    talk = conversation("1001-3003", direct_message(2, OWN_ID, "see you", "2019-01-01T00:00:01.000Z"),
                        direct_message(1, "3003", "hi there", "2019-01-01T00:00:00.000Z"))  # fmt: skip
    secret = conversation("3003-5005", direct_message(3, "3003", "a secret", "2019-02-01T00:00:00.000Z"))
    theirs = twitter_files(tweets=[tweet(30, "tea or coffee?"), tweet(33, "alone")], direct_messages=[talk, secret])
    theirs["data/account.js"] = theirs["data/account.js"].replace(OWN_ID, "3003").replace("mara_l", "tom")
    write_folder(tmp_path / "archive" / "a", theirs)
    own = twitter_files(tweets=[answer(40, "coffee", 30), answer(41, "yes", 9)], direct_messages=[talk])
    write_folder(tmp_path / "archive" / "b", own)
    people = [{"name": "Tom", "accounts": ["twitter:tom"]}]
    assert_accounted(build(tmp_path, "archive", people=people))
    assert session_texts(tmp_path) == [
        [(False, "tea or coffee?"), (True, "coffee")],
        [(True, "yes")],
        [(False, "hi there"), (True, "see you")],
    ]
    config = parse_config({"archive": "archive", "people": people}, tmp_path / "config.yaml")
    assert missing_parents(config) == ["9"]


def test_two_archives_of_mastodon_make_one_thread(tmp_path: Path) -> None:
    other = json.loads(json.dumps(outbox(created(1, "<p>tea?</p>"))).replace(ACTOR, "https://o.example/users/tom"))
    write_json(tmp_path / "archive" / "o" / "outbox.json", other)
    own = outbox(created(5, "<p>yes</p>", inReplyTo="https://o.example/users/tom/statuses/1"))
    write_json(tmp_path / "archive" / "m" / "outbox.json", own)
    assert_accounted(build(tmp_path, "archive", people=[{"name": "Tom", "accounts": ["https://o.example/users/tom"]}]))
    assert session_texts(tmp_path) == [[(False, "tea?"), (True, "yes")]]


def test_many_chats_share_a_file_of_parents(tmp_path: Path) -> None:
    public = {"platform": "reddit", "kind": "reply"}
    archive = [message(n, f"answer {n}", chat=f"r/{n}", reply_to=f"t1_{n}", **public) for n in range(5)]
    parents = [{"id": f"t1_{n}", "platform": "reddit", "author": "ana", "text": f"question {n}"} for n in range(4)]
    write_parents(tmp_path / "parents.jsonl", *parents)
    (tmp_path / "archive-0").write_text("x")
    report = build(tmp_path, ["archive-0", "parents.jsonl"], readers=[OneFile(archive, "archive-0"), ParentsReader()])
    assert_accounted(report)
    assert session_texts(tmp_path) == [[(False, f"question {n}"), (True, f"answer {n}")] for n in range(4)] + [
        [(True, "answer 4")]
    ]

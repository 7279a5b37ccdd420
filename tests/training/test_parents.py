"""Parents of the owner's posts: in their sessions, and fetched from something that behaves as X does."""

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.config import Config, parse_config
from doppel.errors import DoppelError, UserError
from doppel.transcript import pseudonym
from tests.training.archives.test_mastodon import ACTOR, created, outbox
from tests.training.archives.test_parents import write_parents
from tests.training.exports import OWN_ID, conversation, direct_message, tweet, twitter_files, write_folder, write_json
from tests.training.messages import message
from tests.training.test_build import OneFile, assert_accounted, build, build_messages, sessions_of
from training.archives.parents import PARENTS, UNKNOWN, ParentsReader
from training.build_report import Report
from training.parents import Fetched, fetch_parents, fetched_path, missing_parents

TOKEN = "made-up-token"


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
    return report, said(root)


def said(root: Path) -> list[list[tuple[bool, str]]]:
    return [[(turn.is_mine, text) for turn in one.turns for text in turn.bubbles] for one in sessions_of(root)]


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
    assert said(tmp_path) == [[(False, "tea?"), (True, "yes")]]


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
    assert said(tmp_path) == [[(False, "tea?"), (True, "yes")]]


def test_one_other_author_who_is_excluded_takes_no_posts_along(tmp_path: Path) -> None:
    write_folder(tmp_path / "archive" / "x", twitter_files(tweets=[answer(40, "coffee", 7), tweet(50, "morning")]))
    write_parents(tmp_path / "archive" / "parents.jsonl", parent(7, "tea?"))
    report = build(tmp_path, "archive", exclude={"people": ["tom"]})
    assert said(tmp_path) == [[(True, "coffee")], [(True, "morning")]]
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
        bubbles = [text for session in said(Path(folder)) for _, text in session]
    assert len(bubbles) == report.kept


class FakeX:
    """X's API as its documentation has it, on this machine; `script` gives answers that come before the usual one."""

    def __init__(self) -> None:
        self.posts: dict[str, dict[str, Any]] = {}
        self.asked: list[list[str]] = []
        self.requests: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.script: list[tuple[int, dict[str, str], Any]] = []
        self.headers: dict[str, str] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlparse(self.path)
                query = parse_qs(url.query)
                fake.requests.append((url.path, query, self.headers["Authorization"]))
                fake.asked.append(query["ids"][0].split(","))
                status, headers, content = fake.script.pop(0) if fake.script else (200, {}, fake.answer(fake.asked[-1]))
                body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **fake.headers, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, ids: list[str]) -> dict[str, Any]:
        data = [{"author_id": "3003", "id": one, **self.posts[one]} for one in ids if one in self.posts]
        errors = [
            {
                "value": one,
                "resource_id": one,
                "resource_type": "tweet",
                "parameter": "ids",
                "title": "Not Found Error",
                "type": "https://api.twitter.com/2/problems/resource-not-found",
            }
            for one in ids
            if one not in self.posts
        ]
        content: dict[str, Any] = {"includes": {"users": [{"id": "3003", "username": "tom", "name": "Tom"}]}}
        return {**content, **({"data": data} if data else {}), **({"errors": errors} if errors else {})}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def x(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeX]:
    monkeypatch.setenv("X_BEARER_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fake = FakeX()
    try:
        yield fake
    finally:
        fake.close()


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def configured(root: Path, *tweets: Any, **more: Any) -> Config:
    write_folder(root / "archive" / "x", twitter_files(tweets=list(tweets)))
    return parse_config({"archive": "archive", "timezone": "UTC", **more}, root / "config.yaml")


def fetch(
    config: Config, x: FakeX, clock: Clock | None = None, told: Callable[[str], None] = lambda text: None
) -> Fetched:
    clock = clock or Clock()
    return fetch_parents(config, told, base=x.url, clock=clock, sleep=clock.sleep)


def lines(config: Config) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fetched_path(config).read_text(encoding="utf-8").splitlines()]


def test_what_is_missing_is_what_the_owner_answers_and_nobody_holds(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        tweet(30, "mine"),
        answer(40, "to myself", 30),
        answer(41, "to tom", 7),
        answer(42, "again", 7),
        quote(43, "yes", 900),
        answer(44, "in the file", 8),
        answer(45, "https://t.co/abc", 9),
        answer(46, "RT @tom: his words", 10),
        answer(47, "no id", "9" * 25),
        answer(48, "too old", 11),
    )
    write_parents(tmp_path / "archive" / "parents.jsonl", parent(8, "there"), {"id": "12", "gone": "Not Found Error"})
    assert missing_parents(config) == ["900", "11", "7"]
    excluding = parse_config({"archive": "archive", "exclude": {"words": ["too old"]}}, tmp_path / "config.yaml")
    assert missing_parents(excluding) == ["900", "7"]


def test_parents_are_fetched_kept_and_used_by_every_later_build(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "coffee", 7), answer(41, "pity", 6), quote(43, "long indeed", 5))
    links = [
        {"url": "https://t.co/a", "expanded_url": "https://tea.example/?a=1&copy=2"},
        {"url": "https://t.co/b", "expanded_url": "https://x.com/tom/status/7/photo/1", "media_key": "3_1"},
    ]
    x.posts["7"] = {
        "text": "@mara tea &amp; more? https://t.co/a https://t.co/b",
        "created_at": "2018-10-09T00:00:00.000Z",
        "entities": {"urls": links},
        "referenced_tweets": [{"type": "replied_to", "id": "3"}],
    }
    x.posts["5"] = {"text": "cut …", "note_tweet": {"text": "a long text", "entities": {"urls": []}}}
    assert fetch(config, x) == Fetched(asked=3, found=2, gone=1)
    (path, query, token), *further = x.requests
    assert (path, token, further) == ("/2/tweets", f"Bearer {TOKEN}", [])
    assert query["ids"] == ["7,6,5"]
    assert query["expansions"] == ["author_id"]
    assert {"created_at", "text", "note_tweet", "conversation_id", "referenced_tweets"} <= set(
        query["tweet.fields"][0].split(",")
    )
    assert [(one["id"], one.get("text"), one.get("gone")) for one in lines(config)] == [
        ("7", "@mara tea &amp; more? https://tea.example/?a=1&amp;copy=2", None),
        ("5", "a long text", None),
        ("6", None, "Not Found Error"),
    ]
    assert TOKEN not in fetched_path(config).read_text(encoding="utf-8")
    for _ in range(2):
        report = build(tmp_path, "archive", privacy={"scrub": False})
        assert_accounted(report)
        assert report.dropped == {"deleted": 1}
        assert said(tmp_path) == [
            [(False, "tea & more? https://tea.example/?a=1&copy=2"), (True, "coffee")],
            [(True, "pity")],
            [(False, "a long text"), (True, "long indeed")],
        ]
    assert fetch(config, x) == Fetched(asked=0, found=0, gone=0)
    assert len(x.requests) == 1


def test_a_hundred_at_a_time_and_each_page_is_kept_at_once(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, *(answer(1000 + n, f"text {n}", 100 + n) for n in range(250)))
    x.posts = {str(100 + n): {"text": f"parent {n}"} for n in range(250)}
    x.script = [
        (200, {}, x.answer([str(number) for number in range(349, 249, -1)])),
        (401, {}, {"title": "Unauthorized"}),
    ]
    with pytest.raises(UserError, match="401"):
        fetch(config, x)
    assert [len(ids) for ids in x.asked] == [100, 100]
    assert len(lines(config)) == 100
    x.asked.clear()
    assert fetch(config, x) == Fetched(asked=150, found=150, gone=0)
    assert [ids[0] for ids in x.asked] == ["249", "149"]
    assert len({one["id"] for one in lines(config)}) == 250


def test_a_line_that_a_power_cut_left_half_written_goes(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "coffee", 7), answer(41, "cake", 8))
    x.posts = {"7": {"text": "tea?"}, "8": {"text": "bread?"}}
    fetched_path(config).parent.mkdir()
    fetched_path(config).write_text(json.dumps(parent(7, "tea?")) + '\n{"id": "8", "auth', encoding="utf-8")
    assert fetch(config, x) == Fetched(asked=1, found=1, gone=0)
    assert [one["id"] for one in lines(config)] == ["7", "8"]


def test_limits_are_kept_as_the_headers_say(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, *(answer(1000 + n, f"text {n}", 100 + n) for n in range(101)))
    x.posts = {str(100 + n): {"text": f"parent {n}"} for n in range(101)}
    clock, told = Clock(), list[str]()
    first = x.answer([str(number) for number in range(200, 100, -1)])
    x.script = [
        (200, {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1000300"}, first),
        (429, {"x-rate-limit-reset": "1000900"}, {"title": "Too Many Requests"}),
        (429, {}, {"title": "Too Many Requests"}),
    ]
    assert fetch(config, x, clock, told.append).found == 101
    assert clock.slept == [301.0, 600.0, 120.0]
    assert "X asks to wait for 301 s" in told


def test_a_limit_that_lasts_for_days_is_an_error(tmp_path: Path, x: FakeX) -> None:
    config, clock = configured(tmp_path, answer(40, "coffee", 7)), Clock()
    x.script = [(429, {"x-rate-limit-reset": "1086400"}, {})]
    with pytest.raises(DoppelError, match=r"24\.0 hours"):
        fetch(config, x, clock)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("status", "content", "error", "says"),
    [
        (401, {"title": "Unauthorized"}, UserError, "does not know the token in X_BEARER_TOKEN"),
        (403, {"detail": "not in a\nproject"}, UserError, r"403: not in a project"),
        (402, {"title": "CreditsDepleted"}, DoppelError, r"paid for more posts \(402: CreditsDepleted\)"),
        (429, {"title": "UsageCapExceeded", "type": "x/usage-capped"}, DoppelError, r"paid .* \(429"),
        (400, {"detail": "bad ids"}, DoppelError, r"refuses the request \(400: bad ids\)"),
        (302, "", DoppelError, r"refuses the request \(302"),
        (404, "<html>", DoppelError, r"refuses the request \(404"),
    ],
)
def test_refusals_say_what_to_do(
    tmp_path: Path, x: FakeX, status: int, content: Any, error: type[DoppelError], says: str
) -> None:
    config = configured(tmp_path, answer(40, "coffee", 7))
    x.script = [(status, {}, content)]
    with pytest.raises(error, match=says) as raised:
        fetch(config, x)
    assert type(raised.value) is error
    assert TOKEN not in str(raised.value)
    assert len(x.requests) == 1


def test_passing_trouble_is_tried_again(tmp_path: Path, x: FakeX) -> None:
    config, clock = configured(tmp_path, answer(40, "coffee", 7)), Clock()
    x.posts["7"] = {"text": "tea?"}
    x.script = [(503, {}, ""), (200, {}, "<html>a hotel's network</html>"), (200, {}, {"hello": 1})]
    assert fetch(config, x, clock).found == 1
    assert clock.slept == [2.0, 4.0, 8.0]


def test_without_a_network_it_says_so(tmp_path: Path, x: FakeX) -> None:
    config, clock = configured(tmp_path, answer(40, "coffee", 7)), Clock()
    x.close()
    with pytest.raises(DoppelError, match="X does not answer"):
        fetch(config, x, clock)
    assert clock.slept == [2.0, 4.0, 8.0, 16.0]
    assert not fetched_path(config).exists()


def test_what_may_come_back_is_not_remembered_as_gone(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "coffee", 7), answer(41, "tea", 8), answer(42, "milk", 9))
    problem = "https://api.twitter.com/2/problems/"
    errors = [
        {"resource_id": "7", "resource_type": "tweet", "type": problem + "operational-disconnect"},
        {"resource_id": "3003", "resource_type": "user", "type": problem + "resource-not-found"},
        {"resource_id": "8", "resource_type": "tweet", "type": problem + "not-authorized-for-resource", "title": "No"},
    ]
    x.script = [(200, {}, {"errors": errors})]
    assert fetch(config, x) == Fetched(asked=3, found=0, gone=1)
    assert [one["id"] for one in lines(config)] == ["8"]
    assert missing_parents(config) == ["9", "7"]


@pytest.mark.parametrize("token", ["", "  ", "two words", "t\u00f6ken", "a\nb"])
def test_without_a_token_nothing_is_asked(
    tmp_path: Path, x: FakeX, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("X_BEARER_TOKEN", token)
    with pytest.raises(UserError, match="X_BEARER_TOKEN"):
        fetch(configured(tmp_path, answer(40, "coffee", 7)), x)
    assert x.requests == []


def test_the_authors_of_parents_are_who_they_are_in_direct_messages(tmp_path: Path, x: FakeX) -> None:
    talk = conversation(f"3003-{OWN_ID}", direct_message(1, "3003", "hi", "2019-01-01T00:00:00.000Z"),
                        direct_message(2, OWN_ID, "hello", "2019-01-01T00:00:01.000Z"))  # fmt: skip
    files = twitter_files(tweets=[answer(40, "coffee", 7)], direct_messages=[talk])
    write_folder(tmp_path / "archive" / "x", files)
    config = parse_config({"archive": "archive", "timezone": "UTC"}, tmp_path / "config.yaml")
    x.posts["7"] = {"text": "tea?"}
    fetch(config, x)
    build(tmp_path, "archive")
    others = {turn.speaker for one in sessions_of(tmp_path) for turn in one.turns if not turn.is_mine}
    assert others == {pseudonym("twitter", "3003")}


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
    assert said(tmp_path) == [
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
    assert said(tmp_path) == [[(False, "tea?"), (True, "yes")]]


def test_posts_of_the_owners_own_are_not_kept_as_those_of_a_stranger(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "and another thing", 7))
    x.posts["7"] = {"text": "one thing", "author_id": OWN_ID}
    assert fetch(config, x) == Fetched(asked=1, found=0, gone=1)
    assert lines(config) == [{"id": "7", "platform": "twitter", "gone": "your own"}]
    assert missing_parents(config) == []


def test_many_chats_share_a_file_of_parents(tmp_path: Path) -> None:
    public = {"platform": "reddit", "kind": "reply"}
    archive = [message(n, f"answer {n}", chat=f"r/{n}", reply_to=f"t1_{n}", **public) for n in range(5)]
    parents = [{"id": f"t1_{n}", "platform": "reddit", "author": "ana", "text": f"question {n}"} for n in range(4)]
    write_parents(tmp_path / "parents.jsonl", *parents)
    (tmp_path / "archive-0").write_text("x")
    report = build(tmp_path, ["archive-0", "parents.jsonl"], readers=[OneFile(archive, "archive-0"), ParentsReader()])
    assert_accounted(report)
    assert said(tmp_path) == [[(False, f"question {n}"), (True, f"answer {n}")] for n in range(4)] + [
        [(True, "answer 4")]
    ]

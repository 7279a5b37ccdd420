"""Parents of the owner's posts, fetched from something that behaves as X does."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from doppel.config import Config, parse_config
from doppel.errors import DoppelError, UserError
from doppel.personal_data import Account, find_person
from doppel.transcript import pseudonym
from tests.training.archives.test_parents import write_parents
from tests.training.dataset.test_build import assert_accounted, build, sessions_of
from tests.training.dataset.test_parents import answer, parent, quote, session_texts
from tests.training.exports import OWN_ID, conversation, direct_message, tweet, twitter_files, write_folder
from training.dataset.forget import forget_accounts
from training.dataset.parent_fetcher import FetchResult, fetch_parents, missing_parents, parents_file
from training.personal_data import DataSet

TOKEN = "made-up-token"


class FakeX:
    """X's API as its documentation has it, on this machine; `script` gives answers that come before the usual one."""

    def __init__(self) -> None:
        self.posts: dict[str, dict[str, Any]] = {}
        self.requested_ids: list[list[str]] = []
        self.requests: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.script: list[tuple[int, dict[str, str], Any]] = []
        self.headers: dict[str, str] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlparse(self.path)
                query = parse_qs(url.query)
                fake.requests.append((url.path, query, self.headers["Authorization"]))
                fake.requested_ids.append(query["ids"][0].split(","))
                status, headers, content = (
                    fake.script.pop(0) if fake.script else (200, {}, fake.answer(fake.requested_ids[-1]))
                )
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
        data = [{"author_id": "3003", "id": post_id, **self.posts[post_id]} for post_id in ids if post_id in self.posts]
        errors = [
            {
                "value": post_id,
                "resource_id": post_id,
                "resource_type": "tweet",
                "parameter": "ids",
                "title": "Not Found Error",
                "type": "https://api.twitter.com/2/problems/resource-not-found",
            }
            for post_id in ids
            if post_id not in self.posts
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
    config: Config, x: FakeX, clock: Clock | None = None, on_status: Callable[[str], None] = lambda text: None
) -> FetchResult:
    clock = clock or Clock()
    return fetch_parents(config, on_status, base_url=x.url, clock=clock, sleep=clock.sleep)


def lines(config: Config) -> list[dict[str, Any]]:
    return [json.loads(line) for line in parents_file(config.data_dir).read_text(encoding="utf-8").splitlines()]


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
    assert fetch(config, x) == FetchResult(asked=3, found=2, gone=1)
    (path, query, token), *further = x.requests
    assert (path, token, further) == ("/2/tweets", f"Bearer {TOKEN}", [])
    assert query["ids"] == ["7,6,5"]
    assert query["expansions"] == ["author_id"]
    assert {"created_at", "text", "note_tweet", "conversation_id", "referenced_tweets"} <= set(
        query["tweet.fields"][0].split(",")
    )
    assert [(line["id"], line.get("text"), line.get("gone")) for line in lines(config)] == [
        ("7", "@mara tea &amp; more? https://tea.example/?a=1&amp;copy=2", None),
        ("5", "a long text", None),
        ("6", None, "Not Found Error"),
    ]
    assert TOKEN not in parents_file(config.data_dir).read_text(encoding="utf-8")
    for _ in range(2):
        report = build(tmp_path, "archive", privacy={"scrub": False})
        assert_accounted(report)
        assert report.dropped == {"deleted": 1}
        assert session_texts(tmp_path) == [
            [(False, "tea & more? https://tea.example/?a=1&copy=2"), (True, "coffee")],
            [(True, "pity")],
            [(False, "a long text"), (True, "long indeed")],
        ]
    assert fetch(config, x) == FetchResult(asked=0, found=0, gone=0)
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
    assert [len(ids) for ids in x.requested_ids] == [100, 100]
    assert len(lines(config)) == 100
    x.requested_ids.clear()
    assert fetch(config, x) == FetchResult(asked=150, found=150, gone=0)
    assert [ids[0] for ids in x.requested_ids] == ["249", "149"]
    assert len({line["id"] for line in lines(config)}) == 250


def test_a_line_that_a_power_cut_left_half_written_goes(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "coffee", 7), answer(41, "cake", 8))
    x.posts = {"7": {"text": "tea?"}, "8": {"text": "bread?"}}
    parents_file(config.data_dir).parent.mkdir()
    parents_file(config.data_dir).write_text(json.dumps(parent(7, "tea?")) + '\n{"id": "8", "auth', encoding="utf-8")
    assert fetch(config, x) == FetchResult(asked=1, found=1, gone=0)
    assert [line["id"] for line in lines(config)] == ["7", "8"]


def test_limits_are_kept_as_the_headers_say(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, *(answer(1000 + n, f"text {n}", 100 + n) for n in range(101)))
    x.posts = {str(100 + n): {"text": f"parent {n}"} for n in range(101)}
    clock, statuses = Clock(), list[str]()
    first = x.answer([str(number) for number in range(200, 100, -1)])
    x.script = [
        (200, {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1000300"}, first),
        (429, {"x-rate-limit-reset": "1000900"}, {"title": "Too Many Requests"}),
        (429, {}, {"title": "Too Many Requests"}),
    ]
    assert fetch(config, x, clock, statuses.append).found == 101
    assert clock.slept == [301.0, 600.0, 120.0]
    assert "Rate limit of X reached, waiting 301 s" in statuses


def test_a_limit_that_lasts_for_days_is_an_error(tmp_path: Path, x: FakeX) -> None:
    config, clock = configured(tmp_path, answer(40, "coffee", 7)), Clock()
    x.script = [(429, {"x-rate-limit-reset": "1086400"}, {})]
    with pytest.raises(DoppelError, match=r"24\.0 hours"):
        fetch(config, x, clock)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("status", "content", "error", "says"),
    [
        (401, {"title": "Unauthorized"}, UserError, "rejects the token in X_BEARER_TOKEN"),
        (403, {"detail": "not in a\nproject"}, UserError, r"403: not in a project"),
        (
            402,
            {"title": "CreditsDepleted"},
            DoppelError,
            r"quota .* is used up \(402: CreditsDepleted\)",
        ),
        (429, {"title": "UsageCapExceeded", "type": "x/usage-capped"}, DoppelError, r"used up \(429"),
        (400, {"detail": "bad ids"}, DoppelError, r"rejects the request \(400: bad ids\)"),
        (302, "", DoppelError, r"rejects the request \(302"),
        (404, "<html>", DoppelError, r"rejects the request \(404"),
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
    with pytest.raises(DoppelError, match="X does not respond"):
        fetch(config, x, clock)
    assert clock.slept == [2.0, 4.0, 8.0, 16.0]
    assert not parents_file(config.data_dir).exists()


def test_what_may_come_back_is_not_remembered_as_gone(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "coffee", 7), answer(41, "tea", 8), answer(42, "milk", 9))
    problem = "https://api.twitter.com/2/problems/"
    errors = [
        {"resource_id": "7", "resource_type": "tweet", "type": problem + "operational-disconnect"},
        {"resource_id": "3003", "resource_type": "user", "type": problem + "resource-not-found"},
        {"resource_id": "8", "resource_type": "tweet", "type": problem + "not-authorized-for-resource", "title": "No"},
    ]
    x.script = [(200, {}, {"errors": errors})]
    assert fetch(config, x) == FetchResult(asked=3, found=0, gone=1)
    assert [line["id"] for line in lines(config)] == ["8"]
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
    others = {turn.speaker for session in sessions_of(tmp_path) for turn in session.turns if not turn.is_mine}
    assert others == {pseudonym("twitter", "3003")}


def test_posts_of_the_owners_own_are_not_kept_as_those_of_a_stranger(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "and another thing", 7))
    x.posts["7"] = {"text": "one thing", "author_id": OWN_ID}
    assert fetch(config, x) == FetchResult(asked=1, found=0, gone=1)
    assert lines(config) == [{"id": "7", "platform": "twitter", "gone": "your own"}]
    assert missing_parents(config) == []


def test_what_a_forgotten_person_wrote_is_not_kept_and_not_asked_for_again(tmp_path: Path, x: FakeX) -> None:
    config = configured(tmp_path, answer(40, "coffee", 7), answer(41, "mine alone", 6), tweet(43, "hello"))
    x.posts = {"7": {"text": "tea from tom?"}, "6": {"text": "from ana", "author_id": "4004"}}
    fetch(config, x)
    build(tmp_path, "archive", privacy={"scrub": False})
    with parents_file(config.data_dir).open("ab") as file:
        file.write(b'{"id": "5", "auth')
    person = find_person(config, [DataSet(config)], "twitter:3003")
    assert [record["text"] for record in DataSet(config).export(person) if record["type"] == "fetched post"] == [
        "tea from tom?"
    ]
    forget_accounts(config.data_dir, person.name, person.accounts)
    assert "tom" not in parents_file(config.data_dir).read_text(encoding="utf-8")
    *whole, cut = parents_file(config.data_dir).read_text(encoding="utf-8").splitlines()
    assert {record["id"]: record.get("gone", record.get("text")) for record in map(json.loads, whole)} == {
        "7": "forgotten",
        "6": "from ana",
    }
    assert cut == '{"id": "5", "auth'
    assert missing_parents(config) == []
    write_folder(tmp_path / "archive" / "x", twitter_files(tweets=[answer(44, "again", 8)]))
    x.posts["8"] = {"text": "more of tom's"}
    fetch(config, x)
    assert lines(config)[-1] == {"id": "8", "platform": "twitter", "gone": "forgotten"}


def test_somebody_who_only_wrote_a_fetched_post_can_be_forgotten(tmp_path: Path) -> None:
    config = parse_config({}, tmp_path / "config.yaml")
    path = parents_file(config.data_dir)
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"id": "7", "author": "3003", "text": "from tom"}\n{"id": "8", "gone": "deleted"}\n[]\n{"id', "utf-8"
    )
    assert [one.account for one in DataSet(config).accounts()] == [Account("twitter", "3003")]
    person = find_person(config, [DataSet(config)], "3003")
    assert DataSet(config).erase(person).records == 0
    assert "tom" not in path.read_text(encoding="utf-8")
    assert list(DataSet(config).accounts()) == []

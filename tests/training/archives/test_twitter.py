"""The Twitter archive."""

import html
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.exports import (
    OWN_ID,
    conversation,
    direct_message,
    read_all,
    tweet,
    twitter_files,
    write_folder,
    write_zip,
)
from training.archives.message import Message
from training.archives.twitter.archive import TwitterReader
from training.archives.twitter.tweets import direct_text, parse_time, parse_tweet

TWEETS = [tweet(1, "good morning"), tweet(2, "早上好")]


def entity(text: str, part: str, **more: Any) -> dict[str, Any]:
    start = text.index(part)
    return {"indices": [str(start), str(start + len(part))], **more}


def url(text: str, short: str, expanded: str) -> dict[str, Any]:
    return entity(text, short, url=short, expanded_url=expanded)


def read(tmp_path: Path, **records: Any) -> list[Message]:
    messages, bad = read_all(write_folder(tmp_path / "archive", twitter_files(**records)))
    assert bad == []
    return messages


def read_message(tmp_path: Path, text: str, **more: Any) -> Message:
    (message,) = read(tmp_path, tweets=[tweet(1, text, **more)])
    return message


@pytest.mark.parametrize("kind", ["folder", "data folder", "zip", "nested zip", "zip in a folder", "zip in a zip"])
def test_wherever_the_archive_lies(tmp_path: Path, kind: str) -> None:
    files = twitter_files(tweets=TWEETS)
    if kind == "folder":
        path = write_folder(tmp_path / "twitter-2024", files)
    elif kind == "data folder":
        path = write_folder(tmp_path / "twitter-2024", files) / "data"
    elif kind == "zip":
        path = write_zip(tmp_path / "t.zip", files)
    elif kind == "nested zip":
        path = write_zip(tmp_path / "t.zip", files, "x/twitter/")
    elif kind == "zip in a folder":
        path = write_zip(tmp_path / "archive" / "t.zip", files, "x/").parent
    else:
        inner = write_zip(tmp_path / "inner.zip", files)
        path = tmp_path / "outer" / "t.zip"
        write_zip(path, {})
        import zipfile

        with zipfile.ZipFile(path, "a") as archive:
            archive.write(inner, "export/inner.zip")
    messages, bad = read_all(path)
    assert [message.text for message in messages] == ["good morning", "早上好"]
    assert bad == []


def test_a_tweet(tmp_path: Path) -> None:
    message = read(tmp_path, tweets=TWEETS)[0]
    assert message.id == "1"
    assert message.kind == "post"
    assert message.sender == OWN_ID
    assert message.sender_name == "mara_l"
    assert message.is_owner is True
    assert message.sent_at == datetime(2018, 10, 10, 0, 1, tzinfo=UTC)


def test_parts_old_names_and_communities_are_found(tmp_path: Path) -> None:
    files = twitter_files(tweet=[tweet(1, "old name")], community_tweet=[tweet(3, "community")])
    files["data/tweets-part1.js"] = f"window.YTD.tweets.part1 = {json.dumps([tweet(2, 'a part')])}"
    messages, _ = read_all(write_folder(tmp_path / "archive", files))
    assert sorted(message.text for message in messages) == ["a part", "community", "old name"]


def test_archives_without_the_wrapper_and_without_a_manifest(tmp_path: Path) -> None:
    files = twitter_files(tweet=[tweet(1, "flat")["tweet"]])
    del files["data/manifest.js"]
    messages, bad = read_all(write_folder(tmp_path / "archive", files))
    assert [message.text for message in messages] == ["flat"]
    assert bad == []


def test_a_part_that_the_manifest_lists_and_that_is_missing_is_reported(tmp_path: Path) -> None:
    files = twitter_files(tweets=TWEETS, note_tweet=[])
    del files["data/note-tweet.js"]
    messages, bad = read_all(write_folder(tmp_path / "archive", files))
    assert len(messages) == 2
    assert [(record.position, record.reason) for record in bad] == [
        ("note-tweet.js", "listed in the manifest but missing")
    ]


def test_indices_are_code_points_of_the_escaped_text(tmp_path: Path) -> None:
    text = "😀 R&amp;D &lt;3 https://t.co/aaaaaaaaaa 好"
    links = [url(text, "https://t.co/aaaaaaaaaa", "https://example.org/?a=1&b=2")]
    assert read_message(tmp_path, text, entities={"urls": links}).text == "😀 R&D <3 https://example.org/?a=1&b=2 好"


def test_media_links_are_gone(tmp_path: Path) -> None:
    text = "look &gt; https://t.co/mmmmmmmmmm"
    media = [entity(text, "https://t.co/mmmmmmmmmm")]
    message = read_message(tmp_path, text, entities={"media": media}, extended_entities={"media": media * 2})
    assert (message.text, message.mark) == ("look >", "media")


def test_replies_lose_the_mentions_in_front(tmp_path: Path) -> None:
    text = "@tom @ana_b @gone no, @tom was right"
    mentions = [entity(text, "@tom"), entity(text, "@ana_b"), {"indices": ["22", "26"]}]
    message = read_message(
        tmp_path,
        text,
        in_reply_to_status_id_str="77",
        in_reply_to_user_id_str="5",  # no screen name: it may be missing
        entities={"user_mentions": mentions},
    )
    assert (message.kind, message.reply_to, message.text) == ("reply", "77", "no, @tom was right")


def test_a_user_without_a_tweet_is_a_mention(tmp_path: Path) -> None:
    message = read_message(tmp_path, "@tom hello", in_reply_to_user_id_str="5", in_reply_to_screen_name="tom")
    assert (message.kind, message.reply_to, message.text) == ("reply", None, "@tom hello")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("@tom look at this", "reply"),
        (".@tom says it best", "reply"),
        ("@tom @ana both of you", "reply"),
        ("hello @tom", "post"),
        ("@5pm at the lake", "post"),
        ("@ home", "post"),
        ("tea.", "post"),
    ],
)
def test_a_tweet_that_speaks_to_somebody_opens_nothing(tmp_path: Path, text: str, kind: str) -> None:
    message = read_message(tmp_path, text)
    assert (message.kind, message.reply_to, message.text) == (kind, None, text)


@pytest.mark.parametrize("site", ["https://twitter.com", "https://x.com", "https://mobile.twitter.com"])
def test_quotes_show_as_a_link_to_a_tweet(tmp_path: Path, site: str) -> None:
    text = "so true https://t.co/qqqqqqqqqq"
    links = [url(text, "https://t.co/qqqqqqqqqq", f"{site}/ana/status/99")]
    message = read_message(tmp_path, text, entities={"urls": links})
    assert (message.kind, message.text) == ("quote", "so true")


def test_quotes_that_say_so_and_links_alone(tmp_path: Path) -> None:
    assert read_message(tmp_path, "so true", quoted_status_id_str="99").kind == "quote"
    text = "https://t.co/qqqqqqqqqq"
    links = [url(text, text, "https://twitter.com/ana/status/99")]
    assert read_message(tmp_path, text, entities={"urls": links}).text == "https://twitter.com/ana/status/99"


def test_retweets_are_told_by_their_beginning(tmp_path: Path) -> None:
    assert read_message(tmp_path, "RT @ana: what she said", retweeted=False).mark == "retweet"


def test_only_the_last_edit_counts(tmp_path: Path) -> None:
    first = tweet(10, "teh", edit_info={"initial": {"editTweetIds": ["9", "10", "11"]}})
    last = tweet(
        11,
        "the",
        edit_info={"edit": {"initialTweetId": "10", "editControlInitial": {"editTweetIds": ["9", "10", "11"]}}},
    )
    untouched = tweet(12, "fine", edit_info={"initial": {"editTweetIds": ["12"]}})
    assert [message.mark for message in read(tmp_path, tweets=[first, last, untouched])] == ["superseded", "", ""]


def test_deleted_tweets_are_marked(tmp_path: Path) -> None:
    (message,) = read(tmp_path, deleted_tweets=[tweet(1, "oops")])
    assert message.mark == "deleted"


LONG = "It began on a day in March when nobody expected anything of the sort to happen at all, " * 5


def note(text: str, at: str = "2018-10-10T00:01:00.000Z", **core: Any) -> dict[str, Any]:
    return {"noteTweet": {"noteTweetId": "555", "createdAt": at, "core": {"text": text, "urls": [], **core}}}


def test_long_tweets_get_their_whole_text(tmp_path: Path) -> None:
    cut = tweet(1, html.escape(LONG[:270]) + "… https://t.co/nnnnnnnnnn")
    messages = read(tmp_path, tweets=[cut, tweet(2, "short")], note_tweet=[note(LONG)])
    assert [message.text for message in messages] == [LONG.strip(), "short"]


def test_long_replies_lose_the_mentions_and_links_are_expanded(tmp_path: Path) -> None:
    whole = f"@tom {LONG}https://t.co/llllllllll"
    cut = tweet(1, f"@tom {LONG[:250]}…", in_reply_to_status_id_str="7")
    links = [{"shortUrl": "https://t.co/llllllllll", "expandedUrl": "https://example.org"}]
    (message,) = read(tmp_path, tweets=[cut], note_tweet=[note(whole, urls=links)])
    assert message.text == LONG + "https://example.org"


def test_a_long_tweet_without_its_tweet_is_reported(tmp_path: Path) -> None:
    long_tweets = [note(LONG, at="2019-01-01T00:00:00.000Z")]
    path = write_folder(tmp_path / "a", twitter_files(tweets=[tweet(1, LONG[:270] + "…")], note_tweet=long_tweets))
    messages, bad = read_all(path)
    assert messages[0].text.endswith("…")
    assert [record.position for record in bad] == ["record 1"]


def test_direct_messages(tmp_path: Path) -> None:
    text = "see https://t.co/uuuuuuuuuu &amp; https://t.co/mmmmmmmmmm"
    answer = direct_message(
        2,
        OWN_ID,
        text,
        "2018-10-10T10:00:05.250Z",
        urls=[{"url": "https://t.co/uuuuuuuuuu", "expanded": "https://example.org"}],
        mediaUrls=["https://ton.example/1.jpg"],
    )
    question = direct_message(1, "2002", "and?", "2018-10-10T10:00:00.000Z")
    messages = read(tmp_path, direct_messages=[conversation(f"{OWN_ID}-2002", answer, question)])
    assert [(message.kind, message.chat, message.is_owner) for message in messages] == [
        ("dm", f"{OWN_ID}-2002", True),
        ("dm", f"{OWN_ID}-2002", False),
    ]
    assert messages[0].text == "see https://example.org &"
    assert messages[0].mark == "media"
    assert messages[0].sent_at == datetime(2018, 10, 10, 10, 0, 5, 250_000, tzinfo=UTC)


def test_groups_and_their_events(tmp_path: Path) -> None:
    at = "2018-10-10T10:00:00.000Z"
    events = [
        direct_message(3, OWN_ID, "hi all", at),
        {"joinConversation": {"initiatingUserId": "2002", "participantsSnapshot": [], "createdAt": at}},
        {"conversationNameUpdate": {"initiatingUserId": "2002", "name": "Chess", "createdAt": at}},
        {"welcomeMessageCreate": {"id": "4", "senderId": "3003", "text": "Welcome!", "createdAt": at}},
    ]
    messages = read(tmp_path, direct_messages_group=[conversation("777", *events)])
    assert [message.mark for message in messages] == ["", "service", "service", "bot"]
    assert {message.kind for message in messages} == {"group"}
    assert len({message.id for message in messages}) == 4


def test_direct_messages_of_nobody_known(tmp_path: Path) -> None:
    events = [direct_message(1, OWN_ID, "hi", "2018-10-10T10:00:00.000Z")]
    files = twitter_files(tweets=TWEETS, direct_messages=[conversation(f"{OWN_ID}-2002", *events)])
    del files["data/account.js"], files["data/manifest.js"]
    messages, bad = read_all(write_folder(tmp_path / "archive", files))
    assert [message.is_owner for message in messages] == [True, True, None]
    assert "persona.me" in bad[0].reason


def test_bad_records_are_counted_and_named(tmp_path: Path) -> None:
    records = [tweet(1, "a"), {"tweet": {"id_str": "2"}}, tweet(3, "c", created_at="Wed Foo 10 1"), 7, tweet(5, "e")]
    events = [{"messageCreate": {"id": "1"}}, direct_message(2, OWN_ID, "hi", "2018-10-10T10:00:00.000Z")]
    files = twitter_files(tweets=records, direct_messages=[conversation(f"{OWN_ID}-2002", *events)])
    messages, bad = read_all(write_folder(tmp_path / "archive", files))
    assert [message.text for message in messages] == ["a", "e", "hi"]
    assert [(record.file.rpartition("/")[2], record.position) for record in bad] == [
        ("tweets.js", "record 2"),
        ("tweets.js", "record 3"),
        ("tweets.js", "record 4"),
        ("direct-messages.js", "conversation 1, message 1"),
    ]


def test_a_cut_off_file_keeps_what_came_before(tmp_path: Path) -> None:
    files = twitter_files(tweets=TWEETS)
    files["data/tweets.js"] = files["data/tweets.js"][:-50]
    messages, bad = read_all(write_folder(tmp_path / "archive", files))
    assert [message.text for message in messages] == ["good morning"]
    assert len(bad) == 1


@given(st.text(alphabet="a&<>😀好 @", max_size=20), st.text(alphabet="b&<>😀 好", max_size=20))
def test_links_are_spliced_wherever_they_stand(before: str, after: str) -> None:
    raw = f"{html.escape(before)}https://t.co/x{html.escape(after)}"
    links = [url(raw, "https://t.co/x", "<LINK>")]
    record = tweet(1, raw, entities={"urls": links})["tweet"]
    assert parse_tweet(record).text == html.unescape(f"{html.escape(before)}<LINK>{html.escape(after)}").strip()


@given(st.datetimes(min_value=datetime(2006, 3, 21), max_value=datetime(2040, 1, 1)))  # noqa: DTZ001
def test_times_are_read_without_the_locale(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_time(moment.strftime("%a %b %d %H:%M:%S +0000 %Y")) == moment
    assert parse_time(moment.isoformat()) == moment
    assert parse_time("Wed Oct 10 20:19:24 -0330 2018") == datetime(2018, 10, 10, 23, 49, 24, tzinfo=UTC)


def test_links_keep_what_looks_like_a_sign_in_them(tmp_path: Path) -> None:
    full, text = "https://example.org/?a=1&copy=2", "R&amp;D https://t.co/aaaaaaaaaa"
    links = [url(text, "https://t.co/aaaaaaaaaa", full)]
    assert read_message(tmp_path, text, entities={"urls": links}).text == f"R&D {full}"
    content = {"text": text, "urls": [{"url": "https://t.co/aaaaaaaaaa", "expanded": full}]}
    assert direct_text(content) == f"R&D {full}"


def test_links_are_found_without_indices_and_behind_wrong_ones(tmp_path: Path) -> None:
    text = "😀 see https://t.co/aaaaaaaaaa now"
    link = {"url": "https://t.co/aaaaaaaaaa", "expanded_url": "https://example.org/"}
    for indices in ({}, {"indices": ["7", "30"]}, {"indices": ["90", "113"]}):
        assert (
            read_message(tmp_path, text, entities={"urls": [{**link, **indices}]}).text
            == "😀 see https://example.org/ now"
        )
    assert read_message(tmp_path, "no link", entities={"urls": [link]}).text == "no link"


def test_a_quote_says_which_tweet_it_quotes(tmp_path: Path) -> None:
    text = "https://t.co/aaaaaaaaaa so true https://t.co/qqqqqqqqqq"
    links = [
        url(text, "https://t.co/aaaaaaaaaa", "https://x.com/ana/status/98"),
        url(text, "https://t.co/qqqqqqqqqq", "https://x.com/ana/status/99"),
    ]
    assert read_message(tmp_path, text, entities={"urls": links}).reply_to == "99"
    assert read_message(tmp_path, text, entities={"urls": links}, in_reply_to_status_id_str="5").reply_to == "5"


def test_reactions_to_direct_messages_are_the_signs_that_the_site_shows(tmp_path: Path) -> None:
    stamp = "2020-10-10T10:10:10.000Z"
    given = [
        {"senderId": OWN_ID, "reactionKey": "funny"},
        {"senderId": "3003", "reactionKey": "🥳"},
        {"senderId": "4004", "reactionKey": "unheard-of"},
    ]
    broken = direct_message(3, "2002", "odd", stamp, reactions=[{"reactionKey": "like"}])
    talk = conversation(f"{OWN_ID}-2002", direct_message(2, "2002", "tea?", stamp, reactions=given), broken)
    write_folder(tmp_path / "x", twitter_files(direct_messages=[talk]))
    messages, bad = read_all(tmp_path / "x", [TwitterReader()])
    assert [(message.sender, message.is_owner, message.mark, message.text) for message in messages] == [
        ("2002", False, "", "tea?"),
        (OWN_ID, True, "reaction", "😂"),
        ("3003", False, "reaction", "🥳"),
        ("2002", False, "", "odd"),
    ]
    assert {message.reply_to for message in messages[1:3]} == {"2"}
    assert len(bad) == 1


def test_an_archive_of_before_2019_has_a_file_a_month(tmp_path: Path) -> None:
    def old(number: int, text: str, **more: Any) -> dict[str, Any]:
        entities = {"user_mentions": [], "media": [], "hashtags": [], "urls": []}
        clock = f"2017-0{number}-31 16:17:02 +0000"
        return {"id_str": str(number), "id": number, "text": text, "created_at": clock, "entities": entities, **more}

    months = {
        f"data/js/tweets/2017_0{number}.js": f"Grailbird.data.tweets_2017_0{number} = \n {json.dumps([tweet])}"
        for number, tweet in ((1, old(1, "tea &amp; cake")), (3, old(3, "and more", in_reply_to_status_id_str="1")))
    }
    files = {
        **months,
        "data/js/user_details.js": 'var user_details =  {"screen_name": "mara_l", "id": "1001", "full_name": "Mara"}',
        "data/js/tweet_index.js": "var tweet_index = []",
        "js/application.js": "x",
        "tweets.csv": '"tweet_id","timestamp","text"\n',
    }
    messages, bad = read_all(write_zip(tmp_path / "old.zip", files, "1001_abc/"))
    assert bad == []
    assert [
        (message.text, message.kind, message.reply_to, message.sender, message.sender_name) for message in messages
    ] == [
        ("tea & cake", "post", None, "1001", "mara_l"),
        ("and more", "reply", "1", "1001", "mara_l"),
    ]
    assert messages[0].sent_at == datetime(2017, 1, 31, 16, 17, 2, tzinfo=UTC)

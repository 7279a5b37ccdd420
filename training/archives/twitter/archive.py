"""Reads the Twitter / X archive: tweets, long tweets, deleted tweets and direct messages in `data/*.js`.

The first line of every file says what it contains, so file names do not matter; the manifest is only used to report
missing files. Tweets of other people are not in the archive.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from doppel.i18n import tr
from doppel.transcript import pseudonym
from doppel.transcript.stickers import is_emoji
from training.archives.formats.archive_records import RECORD_ERRORS, array_records, open_json
from training.archives.formats.json_stream import JsonStream
from training.archives.formats.reactions import Reaction, reactions_to
from training.archives.message import Mark, Message
from training.archives.source_tree import SourceTree
from training.archives.twitter.tweets import LongTweets, Tweet, direct_text, parse_tweet

PLATFORM = "twitter"
TWEETS = "tweets"
"""Chat id of all tweets: replies among them make threads."""

_FIRST_LINE = re.compile(
    rb"^\s*(?:\xef\xbb\xbf)?\s*(?:window\.(?:YTD\.(?P<kind>\w+)\.part\d+|(?P<manifest>__THAR_CONFIG))"
    rb"|Grailbird\.data\.(?P<tweets>tweets)_\d+_\d+|var (?P<user>user_details))\s*="
)
_FOLDERS = ("", "data/", "data/js/", "data/js/tweets/")
"""Folders of scripts; the last two in archives until 2018, which had a file for each month."""
_TWEETS = ("tweet", "tweets", "community_tweet", "community_tweets")
_DELETED = ("deleted_tweets", "deleted_tweet")
_LONG = ("note_tweet", "note_tweets")
_DIRECT = ("direct_messages", "direct_message", "direct_messages_group", "direct_message_group")
_MANIFEST = "__THAR_CONFIG"
_USER = "user_details"
_READ_TYPES = ("account", *_TWEETS, *_DELETED, *_LONG, *_DIRECT)
_LARGEST_MANIFEST = 16 << 20
_REACTIONS = {
    "funny": "😂",
    "surprised": "😲",
    "sad": "😢",
    "like": "\u2764\ufe0f",
    "excited": "🔥",
    "agree": "👍",
    "disagree": "👎",
}


class TwitterReader:
    """Reads one archive: the folder that contains `data/`, or `data/` itself."""

    name = "twitter"
    accepts = "Twitter / X archive (zip or folder)"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether files here begin like those of the archive."""
        if tree.is_file:
            return _content_type(tree, tree.files()[0]) in _READ_TYPES
        return any(_content_type(tree, file) in (_MANIFEST, *_READ_TYPES) for file in _scripts(tree))

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Tweets (retweets and superseded edits marked), then direct messages with their events."""
        files: dict[str, list[str]] = {}
        for file in _scripts(tree) or tree.files():
            files.setdefault(_content_type(tree, file), []).append(file)
        for file in files.get(_MANIFEST, ()):
            _report_missing(tree, file)
        account = _account(tree, files)
        if not account.id and any(kind in files for kind in _DIRECT):
            tree.report_bad("account.js", "-", tr("missing; set `persona.me` to say which direct messages are yours"))
        yield from _tweets(tree, files, account)
        for kind in _DIRECT:
            for file in files.get(kind, ()):
                yield from _direct_messages(tree, file, account)


class _Account(msgspec.Struct, frozen=True):
    """The owner's account; the id is empty when account.js is missing."""

    id: str = ""
    name: str = ""


def _scripts(tree: SourceTree) -> list[str]:
    """The `.js` files in the archive's folders, or right here if this is `data/` itself."""
    if tree.is_file:
        return []
    return [file for folder in _FOLDERS for file in tree.files(folder) if file.lower().endswith(".js")]


def _content_type(tree: SourceTree, file: str) -> str:
    """What a file contains, by its first line; empty if it is not part of an archive."""
    match = _FIRST_LINE.match(tree.head(file, 200))
    return next(filter(None, match.groups())).decode() if match else ""


@contextmanager
def _open_script(tree: SourceTree, file: str) -> Iterator[JsonStream]:
    """Opens the JSON behind `window.… =`; damage outside of a record becomes one bad record."""
    with open_json(tree, file) as stream:
        stream.skip_past("=")
        yield stream


def _records(tree: SourceTree, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open_script(tree, file) as stream:
        for number, record in array_records(tree, file, stream):
            if isinstance(record, dict):
                yield number, record
            else:
                tree.report_bad(file, _position(number), tr("not a JSON object"))


@contextmanager
def _reporting_errors(tree: SourceTree, file: str, number: int) -> Iterator[None]:
    """Turns the exceptions of a malformed record into a bad record."""
    try:
        yield
    except RECORD_ERRORS as error:
        tree.report_bad(file, _position(number), error)


def _position(number: int) -> str:
    return tr("record {number}", number=number)


def _report_missing(tree: SourceTree, file: str) -> None:
    """Reports files that the manifest lists and that are not here: large archives come in several zips."""
    with tree.open(file) as opened:
        text = opened.read(_LARGEST_MANIFEST).decode("utf-8", "replace")
    try:
        types = json.loads(text.partition("=")[2])["dataTypes"]
        listed = [entry for part in types.values() for entry in part.get("files", ()) if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        tree.report_bad(file, tr("end of file"), tr("not a valid manifest"))
        return
    present = {path.rpartition("/")[2] for path in _scripts(tree)}
    for entry in listed:
        kind = str(entry.get("globalName", "")).split(".")
        name = str(entry.get("fileName", "")).rpartition("/")[2]
        if len(kind) > 1 and kind[1] in _READ_TYPES and name and name not in present:
            tree.report_bad(file, name, tr("listed in the manifest but missing"))


def _account(tree: SourceTree, files: dict[str, list[str]]) -> _Account:
    for file in files.get("account", ()):
        for number, record in _records(tree, file):
            with _reporting_errors(tree, file, number):
                account = record["account"]
                return _Account(str(account["accountId"]), str(account.get("username", "")))
    for file in files.get(_USER, ()):
        with _open_script(tree, file) as stream, _reporting_errors(tree, file, 1):
            user = stream.value()
            return _Account(str(user["id"]), str(user.get("screen_name", "")))
    return _Account()


def _tweets(tree: SourceTree, files: dict[str, list[str]], account: _Account) -> Iterator[Message]:
    long_tweets = LongTweets()
    for kind in _LONG:
        for file in files.get(kind, ()):
            for number, record in _records(tree, file):
                with _reporting_errors(tree, file, number):
                    long_tweets.add(record["noteTweet"], file, number)
    for kind in (*_TWEETS, *_DELETED):
        for file in files.get(kind, ()):
            for number, record in _records(tree, file):
                with _reporting_errors(tree, file, number):
                    # Archives before 2019 have the tweet itself, later ones {"tweet": …}.
                    tweet = parse_tweet(record.get("tweet", record))
                    text = long_tweets.take(tweet) or tweet.text
                    yield _tweet_message(tweet, text, account, deleted=kind in _DELETED, origin=f"{file}:{number}")
    for file, number in long_tweets.unused():
        tree.report_bad(file, _position(number), tr("long tweet without a matching tweet"))


def _tweet_message(tweet: Tweet, text: str, account: _Account, *, deleted: bool, origin: str) -> Message:
    mark = Mark.MEDIA if tweet.has_media else Mark.NONE
    if deleted:
        mark = Mark.DELETED
    elif tweet.is_retweet:
        mark = Mark.RETWEET
    elif tweet.is_superseded:
        mark = Mark.SUPERSEDED
    return Message(
        id=tweet.id,
        platform=PLATFORM,
        chat=TWEETS,
        kind=tweet.kind,
        sender=account.id or "owner",
        sender_name=account.name,
        sent_at=tweet.sent_at,
        text=text,
        is_owner=True,  # the archive has only its owner's tweets
        reply_to=tweet.reply_to,
        chat_name=TWEETS,
        mark=mark,
        origin=origin,
    )


def _direct_messages(tree: SourceTree, file: str, account: _Account) -> Iterator[Message]:
    """Streams event by event: a conversation may be larger than memory."""
    with _open_script(tree, file) as stream:
        for number in stream.elements():
            conversation = ""
            for _ in stream.members():
                if stream.peek() != "{":
                    stream.skip()
                    continue
                for key in stream.members():
                    if key == "conversationId":
                        conversation = str(stream.value())
                    elif key == "messages" and stream.peek() == "[":
                        yield from _DirectConversation(tree, file, number, conversation, account).read(stream)
                    else:
                        stream.skip()


class _DirectConversation:
    """One conversation of direct messages."""

    def __init__(self, tree: SourceTree, file: str, number: int, conversation: str, account: _Account) -> None:
        self.tree = tree
        self.file = file
        self.number = number
        self.id = conversation or f"{file}:{number}"
        self.account = account
        people = conversation.split("-")
        self.is_group = len(people) != 2
        others = [person for person in people if person != account.id]
        # The archive has no names of other people, so a chat is named by its contact's pseudonym in the transcript.
        self.name = (
            f"group {self.id}" if self.is_group else " ".join(pseudonym(PLATFORM, account_id) for account_id in others)
        )

    def read(self, stream: JsonStream) -> Iterator[Message]:
        """Messages and events, in the archive's order (newest first)."""

        def report_bad(number: int, reason: str | Exception) -> None:
            position = tr("conversation {conversation}, message {number}", conversation=self.number, number=number)
            self.tree.report_bad(self.file, position, reason)

        for number, record in stream.records(report_bad, stop_at='"conversationId"'):
            try:
                ((event, content),) = record.items()
                message = self._message(event, content, number)
            except RECORD_ERRORS as error:
                report_bad(number, error)
                continue
            yield message
            try:
                reactions = list(reactions_to(message, self._reactions(content), self._is_owner))
            except RECORD_ERRORS as error:
                report_bad(number, error)
            else:
                yield from reactions

    def _is_owner(self, account: str) -> bool | None:
        return account == self.account.id if self.account.id else None

    def _reactions(self, content: dict[str, Any]) -> Iterator[Reaction]:
        """The reactions; the archive has names for the emoji, but not for people."""
        for reaction in content.get("reactions") or ():
            sender, key = str(reaction["senderId"]), str(reaction.get("reactionKey") or "")
            name = self.account.name if sender == self.account.id else ""
            yield sender, name, _REACTIONS.get(key, key if is_emoji(key) else "")

    def _message(self, event: str, content: dict[str, Any], number: int) -> Message:
        is_text = event in ("messageCreate", "welcomeMessageCreate")
        sender = str(content["senderId"] if is_text else content.get("initiatingUserId", content.get("userIds", "")))
        text = direct_text(content) if is_text else ""
        own = self.account.id
        mark = Mark.MEDIA if content.get("mediaUrls") else Mark.NONE
        if event != "messageCreate":
            mark = Mark.BOT if is_text else Mark.SERVICE
        return Message(
            id=str(content["id"] if is_text else content.get("id", f"event-{number}")),
            platform=PLATFORM,
            chat=self.id,
            kind="group" if self.is_group else "dm",
            sender=sender,
            sender_name=self.account.name if sender == own else "",
            sent_at=datetime.fromisoformat(content["createdAt"]).astimezone(UTC),
            text=text,
            is_owner=self._is_owner(sender),
            chat_name=self.name,
            mark=mark,
            origin=f"{self.file}:{self.number}:{number}",
        )

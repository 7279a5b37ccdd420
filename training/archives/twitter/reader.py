"""The Twitter / X archive: tweets, long tweets, deleted tweets and direct messages in `data/*.js`.

Every file says in its first line what it holds, so parts are found whatever they are called and the manifest
is only asked which are missing. The tweets that others wrote are not in the archive; nothing is made up for them.
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
from training.archives.formats.json_stream import DamagedJSON, JsonStream
from training.archives.formats.reactions import Reaction, is_emoji, reactions_to
from training.archives.message import Message
from training.archives.source_tree import Tree
from training.archives.twitter.tweets import LongTweets, Tweet, direct_text, parse_tweet

PLATFORM = "twitter"
TWEETS = "tweets"
"""Chat id of all tweets: replies among them make the threads."""

_GLOBAL = re.compile(
    rb"^\s*(?:\xef\xbb\xbf)?\s*(?:window\.(?:YTD\.(?P<kind>\w+)\.part\d+|(?P<manifest>__THAR_CONFIG))"
    rb"|Grailbird\.data\.(?P<tweets>tweets)_\d+_\d+|var (?P<user>user_details))\s*="
)
_FOLDERS = ("", "data/", "data/js/", "data/js/tweets/")
"""Where scripts are; the last two in archives until 2018, which had a file a month."""
_TWEETS = ("tweet", "tweets", "community_tweet", "community_tweets")
_DELETED = ("deleted_tweets", "deleted_tweet")
_LONG = ("note_tweet", "note_tweets")
_DIRECT = ("direct_messages", "direct_message", "direct_messages_group", "direct_message_group")
_MANIFEST = "__THAR_CONFIG"
_USER = "user_details"
_WANTED = ("account", *_TWEETS, *_DELETED, *_LONG, *_DIRECT)
_LARGEST_MANIFEST = 16 << 20
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
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
    """Reads one archive: the folder that holds `data/`, or `data/` itself."""

    name = "twitter"
    accepts = "Twitter / X archive (zip or folder)"

    def sniff(self, tree: Tree) -> bool:
        """Whether there are files here that begin like those of the archive."""
        if tree.is_file:
            return _holds(tree, tree.files()[0]) in _WANTED
        return any(_holds(tree, file) in (_MANIFEST, *_WANTED) for file in _scripts(tree))

    def read(self, tree: Tree) -> Iterator[Message]:
        """Tweets (retweets and superseded edits marked), then direct messages with their events."""
        files: dict[str, list[str]] = {}
        for file in _scripts(tree) or tree.files():
            files.setdefault(_holds(tree, file), []).append(file)
        for file in files.get(_MANIFEST, ()):
            _report_missing(tree, file)
        account = _account(tree, files)
        if not account.id and any(kind in files for kind in _DIRECT):
            tree.bad("account.js", "-", tr("missing; set `persona.me` to say which direct messages are yours"))
        yield from _tweets(tree, files, account)
        for kind in _DIRECT:
            for file in files.get(kind, ()):
                yield from _direct_messages(tree, file, account)


class _Account(msgspec.Struct, frozen=True):
    """Whose archive it is; the id is empty when account.js is missing."""

    id: str = ""
    name: str = ""


def _scripts(tree: Tree) -> list[str]:
    """The `.js` files in the archive's folders or, when `data/` itself was handed over, right here."""
    if tree.is_file:
        return []
    return [file for folder in _FOLDERS for file in tree.files(folder) if file.lower().endswith(".js")]


def _holds(tree: Tree, file: str) -> str:
    match = _GLOBAL.match(tree.head(file, 200))
    return next(filter(None, match.groups())).decode() if match else ""


@contextmanager
def _stream(tree: Tree, file: str) -> Iterator[JsonStream]:
    """The JSON behind `window.… =`; damage outside of a record becomes one bad record."""
    with tree.open(file) as opened:
        stream = JsonStream(opened)
        try:
            stream.skip_past("=")
            yield stream
        except DamagedJSON as damage:
            if not stream.lost:
                tree.bad(file, tr("end of file"), str(damage))


def _records(tree: Tree, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with _stream(tree, file) as stream:
        for number, record in stream.records(lambda number, reason: tree.bad(file, _place(number), reason)):
            if isinstance(record, dict):
                yield number, record
            else:
                tree.bad(file, _place(number), tr("not a JSON object"))


@contextmanager
def _guarded(tree: Tree, file: str, number: int) -> Iterator[None]:
    """A record that makes no sense becomes a bad record."""
    try:
        yield
    except _MALFORMED as error:
        tree.bad(file, _place(number), error)


def _place(number: int) -> str:
    return tr("record {number}", number=number)


def _report_missing(tree: Tree, file: str) -> None:
    """Large archives come in several zips; says which parts of what we read are not here."""
    with tree.open(file) as opened:
        text = opened.read(_LARGEST_MANIFEST).decode("utf-8", "replace")
    try:
        types = json.loads(text.partition("=")[2])["dataTypes"]
        listed = [one for entry in types.values() for one in entry.get("files", ()) if isinstance(one, dict)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        tree.bad(file, tr("end of file"), tr("not a valid manifest"))
        return
    present = {path.rpartition("/")[2] for path in _scripts(tree)}
    for one in listed:
        kind = str(one.get("globalName", "")).split(".")
        name = str(one.get("fileName", "")).rpartition("/")[2]
        if len(kind) > 1 and kind[1] in _WANTED and name and name not in present:
            tree.bad(file, name, tr("listed in the manifest but missing"))


def _account(tree: Tree, files: dict[str, list[str]]) -> _Account:
    for file in files.get("account", ()):
        for number, record in _records(tree, file):
            with _guarded(tree, file, number):
                account = record["account"]
                return _Account(str(account["accountId"]), str(account.get("username", "")))
    for file in files.get(_USER, ()):
        with _stream(tree, file) as stream, _guarded(tree, file, 1):
            user = stream.value()
            return _Account(str(user["id"]), str(user.get("screen_name", "")))
    return _Account()


def _tweets(tree: Tree, files: dict[str, list[str]], account: _Account) -> Iterator[Message]:
    long_tweets = LongTweets()
    for kind in _LONG:
        for file in files.get(kind, ()):
            for number, record in _records(tree, file):
                with _guarded(tree, file, number):
                    long_tweets.add(record["noteTweet"], file, number)
    for kind in (*_TWEETS, *_DELETED):
        for file in files.get(kind, ()):
            for number, record in _records(tree, file):
                with _guarded(tree, file, number):
                    # Archives before 2019 have the tweet itself where later ones have {"tweet": …}.
                    tweet = parse_tweet(record.get("tweet", record))
                    text = long_tweets.take(tweet) or tweet.text
                    yield _tweet_message(tweet, text, account, deleted=kind in _DELETED, origin=f"{file}:{number}")
    for file, number in long_tweets.unused():
        tree.bad(file, _place(number), tr("long tweet without a matching tweet"))


def _tweet_message(tweet: Tweet, text: str, account: _Account, *, deleted: bool, origin: str) -> Message:
    mark = "deleted" if deleted else "retweet" if tweet.is_retweet else "superseded" if tweet.is_superseded else ""
    return Message(
        id=tweet.id,
        platform=PLATFORM,
        chat=TWEETS,
        kind=tweet.kind,
        sender=account.id or "owner",
        sender_name=account.name,
        sent_at=tweet.sent_at,
        text=text,
        is_owner=True,  # an archive holds its owner's tweets only
        reply_to=tweet.reply_to,
        chat_name=TWEETS,
        mark=mark or ("media" if tweet.has_media else ""),  # type: ignore[arg-type]
        origin=origin,
    )


def _direct_messages(tree: Tree, file: str, account: _Account) -> Iterator[Message]:
    """Walks conversation by conversation and event by event; a conversation may be larger than memory."""
    with _stream(tree, file) as stream:
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
                        yield from _Conversation(tree, file, number, conversation, account).read(stream)
                    else:
                        stream.skip()


class _Conversation:
    """One conversation of direct messages."""

    def __init__(self, tree: Tree, file: str, number: int, conversation: str, account: _Account) -> None:
        self.tree = tree
        self.file = file
        self.number = number
        self.id = conversation or f"{file}:{number}"
        self.account = account
        people = conversation.split("-")
        self.is_group = len(people) != 2
        others = [person for person in people if person != account.id]
        # The archive has no names of others, so a chat is called as its contact is in the transcript.
        self.name = f"group {self.id}" if self.is_group else " ".join(pseudonym(PLATFORM, one) for one in others)

    def read(self, stream: JsonStream) -> Iterator[Message]:
        """Messages and events, in the archive's order (newest first)."""

        def bad(number: int, reason: str | Exception) -> None:
            place = tr("conversation {conversation}, message {number}", conversation=self.number, number=number)
            self.tree.bad(self.file, place, reason)

        for number, record in stream.records(bad, fence='"conversationId"'):
            try:
                ((event, content),) = record.items()
                message = self._message(event, content, number)
            except _MALFORMED as error:
                bad(number, error)
                continue
            yield message
            try:
                reactions = list(reactions_to(message, self._reactions(content), self._is_owner))
            except _MALFORMED as error:
                bad(number, error)
            else:
                yield from reactions

    def _is_owner(self, account: str) -> bool | None:
        return account == self.account.id if self.account.id else None

    def _reactions(self, content: dict[str, Any]) -> Iterator[Reaction]:
        """Who reacted how; the archive has names for the signs, and none for people."""
        for one in content.get("reactions") or ():
            sender, key = str(one["senderId"]), str(one.get("reactionKey") or "")
            name = self.account.name if sender == self.account.id else ""
            yield sender, name, _REACTIONS.get(key, key if is_emoji(key) else "")

    def _message(self, event: str, content: dict[str, Any], number: int) -> Message:
        is_text = event in ("messageCreate", "welcomeMessageCreate")
        sender = str(content["senderId"] if is_text else content.get("initiatingUserId", content.get("userIds", "")))
        text = direct_text(content) if is_text else ""
        own = self.account.id
        mark = "" if event == "messageCreate" else "bot" if is_text else "service"
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
            mark=mark or ("media" if content.get("mediaUrls") else ""),  # type: ignore[arg-type]
            origin=f"{self.file}:{self.number}:{number}",
        )

"""Parses one tweet of a Twitter archive: its text as the author wrote it, and what sort of tweet it is.

The archive's text is HTML-escaped, has t.co links and leading mentions in replies, and cuts off long tweets. All of
that is undone here.
"""

import html
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec

from training.archives.formats.mentions import begins_with_mention
from training.archives.message import Kind

_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_STATUS = re.compile(r"^https?://(?:www\.|mobile\.)?(?:twitter|x)\.com/\w+/status(?:es)?/(\d+)", re.IGNORECASE)
_MENTION = re.compile(r"@\w{1,15}\s+")
_TCO = re.compile(r"https?://t\.co/\w+")
_CUT = re.compile(r"(?:…|\.\.\.)?\s*(?:https?://t\.co/\w*)?\s*$")
_JOIN_CHARACTERS = 60
"""Characters at the beginning of a long tweet that must match the tweet it belongs to."""


class Tweet(msgspec.Struct, frozen=True, kw_only=True):
    """A tweet with its text resolved.

    Attributes:
        id: its id.
        sent_at: UTC.
        text: links expanded, media links and the quoted tweet's link gone, no leading mentions in replies.
        kind: `post`, `reply` or `quote`; a tweet that begins with a mention is a reply, also without a parent.
        reply_to: id of the tweet that is replied to or quoted, by any author.
        is_retweet: the text is somebody else's.
        is_superseded: a later edit of it exists.
        has_media: pictures or video were attached.
    """

    id: str
    sent_at: datetime
    text: str
    kind: Kind
    reply_to: str | None
    is_retweet: bool
    is_superseded: bool
    has_media: bool


def parse_tweet(record: dict[str, Any]) -> Tweet:
    """Parses one record. Raises KeyError, TypeError, ValueError or AttributeError if it is malformed."""
    tweet_id = str(record.get("id_str") or record["id"])
    raw = record["full_text"] if "full_text" in record else record["text"]
    entities = record.get("entities") or {}
    media = [*(entities.get("media") or ()), *((record.get("extended_entities") or {}).get("media") or ())]
    # A user id without a tweet id is a mention: there is no parent.
    reply_to = record.get("in_reply_to_status_id_str") or record.get("in_reply_to_status_id")
    urls = entities.get("urls") or ()
    statuses = [(url, _STATUS.match(str(url.get("expanded_url") or ""))) for url in urls]
    quoted = [url for url, status in statuses if status]
    # The quoted tweet's link is the last one.
    quoted_id = record.get("quoted_status_id_str") or next(
        (status[1] for _, status in reversed(statuses) if status), None
    )
    is_retweet = raw.startswith("RT @")
    start = _mentions_end(raw, entities.get("user_mentions") or ()) if reply_to and not is_retweet else 0
    text = _resolve(raw, start, urls, media, dropped=quoted)
    if not text and quoted:  # only the link: keep it
        text = _resolve(raw, start, urls, media, dropped=())
    return Tweet(
        id=tweet_id,
        sent_at=parse_time(record["created_at"]),
        text=text,
        kind=_kind(raw, is_reply=bool(reply_to), is_quote=bool(quoted_id)),
        reply_to=str(reply_to or quoted_id) if reply_to or quoted_id else None,
        is_retweet=is_retweet,
        is_superseded=_last_edit(record) not in (None, tweet_id),
        has_media=bool(media),
    )


def _kind(raw: str, *, is_reply: bool, is_quote: bool) -> Kind:
    if is_reply or (begins_with_mention(raw) and not is_quote):
        return "reply"
    return "quote" if is_quote else "post"


def parse_time(text: str) -> datetime:
    """Parses `Wed Oct 10 20:19:24 +0000 2018` or ISO 8601 to UTC. `strptime` would depend on the user's locale."""
    parts = text.split()
    if len(parts) != 6:
        moment = datetime.fromisoformat(text.replace(" +", "+"))  # older archives: 2018-10-10 20:19:24 +0000
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    _, month, day, clock, offset, year = parts
    hour, minute, second = clock.split(":")
    shift = timedelta(hours=int(offset[:3]), minutes=int(offset[0] + offset[3:]))
    moment = datetime(
        int(year), _MONTHS.index(month) // 3 + 1, int(day), int(hour), int(minute), int(second), tzinfo=timezone(shift)
    )
    return moment.astimezone(UTC)


def direct_text(content: dict[str, Any]) -> str:
    """The text of a direct message, with links expanded and without the link of attached media."""
    text = html.unescape(str(content.get("text") or ""))  # before links are expanded, which may contain `&copy=1`
    for url in content.get("urls") or ():
        text = text.replace(str(url["url"]), str(url.get("expanded") or url["url"]))
    if content.get("mediaUrls"):
        text = _TCO.sub("", text)
    return text.strip()


class LongTweets:
    """Texts of long tweets, found by their time and beginning, because they do not have the ids of tweets."""

    def __init__(self) -> None:
        self._unmatched: dict[str, list[_LongTweet]] = {}

    def add(self, record: dict[str, Any], file: str, number: int) -> None:
        """Adds the content of one `noteTweet`. Raises KeyError, ValueError or TypeError."""
        core = record["core"]
        text = html.unescape(str(core["text"]))
        for url in core.get("urls") or ():
            short, full = url.get("shortUrl") or url.get("url"), url.get("expandedUrl") or url.get("expanded_url")
            if short and full:
                text = text.replace(str(short), str(full))
        text = text.strip()
        long_tweet = _LongTweet(text, parse_time(record["createdAt"]), file, number)
        self._unmatched.setdefault(_beginning(text), []).append(long_tweet)

    def take(self, tweet: Tweet) -> str | None:
        """The full text of a tweet that was cut off, or None. Every long tweet is used once."""
        if not self._unmatched:  # as in most archives
            return None
        beginning = _beginning(_CUT.sub("", tweet.text))
        if len(beginning) < _JOIN_CHARACTERS or beginning not in self._unmatched:
            return None
        candidates = self._unmatched[beginning]
        nearest = min(candidates, key=lambda one: abs((one.written_at - tweet.sent_at).total_seconds()))
        if abs((nearest.written_at - tweet.sent_at).total_seconds()) > 60:
            return None
        candidates.remove(nearest)
        mentions = _leading_mentions(nearest.text) if tweet.kind == "reply" and tweet.reply_to else 0
        return nearest.text[mentions:]

    def unused(self) -> list[tuple[str, int]]:
        """(file, record number) of the long tweets without a matching tweet."""
        return [(tweet.file, tweet.number) for long_tweets in self._unmatched.values() for tweet in long_tweets]


class _LongTweet(msgspec.Struct, frozen=True):
    """A long tweet and the position of its record."""

    text: str
    written_at: datetime
    file: str
    number: int


def _beginning(text: str) -> str:
    """The part that a long tweet and its cut-off tweet share, without links, mentions and spaces."""
    text = text[_leading_mentions(text) :]
    return re.sub(r"\s+", "", re.sub(r"https?://\S+", "", text))[:_JOIN_CHARACTERS]


def _leading_mentions(text: str) -> int:
    at = 0
    while match := _MENTION.match(text, at):
        at = match.end()
    return at


def _mentions_end(raw: str, mentions: Iterable[dict[str, Any]]) -> int:
    """Index at which a reply's own text begins: behind the mentions that Twitter adds."""
    spans = dict(_span(mention) for mention in mentions)
    at = 0
    while True:
        if spans.get(at, at) > at:
            at = spans[at]
        elif match := _MENTION.match(raw, at):  # deleted accounts have no entity
            at = match.end()
        else:
            return at
        while at < len(raw) and raw[at].isspace():
            at += 1


def _resolve(
    raw: str,
    start: int,
    urls: Iterable[dict[str, Any]],
    media: Iterable[dict[str, Any]],
    dropped: Iterable[dict[str, Any]],
) -> str:
    """Replaces t.co links by their targets. Indices count code points of the text while still escaped."""
    pieces = {_link_span(raw, url): str(url.get("expanded_url") or url.get("url") or "") for url in urls}
    pieces |= {_link_span(raw, link): "" for link in (*media, *dropped)}
    text, at = [], start
    for (begin, end), replacement in sorted(pieces.items()):
        if begin >= at and end > begin:
            text += [html.unescape(raw[at:begin]), replacement]
            at = end
    return "".join([*text, html.unescape(raw[at:])]).strip()


def _link_span(raw: str, link: dict[str, Any]) -> tuple[int, int]:
    """Start and end of a link: by its indices, or by searching where they are missing or wrong.

    An empty span if it is not found. Raises KeyError or ValueError.
    """
    short = str(link.get("url") or "")
    begin, end = _span(link) if link.get("indices") or not short else (0, 0)
    if short and raw[begin:end] != short and (position := raw.find(short)) >= 0:
        return position, position + len(short)
    return begin, end


def _span(entity: dict[str, Any]) -> tuple[int, int]:
    begin, end = entity["indices"]
    return int(begin), int(end)


def _last_edit(record: dict[str, Any]) -> str | None:
    """Id of the newest version of an edited tweet."""
    info = record.get("edit_info") or {}
    control = info.get("initial") or (info.get("edit") or {}).get("editControlInitial") or {}
    versions: Iterator[str] = (str(version) for version in control.get("editTweetIds") or ())
    return max(versions, key=int, default=None)

"""Reads Google Takeout: Chat (`Groups/<group>/messages.json`) and Hangouts (`Hangouts.json`).

Chat writes its times in the account's language; the common languages are supported.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from training.archives.formats.archive_records import array_records, as_object, load_json, messages_of, open_json
from training.archives.formats.json_outline import outline, sampled_objects
from training.archives.formats.json_stream import JsonStream
from training.archives.formats.reactions import reactions_to
from training.archives.message import Kind, Mark, Message
from training.archives.source_tree import SourceTree

_CHAT_HEAD = re.compile(rb'^\s*\{\s*"messages"\s*:\s*\[\s*\{\s*"creator"\s*:')
_HANGOUTS_HEAD = re.compile(
    rb'^\s*\{\s*(?:"continuation_end_timestamp"\s*:\s*"?\d+"?\s*,\s*)?"conversation(?:s|_state)"\s*:\s*\['
    rb'\s*(?:\]|$|\{\s*(?:$|"(?:conversation|response_header|events?)))'
)
_GROUPS_FOLDER, _USERS_FOLDER = "Groups/", "Users/"

# Beginnings of month names in the languages of Google; of two that match a word, the longer one counts.
_MONTH_STARTS = (
    "jan ene gen ian янв січ sty led oca tam ιαν",
    "feb fév fev фев лют lut úno şub hel φεβ",
    "mar mär már mrt maa мар бер bře μαρ",
    "apr avr abr ápr апр кві kwi dub nis huh απρ",
    "may mai maj máj mag mei мая май тра kvě tou μαΐ μαϊ",
    "jun jún juin giu iun июн чер cze červn haz kes ιουν",
    "jul júl juil lug iul июл лип lip červenec července tem hei ιουλ",
    "aug aoû ago agu авг сер sie srp ağu elo αυγ",
    "sep set szep сен вер wrz zář eyl syy σεπ",
    "oct okt ott out окт жов paź říj eki lok οκτ",
    "nov ноя лис lis kas marr νοε",
    "dec dez déc dic des дек гру gru pro ara jou δεκ",
)
_MONTHS = {start: number for number, starts in enumerate(_MONTH_STARTS, 1) for start in starts.split()}
_LONGEST_START = max(map(len, _MONTHS))
_NUMBERED_MONTH = re.compile(r"\btháng (\d{1,2})")
_CLOCK = re.compile(r"(\d{1,2})(?:[:.]|시 ?)(\d\d?)(?:(?:[:.]|분 ?)(\d\d?))?(?:\s*([ap])\.?\s?m\b)?", re.IGNORECASE)
_EAST_ASIAN_DATE = re.compile(r"(\d{4})\s?[年년]\s?(\d{1,2})\s?[月월]\s?(\d{1,2})")
_PM = re.compile("下午|晚上|午後|오후")
_AM = re.compile("上午|凌晨|早上|午前|오전")
_YEAR, _DAY, _WORD = re.compile(r"\b(\d{4})\b"), re.compile(r"\b(\d{1,2})\b"), re.compile(r"[^\W\d_]+")


class GoogleChatReader:
    """Reads the folder of Google Chat, which says who the owner is, or one group's file, or Hangouts' file."""

    name = "google-chat"
    accepts = "Google Takeout: Google Chat or Hangouts"

    def sniff(self, tree: SourceTree) -> bool:
        """Whether this folder has groups with messages, or this is one group's file or Hangouts'."""
        if not tree.is_file:
            return _GROUPS_FOLDER in tree.folders() and any(True for _ in _group_files(tree))
        return _is_group(tree, tree.files()[0]) or _is_hangouts(tree, tree.files()[0])

    def read(self, tree: SourceTree) -> Iterator[Message]:
        """Every message of every group, or of every conversation."""
        if not tree.is_file:
            owner = _owner(tree)
            for folder, file in _group_files(tree):
                yield from _group(tree, folder, file, owner)
        elif _is_group(tree, tree.files()[0]):
            yield from _group(tree, "", tree.files()[0], None)
        else:
            yield from _hangouts(tree, tree.files()[0])


def _group_files(tree: SourceTree) -> Iterator[tuple[str, str]]:
    for folder in tree.folders(_GROUPS_FOLDER):
        file = f"{folder}messages.json"
        if file in tree.files(folder) and _is_group(tree, file, is_in_groups=True):
            yield folder, file


def _is_group(tree: SourceTree, file: str, *, is_in_groups: bool = False) -> bool:
    """Whether a file is one group's. Its first message may be a deleted one, which has only ids and a date."""
    if _CHAT_HEAD.match(tree.head(file).removeprefix(b"\xef\xbb\xbf")):
        return True
    messages = _outline(tree, file).get("messages")
    if messages == []:
        return is_in_groups
    return any(
        {"topic_id", "message_id"} <= record.keys() or {"creator", "created_date"} <= record.keys()
        for record in sampled_objects(messages)
    )


def _outline(tree: SourceTree, file: str) -> Mapping[str, Any]:
    is_object = tree.head(file, 64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    return as_object(outline(tree, file)) if is_object else {}


def _is_hangouts(tree: SourceTree, file: str) -> bool:
    """Whether a file is Hangouts'."""
    if _HANGOUTS_HEAD.match(tree.head(file).removeprefix(b"\xef\xbb\xbf")):
        return True
    content = _outline(tree, file)
    records = sampled_objects(content.get("conversations")) + sampled_objects(content.get("conversation_state"))
    return any(
        isinstance(outer.get("events", outer.get("event")), list)
        for record in records
        for outer in (record, as_object(record.get("conversation_state")))
        if outer
    )


def _owner(tree: SourceTree) -> str | None:
    """The address of the owner, whose account is the only one in the users' folder."""
    for folder in tree.folders(_USERS_FOLDER) if _USERS_FOLDER in tree.folders() else ():
        file = f"{folder}user_info.json"
        if file in tree.files(folder) and (user := as_object(as_object(load_json(tree, file)).get("user"))):
            return str(user.get("email") or user.get("name") or "") or None
    return None


def _group(tree: SourceTree, folder: str, file: str, owner: str | None) -> Iterator[Message]:
    about = (
        as_object(load_json(tree, f"{folder}group_info.json"))
        if f"{folder}group_info.json" in tree.files(folder)
        else {}
    )
    members = about.get("members")
    count = len(members) if isinstance(members, list) else 0
    chat = folder.removeprefix(_GROUPS_FOLDER).removesuffix("/") or tree.label
    is_space = chat.startswith("Space ")  # where two may be alone, too
    kind: Kind = "dm" if (count == 2 and not is_space) or chat.startswith("DM ") else "group"

    def convert(record: Mapping[str, Any], origin: str) -> Message:
        # What is left of a deleted message may have no writer, text or time of writing.
        is_deleted = str(record.get("message_state")) == "DELETED"
        creator = as_object(record.get("creator") if is_deleted else record["creator"])
        sender = str(creator.get("email") or (creator.get("name", "") if is_deleted else creator["name"]))
        created = str(record.get("created_date") or (record["deleted_date"] if is_deleted else record["created_date"]))
        name = str(creator.get("name") or sender)
        quoted = as_object(record.get("quoted_message_metadata"))
        replied_to = as_object(quoted.get("quoted_message_id") or quoted).get("message_id")
        return Message(
            id=str(record.get("message_id") or created + sender),
            platform="google-chat",
            chat=chat,
            kind=kind,
            sender=sender,
            sender_name=name,
            sent_at=parse_time(created),
            text=str(record.get("text") or ""),
            is_owner=None if owner is None and sender else sender == owner,
            reply_to=None if replied_to is None else str(replied_to),
            thread=_thread(str(record.get("message_id") or "")),
            chat_name=str(about.get("name") or chat),
            mark=_chat_mark(record, creator),
            is_one_sided=count == 1 and kind == "dm",
            origin=origin,
        )

    def reactions(record: Mapping[str, Any], message: Message) -> Iterator[Message]:
        people = [
            (str(email), str(email), str(as_object(reaction.get("emoji")).get("unicode") or ""))
            for reaction in record.get("reactions") or ()
            for email in reaction.get("reactor_emails") or ()
        ]
        yield from reactions_to(message, people, lambda account: None if owner is None else account == owner)

    with open_json(tree, file) as stream:
        for key in stream.members():
            if key == "messages" and stream.peek() == "[":
                yield from messages_of(tree, file, array_records(tree, file, stream), convert, reactions)
            else:
                stream.skip()


def _thread(message_id: str) -> str | None:
    """The id of the first message of a thread, from the id of a reply in it: `space/topic/message`.

    Every message has a topic. That of a message which is no reply is named after the message.
    """
    space, _, rest = message_id.partition("/")
    topic, _, message = rest.partition("/")
    return f"{space}/{topic}/{topic}" if message and message != topic else None


def _chat_mark(record: Mapping[str, Any], creator: Mapping[str, Any]) -> Mark:
    if str(record.get("message_state")) == "DELETED":
        return Mark.DELETED
    if str(creator.get("user_type", "Human")).lower() == "bot":
        return Mark.BOT
    return Mark.MEDIA if record.get("attached_files") else Mark.NONE


def parse_time(text: str) -> datetime:
    """A time in the form of Chat, such as `Tuesday, March 3, 2020 at 4:05:06 PM UTC`. Raises ValueError."""
    text = text.replace("\u202f", " ").replace("\xa0", " ")
    east_asian = _EAST_ASIAN_DATE.search(text)
    clock = _CLOCK.search(text, east_asian.end() if east_asian else 0)
    if clock is None:
        raise ValueError(f"not a time: {text}")
    hour, minute, second = (int(part or 0) for part in clock.groups()[:3])
    is_pm = (clock[4] or "").lower() == "p" or _PM.search(text) is not None
    if clock[4] or is_pm or _AM.search(text):
        hour = hour % 12 + 12 * is_pm
    if east_asian:
        year, month, day = map(int, east_asian.groups())
    else:
        date = text[: clock.start()]
        numbered = _NUMBERED_MONTH.search(date)
        months = [number for word in _WORD.findall(date.lower()) if (number := _month(word))]
        year_match, day_match = _YEAR.search(date), _DAY.search(date)
        if not (months or numbered) or year_match is None or day_match is None:
            raise ValueError(f"not a time: {text}")
        year, month, day = int(year_match[1]), int(numbered[1]) if numbered else months[-1], int(day_match[1])
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _month(word: str) -> int | None:
    """The month that a word names in any language. Weekdays may look like one, but come before the month."""
    sizes = range(min(len(word), _LONGEST_START), 2, -1)
    return next((_MONTHS[word[:size]] for size in sizes if word[:size] in _MONTHS), None)


def _hangouts(tree: SourceTree, file: str) -> Iterator[Message]:
    with open_json(tree, file) as stream:
        for key in stream.members():
            if key in ("conversations", "conversation_state") and stream.peek() == "[":
                yield from _conversations(tree, file, stream)
            else:
                stream.skip()


def _conversations(tree: SourceTree, file: str, stream: JsonStream) -> Iterator[Message]:
    for number, record in array_records(tree, file, stream):
        outer = as_object(as_object(record).get("conversation_state")) or as_object(record)
        about = as_object(outer.get("conversation"))
        about = as_object(about.get("conversation")) or about
        events = outer.get("events") or outer.get("event") or []
        if isinstance(events, list):
            place = f"{file}:{number}"
            yield from messages_of(tree, place, enumerate(events, 1), _HangoutConversation(about, outer, tree.label))


class _HangoutConversation:
    """Turns the events of one Hangouts conversation into messages."""

    def __init__(self, about: Mapping[str, Any], outer: Mapping[str, Any], label: str) -> None:
        people = [as_object(person) for person in about.get("participant_data") or ()]
        self._names = {
            (account := _account_id(person.get("id"))): str(person.get("fallback_name") or account) for person in people
        }
        state = as_object(as_object(about.get("self_conversation_state")).get("self_read_state"))
        self._owner = _account_id(state.get("participant_id"))
        identity = as_object(outer.get("conversation_id")) or as_object(about.get("id"))
        inner = as_object(as_object(outer.get("conversation")).get("conversation_id"))
        self._chat = str(identity.get("id") or inner.get("id") or label)
        is_direct = about.get("type") == "STICKY_ONE_TO_ONE" or (len(people) == 2 and about.get("type") != "GROUP")
        self._kind: Kind = "dm" if is_direct else "group"
        others = [name for account, name in self._names.items() if account != self._owner]
        self._title = str(about.get("name") or ", ".join(others[:4]) or self._chat)

    def __call__(self, event: Mapping[str, Any], origin: str) -> Message:
        sender = _account_id(event["sender_id"])
        content = as_object(as_object(event.get("chat_message")).get("message_content"))
        parts = [as_object(part) for part in content.get("segment") or ()]
        text = "".join("\n" if part.get("type") == "LINE_BREAK" else str(part.get("text") or "") for part in parts)
        mark: Mark = Mark.MEDIA if content.get("attachment") else Mark.NONE
        return Message(
            id=str(event["event_id"]),
            platform="hangouts",
            chat=self._chat,
            kind=self._kind,
            sender=sender,
            sender_name=self._names.get(sender, sender),
            sent_at=datetime.fromtimestamp(int(event["timestamp"]) / 1e6, UTC),
            text=text,
            is_owner=sender == self._owner if self._owner else None,
            chat_name=self._title,
            mark=mark if "chat_message" in event else Mark.SERVICE,
            origin=origin,
        )


def _account_id(identity: Any) -> str:
    fields = as_object(identity)
    return str(fields.get("gaia_id") or fields.get("chat_id") or "")

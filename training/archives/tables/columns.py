"""Which column of a table holds what: as the owner names them, or guessed where the names are plain."""

import re
from collections.abc import Sequence

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr

_MAX_NAMED = 30
_BLANKS = re.compile(r"[\s_\-]+")

_NAMES: dict[str, tuple[str, ...]] = {
    "text": (
        *("text", "message", "content", "body", "tweet", "fulltext", "msg", "messagetext", "posttext", "commenttext"),
        *(
            "messagecontent",
            "comment",
            "内容",
            "正文",
            "消息",
            "消息内容",
            "文本",
            "推文",
            "聊天内容",
            "微博正文",
            "发言",
        ),
        *("訊息", "內容", "文字"),
    ),
    "time": (
        *("createdat", "timestamp", "datetime", "datecreated", "sentat", "time", "date", "created", "createtime"),
        *("createdtime", "createdutc", "publishedat", "published", "postedat", "posttime", "senttime", "datesent"),
        *("unixtime", "commentcreatetimestamp", "时间", "日期", "发送时间", "发布时间", "创建时间", "消息时间", "時間"),
    ),
    "id": (
        "id",
        "messageid",
        "msgid",
        "tweetid",
        "postid",
        "statusid",
        "idstr",
        "commentid",
        "消息id",
        "编号",
        "微博id",
    ),
    "sender": (
        *(
            "username",
            "sender",
            "author",
            "user",
            "from",
            "speaker",
            "sendername",
            "authorname",
            "screenname",
            "handle",
        ),
        *("fromname", "nickname", "name", "user.screenname", "user.username", "user.name", "author.username"),
        *(
            "author.name",
            "sender.name",
            "from.name",
            "发送者",
            "发送人",
            "发件人",
            "作者",
            "用户",
            "用户名",
            "昵称",
            "发言人",
        ),
    ),
    "chat": (
        *("chat", "channel", "conversation", "room", "thread", "chatid", "channelid", "conversationid", "threadid"),
        *(
            "chatname",
            "channelname",
            "roomname",
            "conversationtitle",
            "group",
            "groupname",
            "chat.name",
            "channel.name",
        ),
        *("聊天", "会话", "群", "群名", "群聊", "频道", "房间", "对话"),
    ),
    "reply_to": (
        *("replyto", "replytoid", "inreplyto", "inreplytoid", "inreplytostatusid", "inreplytostatusidstr"),
        *("replytomessageid", "parentid", "parent", "回复", "回复id"),
    ),
    "owner": ("isowner", "isme", "ismine", "fromme", "isself"),
    "platform": ("platform", "source"),
}
"""Names of the columns of each field, without blanks, the surest first."""

_SCRAPED_TWEETS = frozenset(("id", "conversation_id", "username", "tweet"))


class TableColumns(msgspec.Struct, frozen=True):
    """The columns of a table by what they hold; empty where there is none.

    Attributes:
        text, time: are always there.
        clock: the time of day, if `time` is only the day.
        id, sender, chat, reply_to: as in a message.
        owner: whether the owner wrote it.
        platform: where it was written.
        thread: the id of the post that a thread of posts begins with.
        is_plain: whether all columns of the table have names of this page.
    """

    text: str
    time: str
    clock: str = ""
    id: str = ""
    sender: str = ""
    chat: str = ""
    reply_to: str = ""
    owner: str = ""
    platform: str = ""
    thread: str = ""
    is_plain: bool = False


def guessed_columns(names: Sequence[str]) -> TableColumns | None:
    """The columns of a table with these column names; None if it is not plain which hold a text and a time."""
    plain = {_plain(name): name for name in reversed(names)}
    found = {
        field: next((plain[known] for known in known_names if known in plain), "")
        for field, known_names in _NAMES.items()
    }
    if not (found["text"] and found["time"]) or found["text"] == found["time"]:
        return None
    if _SCRAPED_TWEETS.issubset(names):
        replaced = {"text": "tweet", "sender": "username", "id": "id", "chat": "", "reply_to": "", "platform": ""}
        fields = {**found, **replaced, "thread": "conversation_id", "clock": _clock(found["time"], plain)}
        return msgspec.convert(fields, TableColumns)
    is_plain = _EVERY_NAME.issuperset(plain) and bool(found["sender"])
    return msgspec.convert({**found, "clock": _clock(found["time"], plain), "is_plain": is_plain}, TableColumns)


def named_columns(path: str, named: dict[str, str], names: Sequence[str]) -> TableColumns:
    """The columns that the owner named, and the guessed ones of those without a name.

    Args:
        path: of the table, for errors.
        named: column names by field; an empty one says that there is none.
        names: the columns there are.

    Raises:
        UserError: a named column is not there, or nobody says which hold the text and the time.
    """
    present = {name.strip().lower(): name for name in reversed(names)}
    for field, name in named.items():
        if name and name.strip().lower() not in present:
            raise UserError(
                tr(
                    "{path}: no column `{name}` for `{field}`; there are: {names}",
                    path=path,
                    name=name,
                    field=field,
                    names=list_names(names),
                )
            )
    chosen = {field: present[name.strip().lower()] if name else "" for field, name in named.items()}
    rest = [name for name in names if name not in chosen.values()]
    guessed = {
        field: next((name for known in known_names for name in rest if _plain(name) == known), "")
        for field, known_names in _NAMES.items()
        if field not in ("platform", "owner") or not named
    }
    columns = {**guessed, **chosen}
    for field in ("text", "time"):
        if not columns.get(field):
            raise UserError(
                tr(
                    "{path}: say which column holds the {field}, under `columns` in config.yaml; there are: {names}",
                    path=path,
                    field=field,
                    names=list_names(names),
                )
            )
    clock = "" if named.get("time") else _clock(columns["time"], {_plain(name): name for name in rest})
    return msgspec.convert({**columns, "clock": clock}, TableColumns)


def list_names(names: Sequence[str]) -> str:
    """The columns of a table, for people."""
    return ", ".join(name[:40] for name in names[:_MAX_NAMED]) + (" …" if len(names) > _MAX_NAMED else "")


def _clock(time: str, plain: dict[str, str]) -> str:
    """The column with the time of day beside one with the day."""
    return plain.get("time", plain.get("时间", "")) if _plain(time) in ("date", "日期") else ""


def _plain(name: str) -> str:
    return _BLANKS.sub("", name.strip().lower())


_EVERY_NAME = frozenset(name for names in _NAMES.values() for name in names)

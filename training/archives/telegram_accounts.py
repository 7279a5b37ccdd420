"""Accounts in Telegram Desktop's exports: their numbers in older versions, and whose export it is.

Until 2021 an account was written as one number, 2³² times its kind plus its id; since then as `user1`, with plain ids
in other places. An export without the owner's profile still shows whose it is: by the id of the saved messages, and in
any private chat by the one who is not its other side.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from training.archives.formats.archive_records import as_object
from training.archives.formats.json_stream import DamagedJSON, JsonStream, RepairedEscapes
from training.archives.formats.text_lines import utf8
from training.archives.source_tree import SourceTree

_KIND_SHIFT = 1 << 32
_USER_KIND = 1
_HEADER_KEYS = ("name", "type", "id")


def plain_account(account: object) -> str:
    """An account as newer exports write it, without `user`: `700111`, or `channel5` for a group or channel."""
    if isinstance(account, int) and not isinstance(account, bool) and account >= _KIND_SHIFT:
        kind, number = divmod(account, _KIND_SHIFT)
        return str(number) if kind == _USER_KIND else f"channel{number}"
    return str(account).removeprefix("user")


def plain_peer(peer: str) -> str:
    """The id of a chat in an older export, which may be written with its kind or without."""
    return str(int(peer) % _KIND_SHIFT) if peer.isdecimal() else peer


def has_old_accounts(account: object, date_unixtime: object) -> bool:
    """Whether a record is of an older version: newer ones write accounts as text, and also the time as a number.

    Ids of people themselves have exceeded 2³² since the end of 2021, so that the size of a number alone says nothing.
    """
    return isinstance(account, int) and not isinstance(account, bool) and not date_unixtime


class Survey(msgspec.Struct):
    """What a first pass found.

    Attributes:
        own_id: the owner's plain account, if the export shows it.
        headers: name, type and id of every chat with messages, in order.
    """

    own_id: str | None = None
    headers: list[dict[str, Any]] = msgspec.field(default_factory=list)


def survey_export(tree: SourceTree, file: str, *, stop_at_owner: bool = False) -> Survey:
    """Reads an export for whose it is and for the headers of its chats.

    Args:
        tree: the archive.
        file: its result.json.
        stop_at_owner: whether to end as soon as the owner is found; `headers` are incomplete then.
    """
    survey = Survey()
    # Damage is reported by the pass that reads the messages.
    with tree.for_survey().open(file) as opened, suppress(DamagedJSON, _OwnerFound):
        _Pass(JsonStream(RepairedEscapes(utf8(opened))), survey, stop_at_owner=stop_at_owner).read()
    return survey


class _OwnerFound(Exception):
    """Ends a pass."""


class _Pass:
    """The walk through one file."""

    def __init__(self, stream: JsonStream, survey: Survey, *, stop_at_owner: bool) -> None:
        self._stream = stream
        self._survey = survey
        self._stop_at_owner = stop_at_owner

    def read(self) -> None:
        """Reads an object that is a chat or an account."""
        stream, header, has_messages = self._stream, dict[str, Any](), False
        for key in stream.members():
            if key in _HEADER_KEYS:
                header[key] = stream.value()
            elif key == "messages" and stream.peek() == "[":
                has_messages = True
                self._survey.headers.append(header)
                self._read_messages(header)
            elif key in ("chats", "left_chats") and stream.peek() == "{":
                self._read_chats()
            elif key == "personal_information":
                self._found(as_object(stream.value()).get("user_id"))
            else:
                stream.skip()
        if has_messages and header.get("type") == "saved_messages":
            self._found(header.get("id"))

    def _read_chats(self) -> None:
        for key in self._stream.members():
            if key == "list" and self._stream.peek() == "[":
                for _ in self._stream.elements():
                    self.read()
            else:
                self._stream.skip()

    def _read_messages(self, header: Mapping[str, Any]) -> None:
        """Looks for the side of a private chat that is not the other person's, if the chat is known to be one."""
        peer = str(header.get("id", ""))
        for _, record in self._stream.records(lambda number, reason: None, stop_at='"messages"'):
            if header.get("type") != "personal_chat" or not peer or self._survey.own_id is not None:
                continue
            fields = as_object(record)
            account = fields.get("from_id", fields.get("actor_id"))
            if account is None:
                continue
            is_old = has_old_accounts(account, fields.get("date_unixtime"))
            sender = plain_account(account) if is_old else str(account).removeprefix("user")
            if sender.isdecimal() and sender != (plain_peer(peer) if is_old else peer):
                self._found(sender)

    def _found(self, account: object) -> None:
        if account:
            self._survey.own_id = self._survey.own_id or str(account)
            if self._stop_at_owner:
                raise _OwnerFound

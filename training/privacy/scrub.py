"""What of an archive must not reach the data set: messages that the owner excludes, and secrets within messages.

A secret is replaced by a made-up one of the same kind and shape, the same one every time, so the message stays natural
and nothing is lost but the secret. Finding them is `training.privacy.secrets`' business.
"""

import hmac
import os
import re
import secrets as randomness
from collections import Counter
from datetime import datetime, time
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

import msgspec

from doppel.config import ExcludeSettings, PrivateKind
from training.archives.message import Message
from training.privacy.names import Names
from training.privacy.personal_data import Form, Found, Kind
from training.privacy.secrets import find
from training.privacy.stand_ins import is_stand_in, plain_digits, stand_in

KEY = "scrub.key"
SCRUBBED = "scrubbed.jsonl"


class Exclusion:
    """Which messages the owner does not want in the data set at all.

    Args:
        rules: as written in config.yaml.
        zone: in which a day begins.
    """

    def __init__(self, rules: ExcludeSettings, zone: ZoneInfo) -> None:
        self._people = frozenset(one.casefold() for one in rules.people)
        self._chats = frozenset(one.casefold() for one in rules.chats)
        self._words = _any_word(rules.words)
        self._from = datetime.combine(rules.before, time(), zone) if rules.before else None
        self._until = datetime.combine(rules.after, time.max, zone) if rules.after else None
        self.is_empty = not (self._people or self._chats or self._words or self._from or self._until)

    def covers(self, message: Message) -> bool:
        """Whether the message is to be left out: for its writer, chat, words or day."""
        if self._from is not None and message.sent_at < self._from:
            return True
        if self._until is not None and message.sent_at > self._until:
            return True
        if self._people and not self._people.isdisjoint((message.sender.casefold(), message.sender_name.casefold())):
            return True
        if self._chats and not self._chats.isdisjoint((message.chat.casefold(), message.chat_name.casefold())):
            return True
        return self._words is not None and self._words.search(message.text) is not None


def _any_word(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds any of the words: whole ones, where a script has blanks between words."""
    if not words:
        return None
    parts = []
    for word in words:
        left = r"(?<![^\W_])" if word[0].isascii() and word[0].isalnum() else ""
        right = r"(?![^\W_])" if word[-1].isascii() and word[-1].isalnum() else ""
        # A Chinese character beside a Latin word is no part of it.
        wide = "[\u3040-\u30ff\u4e00-\u9fff]"
        left = left and rf"(?:{left}|(?<={wide}))"
        right = right and rf"(?:{right}|(?={wide}))"
        parts.append(left + re.escape(word) + right)
    return re.compile("|".join(parts), re.IGNORECASE)


class _Entry(msgspec.Struct, frozen=True):
    """One replaced secret, in scrubbed.jsonl."""

    origin: str
    kind: Kind
    digest: str


class Scrubber:
    """Replaces secrets, and writes down where, without the secrets.

    Args:
        folder: the data folder to be; the list and the key go there, once there is something to list.
        old: the data folder until now, whose key goes on, so that stand-ins stay the same.
        kinds: what to replace.
        names: who finds names of people; None leaves them.
    """

    def __init__(self, folder: Path, old: Path, kinds: tuple[PrivateKind, ...], names: Names | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._kinds = frozenset(kinds)
        self.names = names
        self._key = _old_key(old / KEY)
        self._list: BinaryIO | None = None
        self._encode = msgspec.json.Encoder().encode
        if self._key is not None:
            _write_key(folder / KEY, self._key)

    def scrub(self, text: str, origin: str) -> str:
        """The text with stand-ins for its secrets; `origin` says where it comes from."""
        return self.replaced(text, find(text, self._kinds), origin)

    def replaced(self, text: str, found: list[Found], origin: str) -> str:
        """The text with stand-ins for the secrets that `training.privacy.secrets.find` found, and for names."""
        if self.names is not None:
            found = self.names.added(text, found)
        if not found:
            return text
        parts: list[str] = []
        done = 0
        for one in found:
            secret = text[one.start : one.end]
            if is_stand_in(secret, one.form):
                continue
            digest = self._digest(one, secret)
            parts += (text[done : one.start], stand_in(secret, one.form, digest))
            done = one.end
            self._note(one, digest, origin)
        return "".join((*parts, text[done:]))

    def close(self) -> None:
        """Ends the list."""
        if self._list is not None:
            self._list.close()

    def _digest(self, one: Found, secret: str) -> bytes:
        if self._key is None:
            self._key = randomness.token_bytes(32)
            _write_key(self._folder / KEY, self._key)
        return hmac.digest(self._key, f"{one.form}\0{_same(secret, one.form)}".encode(), "sha256")

    def _note(self, one: Found, digest: bytes, origin: str) -> None:
        self.counts[one.kind] += 1
        if self._list is None:
            self._list = (self._folder / SCRUBBED).open("wb")
        hidden = origin
        for other in reversed(find(origin, self._kinds)):  # a chat's file may be named after a telephone number
            hidden = f"{hidden[: other.start]}…{hidden[other.end :]}"
        self._list.write(self._encode(_Entry(hidden, one.kind, digest.hex())) + b"\n")


def _old_key(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == 32 else None


def _write_key(path: Path, key: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key)


def _same(secret: str, form: Form) -> str:
    """What is alike in the ways to write the same secret."""
    if form in ("phone", "card", "number"):
        return plain_digits(secret)
    if form in ("email", "iban", "ipv6", "cn_id", "name"):
        return "".join(secret.split()).casefold()
    return secret

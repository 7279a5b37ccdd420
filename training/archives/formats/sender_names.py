"""Finds who wrote a line such as `Name: text`, where names and texts may contain the separator, too.

A name is what recurs: if everything that begins with `Team` goes on with `: Berlin: `, the name is `Team: Berlin`. But
somebody whose messages only sometimes begin with `note: ` is not called so.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable

import msgspec

MAX_NAME_LENGTH = 100
_MAX_CONTINUATIONS = 64
"""More different continuations of one beginning are texts, not names."""
_MAX_DEPTH = 4
"""Separators within a name."""

_MIN_COUNT, _MIN_COUNT_OF_WORD = 3, 8
"""So many messages must go on alike to make that a part of the name; if it begins like a plain word, more."""
_NOT_IN_FILE_NAMES = re.compile(r"[\W_]+")


class _Beginning(msgspec.Struct):
    """The messages that begin with the same text up to a separator.

    Attributes:
        count: their number.
        further: what the others go on with, up to the next separator; None if one has no other separator.
    """

    count: int = 0
    further: "dict[str, _Beginning] | None" = msgspec.field(default_factory=dict)


class NameSurvey:
    """Collects the beginnings of all messages of a file, then says what in them is the name.

    Args:
        separator: between a name and the text.
        known: names that occur elsewhere, as in the title of the chat.
        me: `persona.me`, where `platform:` may stand before a name.
    """

    def __init__(self, separator: str = ":", known: Iterable[str] = (), me: Iterable[str] = ()) -> None:
        self._separator = separator
        names = [*known, *(name for entry in me for name in (entry, entry.partition(":")[2]))]
        self._known = {file_name_key(name) for name in names if name.strip()}
        self._root: dict[str, _Beginning] = {}
        self._pattern = separator_pattern(separator)

    def add(self, text: str) -> None:
        """Takes a message: its first line is enough."""
        match = self._pattern.search(text, 0, MAX_NAME_LENGTH)
        if match is None:
            return
        start = match.start()
        key = text[:start]
        beginning = self._root.get(key)
        if beginning is None:
            beginning = self._root[key] = _Beginning()
        beginning.count += 1
        if beginning.further is not None:
            self._add_further(beginning, text, match.end(), _MAX_DEPTH)

    def _add_further(self, beginning: _Beginning, text: str, start: int, depth: int) -> None:
        further = beginning.further
        match = self._pattern.search(text, start, MAX_NAME_LENGTH) if depth else None
        if further is None or match is None or (beginning.count > 1 and not further):
            beginning.further = None
            return
        key = text[start : match.start()]
        longer = further.get(key)
        if longer is None:
            if len(further) >= _MAX_CONTINUATIONS:
                beginning.further = None
                return
            longer = further[key] = _Beginning()
        longer.count += 1
        if longer.further is not None:
            self._add_further(longer, text, match.end(), depth - 1)

    def names(self) -> dict[str, int]:
        """The names of the file, and how many messages begin with each."""
        names: dict[str, int] = {}
        for text, beginning in self._root.items():
            self._collect(text, beginning, names)
        return names

    def is_known(self, name: str) -> bool:
        """Whether a name occurs elsewhere."""
        return file_name_key(name) in self._known

    def _collect(self, text: str, beginning: _Beginning, names: dict[str, int]) -> None:
        """Adds the name that these messages begin with, or those that they go on with."""
        further = beginning.further or {}
        joint = f"{self._separator} " if self._separator == ":" else self._separator
        longer_names = {key: f"{text}{joint}{key}" for key in further}
        is_known = any(self._has_known(name, further[key], joint) for key, name in longer_names.items())
        # A name that is known goes on only if what goes on is known, too.
        is_whole = file_name_key(text) in self._known
        if not further or (not is_known and (is_whole or not _recur(further))):
            names[text] = beginning.count
            return
        for key, name in longer_names.items():
            self._collect(name, further[key], names)

    def _has_known(self, name: str, beginning: _Beginning, joint: str) -> bool:
        if file_name_key(name) in self._known:
            return True
        further = beginning.further or {}
        return any(self._has_known(f"{name}{joint}{key}", longer, joint) for key, longer in further.items())


class SenderNames:
    """Splits lines at the names of a file."""

    def __init__(self, names: Collection[str], separator: str = ":") -> None:
        self.names = frozenset(names)
        self._pattern = separator_pattern(separator)

    def split(self, text: str) -> tuple[str, str] | None:
        """Name and text of a line; None if it begins with no name."""
        match = self._pattern.search(text, 0, MAX_NAME_LENGTH)
        while match is not None:
            if (name := text[: match.start()]) in self.names:
                return name, text[match.end() :]
            match = self._pattern.search(text, match.end(), MAX_NAME_LENGTH)
        return None


def separator_pattern(separator: str) -> re.Pattern[str]:
    """The end of a name: a colon ends one before a space or the end of the line only."""
    return re.compile(r"(?<=[^\n]):(?: |$)" if separator == ":" else rf"(?<=[^\n]){re.escape(separator)}", re.MULTILINE)


def file_name_key(name: str) -> str:
    """A name as it can be compared with a file's name, in which systems replace what they do not allow."""
    return _NOT_IN_FILE_NAMES.sub("", unicodedata.normalize("NFKC", name).casefold()) or name.strip()


def _recur(further: dict[str, _Beginning]) -> bool:
    """Whether all of these continuations recur as names do."""
    return all(
        beginning.count >= (_MIN_COUNT_OF_WORD if _is_plain_word(key) else _MIN_COUNT)
        for key, beginning in further.items()
    )


def _is_plain_word(text: str) -> bool:
    first = text.lstrip()[:1]
    return first.islower() or not first.strip()

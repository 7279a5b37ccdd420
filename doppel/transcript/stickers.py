"""Stickers as words, the same in archives and in live chats."""

from collections.abc import Iterable

_MAX_EMOJI_LENGTH = 16


def sticker_text(names: Iterable[str]) -> str:
    """The names of a message's stickers: emoji as they are, other names written like custom emoji."""
    stripped = (name.strip() for name in names)
    return " ".join(name if is_emoji(name) else f":{'_'.join(name.split())}:" for name in stripped if name)


def is_emoji(text: object) -> bool:
    """Whether the description of a sticker or reaction is an emoji and not words."""
    return (
        isinstance(text, str)
        and 0 < len(text.strip()) <= _MAX_EMOJI_LENGTH
        and not any(map(str.isalnum, text))
        and not text.isascii()
    )

"""Reactions as messages: an emoji that somebody put to a message, right after it and in answer to it.

Which of them say something is for the build to decide (`training.dataset.reactions`): an export does not know that,
nor always who reacted.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from training.archives.message import Message

Reaction = tuple[str, str, str]
"""Account and name of who reacted, and the emoji."""


def reactions_to(
    message: Message, reactions: Iterable[Reaction], is_owner: Callable[[str], bool | None] = lambda account: None
) -> Iterator[Message]:
    """One message for everybody who reacted to something that was said, with their first emoji.

    When they did is not asked even where an export says it: hours later, after other words, an emoji would say nothing.

    Args:
        message: what was reacted to.
        reactions: in the export's order; those without an account or an emoji are of no use.
        is_owner: whether an account is the owner's, as far as the export says.
    """
    if message.mark not in ("", "media") or message.kind not in ("dm", "group"):
        return
    seen = {message.sender}  # what people put to their own messages is no answer
    for account, name, emoji in reactions:
        if not account or not emoji or account in seen:
            continue
        seen.add(account)
        yield msgspec.structs.replace(
            message,
            id=f"{message.id}/reaction/{account}",
            sender=account,
            sender_name=name or account,
            text=emoji,
            is_owner=is_owner(account),
            reply_to=message.id,
            mark="reaction",
        )


def is_emoji(text: object) -> bool:
    """Whether a sticker's description is what it shows: signs, not words."""
    return (
        isinstance(text, str) and 0 < len(text.strip()) <= 16 and not any(map(str.isalnum, text)) and not text.isascii()
    )

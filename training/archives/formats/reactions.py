"""Turns reactions into messages: an emoji from somebody, in reply to a message and right after it.

Which of them are kept is decided in `training.dataset.trimming`.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from training.archives.message import Mark, Message

Reaction = tuple[str, str, str]
"""Account and name of the person who reacted, and the emoji."""


def reactions_to(
    message: Message, reactions: Iterable[Reaction], is_owner: Callable[[str], bool | None] = lambda account: None
) -> Iterator[Message]:
    """Yields one message for everybody who reacted to a message of a conversation, with their first emoji.

    It gets the time of the message even where the export has the time of the reaction: hours later, after other
    messages, an emoji alone would mean nothing.

    Args:
        message: what was reacted to.
        reactions: in the export's order; those without an account or an emoji are skipped.
        is_owner: whether an account is the owner's, as far as the export says.
    """
    if message.mark not in (Mark.NONE, Mark.MEDIA) or message.kind not in ("dm", "group"):
        return
    seen = {message.sender}  # reactions to one's own message are no reply
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
            mark=Mark.REACTION,
        )

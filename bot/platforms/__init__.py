"""Platforms translate between one chat service and `Incoming` / `Outgoing`, and decide nothing.

A platform is installed by an entry point in the group `doppel.platforms` that names a `doppel.plugins.PlatformPlugin`.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

import msgspec

from doppel.errors import DoppelError

UNNAMED = ""
"""`Answered.sender` of somebody whom the service does not tell."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a message answers, as the service shows it beside the message.

    Attributes:
        sender: the account id of who wrote it; None: the persona; `UNNAMED`: the service does not tell.
        text: its text, mentions of the persona taken out as in `Incoming.text`; of a quote only the quoted part.
        message_id: the platform's id of it; None if it is in another chat.
    """

    sender: str | None
    text: str
    message_id: str | None = None


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """Something somebody wrote to the persona, whatever the service.

    Attributes:
        platform: name of the platform.
        event_id: unique within the platform; the same event seen twice has the same id.
        chat: where an answer goes, as the platform names it.
        kind: a conversation of two, or a group.
        sender: the writer's account id.
        sender_name: the writer's display name; shown in logs only.
        text: what was written, mentions of the persona taken out (a bare mention is read as the persona's name).
            Empty when somebody only opened the chat (Telegram's Start button): there is nothing to answer or to
            remember, but the log should say whom to allow.
        sent_at: UTC, as the platform says.
        message_id: the platform's id of the message, for quoting.
        mentions_bot: the persona is meant: private chat, mention, name, or a reply to it.
        allow_ids: ids an allow-list entry may name, most specific first: the account in private chats; in groups the
            chat and its server, never the account, so that allowing a friend does not open every group they are in.
        answers: the message that it answers (a reply, a quote), whoever wrote that and wherever; None if it answers
            none, or one without words.
    """

    platform: str
    event_id: str
    chat: str
    kind: Literal["dm", "group"]
    sender: str
    sender_name: str
    text: str
    sent_at: datetime
    message_id: str
    mentions_bot: bool
    allow_ids: tuple[str, ...]
    answers: Answered | None = None


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One bubble to send. `id` is its outbox row: the same row sent twice has the same id. A message that is not in the
    outbox has a negative one.
    """

    id: int
    chat: str
    text: str
    reply_to: str | None = None


class SendFailed(DoppelError):
    """A bubble was not sent. `permanent`: trying again is useless (blocked, chat gone, text refused).

    `retry_after` is the wait the platform asks for, in seconds. `unknown`: it may have arrived.
    """

    def __init__(
        self, text: str, *, permanent: bool = False, retry_after: float | None = None, unknown: bool = False
    ) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.retry_after = retry_after
        self.unknown = unknown


Receive = Callable[[Incoming], Awaitable[None]]
"""Commits a message to the inbox; returns once it is on disk. Only then may the platform be told it arrived."""

Newest = Callable[[], Awaitable[dict[str, str]]]
"""The last message known of each of the platform's chats: chat → message id. A service that keeps nothing for a bot
that is away is asked for what came after it."""


class Platform(Protocol):
    """One chat service, as `PlatformPlugin.open` builds it."""

    name: str
    limit: int
    """Longest message, in the units of `length`."""
    resend_is_safe: bool
    """Whether sending the same `Outgoing.id` twice shows one message (the service drops the second)."""

    def length(self, text: str) -> int:
        """Length of a text in the service's units."""
        ...

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        """Takes in messages until cancelled; calls `connected` when the first connection stands.

        What was written while nobody listened is taken in, too, where the service keeps it or tells it by `newest`.
        """
        ...

    async def send(self, outgoing: Outgoing) -> str:
        """Sends one bubble and returns the platform's message id. Raises SendFailed."""
        ...

    async def typing(self, chat: str) -> None:
        """Shows "typing" once; it fades by itself. Never raises."""
        ...

    async def close(self) -> None:
        """Leaves the service; `run` has been cancelled before."""
        ...


@runtime_checkable
class SingleReceiver(Protocol):
    """A platform whose service lets only one program at a time receive an account's messages; any may send.

    Where several daemons share a database, one of them receives for all.
    """

    async def connect(self) -> None:
        """Makes `send` and `typing` work before `run`, or without it. Raises DoppelError."""
        ...


@runtime_checkable
class RateLimited(Protocol):
    """A platform that may send only so many messages in a time."""

    async def wait_for_rate_limit(self, chat: str) -> None:
        """Waits until one more message may be sent to the chat, and counts it. Called before each `send`.

        A message is only marked as being sent after this: what waits here is not in doubt when the daemon is killed.
        """
        ...

"""Stores incoming messages and hands each to its chat's conversation."""

import asyncio
import logging
from collections.abc import Collection, Mapping

import msgspec

from bot.chat.conversation import ChatConversation, Services
from bot.chat.rate_window import RateWindow
from bot.chat.strangers import StrangerReplies
from bot.platforms import Answered, Incoming
from bot.platforms.connection import PlatformConnection
from bot.store import inbox
from bot.store.schema import Chat, NewMessage
from doppel.errors import DoppelError
from doppel.i18n import tr

SWEEP_SECONDS = 30.0

MAX_TEXT = 20_000
"""Characters of a message that are kept: several times what Telegram and Discord allow."""

MAX_ANSWERED_TEXT = 4096
"""Characters that are kept of what a message answers: as many as a message has in Telegram and Discord."""

_STORED_FIELDS = frozenset(NewMessage.__struct_fields__) & frozenset(Incoming.__struct_fields__)

log = logging.getLogger(__name__)


class ChatRouter:
    """Keeps one conversation for each active chat, on all platforms."""

    def __init__(self, services: Services, connections: Mapping[str, PlatformConnection]) -> None:
        self._services = services
        self._connections = connections
        self._conversations: dict[int, ChatConversation] = {}
        self._rate = RateWindow(services.reply.max_per_hour)
        self._strangers = StrangerReplies(services.access, services.store, connections, services.clock)
        self._closed = False

    async def receive(self, incoming: Incoming) -> None:
        """Commits a message to the inbox if its sender is allowed, and starts a reply if it needs one.

        Nothing from a sender who is not allowed is stored. In an allowed group, messages that do not mention the bot
        are stored as context. Raises DoppelError when the disk fails: the platform must not acknowledge the message.
        """
        if not self._services.access.allows(incoming):
            self._strangers.on_refused(incoming)
            return
        text = _storable(incoming.text[:MAX_TEXT])
        if not text.strip():
            return
        incoming = self._within_rates(msgspec.structs.replace(incoming, text=text))
        message = _new_message(incoming, self._quotable(incoming))
        store, now = self._services.store, self._services.clock.now()
        chat = await store.run(inbox.receive, store.persona, message, now)
        if chat is not None and incoming.mentions_bot and not self._closed:
            self._conversation(chat).on_message(chat)

    def _quotable(self, incoming: Incoming) -> Answered | None:
        """What the message answers, as it may be stored: words, and not of somebody who is blocked."""
        answers = incoming.answers
        if answers is None or (answers.sender and self._services.access.blocks(incoming.platform, answers.sender)):
            return None
        text = _storable(answers.text[:MAX_ANSWERED_TEXT])
        return msgspec.structs.replace(answers, text=text) if text.strip() else None

    def _within_rates(self, incoming: Incoming) -> Incoming:
        """The message, as mere context if its sender or chat has had enough replies."""
        if not incoming.mentions_bot:
            return incoming
        sender, chat = ("sender", incoming.platform, incoming.sender), ("chat", incoming.platform, incoming.chat)
        if self._rate.allows(self._services.clock.monotonic(), sender, chat):
            return incoming
        values = {"platform": incoming.platform, "id": incoming.sender, "limit": self._services.reply.max_per_hour}
        log.warning(tr("{platform}: more than {limit} messages in an hour from {id}; no reply to this one", **values))
        return msgspec.structs.replace(incoming, mentions_bot=False)

    async def resume(self) -> None:
        """Continues where the last run stopped: unanswered messages and unsent bubbles."""
        await self._services.delivery.recover()
        await self.sweep()

    async def sweep(self) -> None:
        """Wakes every chat with unfinished work that nobody works on: after a failure of the disk, or a bug."""
        store = self._services.store
        if store.failure is not None:
            await store.check_writable()
        for chat in await store.run(inbox.unfinished_chats, store.persona):
            if chat.id not in self._conversations or self._conversations[chat.id].idle:
                self.wake(chat)

    async def run_sweeps(self) -> None:
        """Sweeps twice a minute until cancelled."""
        while True:
            await self._services.clock.sleep(SWEEP_SECONDS)
            try:
                await self.sweep()
            except DoppelError as error:
                log.warning(tr("cannot look for unfinished chats: {error}", error=error))

    def wake(self, chat: Chat) -> None:
        """Checks a chat for messages to answer or bubbles to send; does nothing while its platform is off."""
        if chat.platform in self._connections and not self._closed:
            self._conversation(chat).wake(chat)

    async def drop(self, chat_ids: Collection[int], seconds: float) -> None:
        """Stops work on these chats, whose rows are about to be deleted; a send in progress gets `seconds` to finish.

        What they still have in the store is found again by the next sweep.
        """
        dropped = [self._conversations.pop(chat_id) for chat_id in chat_ids if chat_id in self._conversations]
        await asyncio.gather(*(conversation.close() for conversation in dropped))
        await self._services.delivery.finish(seconds)
        await self._services.leases.release_chats(chat_ids)

    async def close(self, seconds: float) -> None:
        """Stops generating at once and gives sends in progress `seconds` to finish; the rest stays in the store."""
        self._closed = True
        await self._strangers.close()
        await asyncio.gather(*(conversation.close() for conversation in self._conversations.values()))
        await self._services.delivery.finish(seconds)

    def _conversation(self, chat: Chat) -> ChatConversation:
        if chat.id not in self._conversations:
            self._conversations = {
                chat_id: conversation for chat_id, conversation in self._conversations.items() if not conversation.idle
            }
            self._conversations[chat.id] = ChatConversation(chat, self._services)
        return self._conversations[chat.id]


def _new_message(incoming: Incoming, answers: Answered | None) -> NewMessage:
    fields = {name: getattr(incoming, name) for name in _STORED_FIELDS}
    if answers is None:
        return NewMessage(**fields)
    return NewMessage(
        **fields,
        answers_sender=answers.sender,
        answers_text=answers.text,
        answers_message_id=answers.message_id,
    )


def _storable(text: str) -> str:
    """The text without what databases refuse: halves of surrogate pairs, and the null character."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")

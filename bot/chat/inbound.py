"""Messages in: admitted, committed to the inbox, handed to the chat's conversation. Knows no platform and no engine."""

import asyncio
import logging
from collections.abc import Mapping

from bot.chat.access import AccessList
from bot.chat.conversation import Conversation, Services
from bot.platforms import Incoming
from bot.platforms.connection import PlatformConnection
from bot.store import inbox, outbox
from bot.store.schema import Chat, NewMessage
from doppel.i18n import tr

log = logging.getLogger(__name__)


class ChatRouter:
    """All chats at once."""

    def __init__(self, services: Services, access: AccessList, connections: Mapping[str, PlatformConnection]) -> None:
        self._services = services
        self._access = access
        self._connections = connections
        self._conversations: dict[int, Conversation] = {}
        self._closed = False

    async def receive(self, incoming: Incoming) -> None:
        """Commits a message, if its writer is allowed, and sees to it that it gets an answer.

        Nothing of a writer who is not allowed is stored. In an allowed group, what is not addressed to the
        persona is stored as context. Raises DoppelError when the disk fails: the platform must not confirm.
        """
        if not self._access.allows(incoming) or not incoming.text.strip():
            return
        fields = {name: getattr(incoming, name) for name in NewMessage.__struct_fields__}
        chat = await self._services.store.run(inbox.receive, NewMessage(**fields), self._services.clock.now())
        if chat is not None and incoming.mentions_bot and not self._closed:
            self._conversation(chat).on_message()

    async def resume(self) -> None:
        """Takes up what the last run left: messages to answer and bubbles to send."""
        resendable = {name for name, connection in self._connections.items() if connection.platform.resend_is_safe}
        for unsure in await self._services.store.run(outbox.recover, resendable, self._services.clock.now()):
            where = {"platform": unsure.platform, "chat": unsure.chat}
            log.warning(
                tr("{platform}: doppel ended while a bubble to {chat} was being sent; it is sent again", **where)
                if unsure.again
                else tr(
                    "{platform}: doppel ended while a bubble to {chat} was being sent; it may have arrived", **where
                )
            )
        for chat in await self._services.store.run(inbox.unfinished_chats):
            self.wake(chat)

    def wake(self, chat: Chat) -> None:
        """There may be something to answer or to send in the chat; nothing happens while its platform is off."""
        if chat.platform in self._connections and not self._closed:
            self._conversation(chat).wake()

    async def close(self, seconds: float) -> None:
        """Stops thinking at once and gives bubbles on their way so long to arrive; the rest stays in the store."""
        self._closed = True
        await asyncio.gather(*(one.close() for one in self._conversations.values()))
        await self._services.delivery.finish(seconds)

    def _conversation(self, chat: Chat) -> Conversation:
        if chat.id not in self._conversations:
            self._conversations = {key: one for key, one in self._conversations.items() if not one.idle}
            self._conversations[chat.id] = Conversation(chat, self._services)
        return self._conversations[chat.id]

"""Messages in: admitted, committed to the inbox, handed to the chat's conversation. Knows no platform and no engine."""

import asyncio
import logging
from collections.abc import Mapping

from bot.chat.access import Admission
from bot.chat.conversation import Conversation, Means
from bot.platforms import Incoming
from bot.platforms.connection import Line
from bot.store import inbox, outbox
from bot.store.schema import Chat, Received
from doppel.i18n import tr

log = logging.getLogger(__name__)


class Intake:
    """All chats at once."""

    def __init__(self, means: Means, admission: Admission, lines: Mapping[str, Line]) -> None:
        self._means = means
        self._admission = admission
        self._lines = lines
        self._conversations: dict[int, Conversation] = {}
        self._closed = False

    async def receive(self, incoming: Incoming) -> None:
        """Commits a message, if its writer is allowed, and sees to it that it gets an answer.

        Nothing of a writer who is not allowed is stored. In an allowed group, what is not addressed to the
        persona is stored as context. Raises DoppelError when the disk fails: the platform must not confirm.
        """
        if not self._admission.admits(incoming) or not incoming.text.strip():
            return
        fields = {name: getattr(incoming, name) for name in Received.__struct_fields__}
        chat = await self._means.store.run(inbox.receive, Received(**fields), self._means.clock.now())
        if chat is not None and incoming.addressed and not self._closed:
            self._conversation(chat).hear()

    async def resume(self) -> None:
        """Takes up what the last run left: messages to answer and bubbles to send."""
        resendable = {name for name, line in self._lines.items() if line.platform.resend_is_safe}
        for unsure in await self._means.store.run(outbox.recover, resendable, self._means.clock.now()):
            where = {"platform": unsure.platform, "chat": unsure.chat}
            log.warning(
                tr("{platform}: doppel ended while a bubble to {chat} was being sent; it is sent again", **where)
                if unsure.again
                else tr(
                    "{platform}: doppel ended while a bubble to {chat} was being sent; it may have arrived", **where
                )
            )
        for chat in await self._means.store.run(inbox.unfinished_chats):
            self.look(chat)

    def look(self, chat: Chat) -> None:
        """There may be something to answer or to send in the chat; nothing happens while its platform is off."""
        if chat.platform in self._lines and not self._closed:
            self._conversation(chat).look()

    async def close(self, seconds: float) -> None:
        """Stops thinking at once and gives bubbles on their way so long to arrive; the rest stays in the store."""
        self._closed = True
        await asyncio.gather(*(one.close() for one in self._conversations.values()))
        await self._means.delivery.finish(seconds)

    def _conversation(self, chat: Chat) -> Conversation:
        if chat.id not in self._conversations:
            self._conversations = {key: one for key, one in self._conversations.items() if not one.idle}
            self._conversations[chat.id] = Conversation(chat, self._means)
        return self._conversations[chat.id]

"""The web chat as a platform: receives what is typed into the page, and notifies the page of changes."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from bot.platforms import Incoming, Newest, Outgoing, Receive

TYPING_SECONDS = 6.0


class Mailbox:
    """Connects the pages with the inbox. Pages read the store; here they only learn that a chat changed."""

    name = "web"
    limit = 20_000
    resend_is_safe = True

    def __init__(self) -> None:
        self._receive: Receive | None = None
        self._is_receiving = asyncio.Event()
        self._revisions: dict[str, int] = {}
        self._typing_until: dict[str, float] = {}

    def length(self, text: str) -> int:
        """Characters."""
        return len(text)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        """Accepts messages until cancelled."""
        self._receive = receive
        self._is_receiving.set()
        connected()
        try:
            await asyncio.Event().wait()
        finally:
            self._is_receiving.clear()

    async def submit(self, chat: str, text: str, client_id: str) -> None:
        """Commits a message typed into a page; returns once it is in the inbox.

        Args:
            chat: its id.
            text: of the message.
            client_id: made by the page; the same message of a chat submitted again is stored once.
        """
        await self._is_receiving.wait()
        assert self._receive is not None
        message_id = f"{chat}:{client_id}"
        await self._receive(
            Incoming(
                platform=self.name,
                event_id=message_id,
                chat=chat,
                kind="dm",
                sender=chat,
                sender_name="web",
                text=text,
                sent_at=datetime.now(UTC),
                message_id=message_id,
                mentions_bot=True,
                allow_ids=(chat,),
            )
        )
        self._mark_changed(chat)

    async def send(self, outgoing: Outgoing) -> str:
        """Notifies the pages; the bubble itself is already in the store."""
        self._typing_until.pop(outgoing.chat, None)
        self._mark_changed(outgoing.chat)
        return str(outgoing.id)

    async def typing(self, chat: str) -> None:
        """Shows "typing" on the chat's pages for a few seconds."""
        self._typing_until[chat] = self._now() + TYPING_SECONDS

    async def close(self) -> None:
        """There is nothing to close."""

    def revision(self, chat: str) -> int:
        """A number that increases whenever the chat changes."""
        return self._revisions.get(chat, 0)

    def is_typing(self, chat: str) -> bool:
        """Whether the persona is typing in the chat."""
        return self._typing_until.get(chat, 0.0) > self._now()

    def _mark_changed(self, chat: str) -> None:
        self._revisions[chat] = self.revision(chat) + 1

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

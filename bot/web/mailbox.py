"""Where the page's messages come in and go out: a platform without an account."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex

from bot.platforms import Incoming, Newest, Outgoing, Receive

TYPING_FADES_SECONDS = 6.0


class Mailbox:
    """Takes what is typed into a page and tells pages that a chat has changed; pages read the store themselves."""

    name = "web"
    limit = 20_000
    resend_is_safe = True

    def __init__(self) -> None:
        self._receive: Receive | None = None
        self._open = asyncio.Event()
        self._changes: dict[str, int] = {}
        self._typing_until: dict[str, float] = {}

    def length(self, text: str) -> int:
        """Characters."""
        return len(text)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        """Takes messages in until cancelled."""
        self._receive = receive
        self._open.set()
        connected()
        try:
            await asyncio.Event().wait()
        finally:
            self._open.clear()

    async def submit(self, chat: str, text: str) -> None:
        """Somebody typed a message into the page of a chat; returns once it is in the inbox."""
        await self._open.wait()
        assert self._receive is not None
        event = token_hex(16)
        await self._receive(
            Incoming(
                platform=self.name,
                event_id=event,
                chat=chat,
                kind="dm",
                sender=chat,
                sender_name="web",
                text=text,
                sent_at=datetime.now(UTC),
                message_id=event,
                mentions_bot=True,
                allow_ids=(chat,),
            )
        )
        self._changed(chat)

    async def send(self, outgoing: Outgoing) -> str:
        """The bubble stands in the store already; the pages are told to look."""
        self._typing_until.pop(outgoing.chat, None)
        self._changed(outgoing.chat)
        return str(outgoing.id)

    async def typing(self, chat: str) -> None:
        """Shows "typing" on the chat's pages for some seconds."""
        self._typing_until[chat] = self._now() + TYPING_FADES_SECONDS

    async def close(self) -> None:
        """Nothing is held."""

    def revision(self, chat: str) -> int:
        """A number that grows whenever the chat changes."""
        return self._changes.get(chat, 0)

    def is_typing(self, chat: str) -> bool:
        """Whether the persona is typing in the chat."""
        return self._typing_until.get(chat, 0.0) > self._now()

    def _changed(self, chat: str) -> None:
        self._changes[chat] = self.revision(chat) + 1

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

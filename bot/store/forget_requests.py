"""How `doppel forget` reaches the database of a running daemon: by a request file beside it.

The daemon has the database, and what belongs to it in memory, to itself. Whoever can write a file into that folder can
write the database as well, so a request needs no further proof.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import msgspec

from bot.clock import Clock
from bot.store import Store
from bot.store.erasure import ErasedMessages, chats_of, erase_chat
from bot.store.strangers import erase_strangers
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.personal_data import Account
from doppel.system.file_lock import holding_lock
from doppel.system.private_file import write_private
from doppel.system.write_errors import translate_write_errors

POLL_SECONDS = 1.0
SEND_SECONDS = 4.0
"""What a send in progress gets to finish before the chat is deleted."""

ANSWER_SECONDS = 120.0
"""What the daemon gets to answer: a large database takes a while to be written anew."""

_CLIENT_POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


class _Request(msgspec.Struct, frozen=True):
    id: str
    accounts: list[Account]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request.

    Attributes:
        id: of the request.
        erased: what was removed from the database.
        is_cache_cleared: whether nothing of the person is left in the engine's cache.
        warning: what could not be done besides; None if all was.
        error: why nothing was removed; None if it was.
    """

    id: str = ""
    erased: ErasedMessages = ErasedMessages()
    is_cache_cleared: bool = True
    warning: str | None = None
    error: str | None = None


class ForgetRequests:
    """The daemon's side.

    Args:
        store: the database.
        drop_chats: stops work on chats, given by row, within some seconds.
        clear_cache: drops what the engine keeps of earlier prompts; returns whether it could.
        clock: time.
    """

    def __init__(
        self,
        store: Store,
        drop_chats: Callable[[Collection[int], float], Awaitable[None]],
        clear_cache: Callable[[], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._drop_chats = drop_chats
        self._clear_cache = clear_cache
        self._clock = clock

    async def run(self) -> None:
        """Serves requests until cancelled."""
        while True:
            try:
                await self.serve()
            except (DoppelError, OSError) as error:
                log.warning(tr("cannot serve a request of `doppel forget`: {error}", error=error))
            await self._clock.sleep(POLL_SECONDS)

    async def serve(self) -> bool:
        """Serves the request that is there; returns whether there was one. Raises DoppelError, OSError."""
        database = self._store.file
        if database is None or not _request_file(database).is_file():
            return False
        path = _request_file(database)
        try:
            request = msgspec.json.decode(path.read_bytes(), type=_Request)
        except msgspec.MsgspecError as error:
            path.unlink(missing_ok=True)
            raise DoppelError(tr("{path}: cannot be read: {error}", path=path, error=error)) from None
        answer = await self._erase(request)
        await asyncio.to_thread(write_private, _answer_file(database), msgspec.json.encode(answer))
        path.unlink(missing_ok=True)
        return True

    async def _erase(self, request: _Request) -> Answer:
        try:
            chats = await self._store.run(chats_of, request.accounts)
            # Before, so that no reply is written to a chat that is gone; after, for what has arrived in between.
            await self._drop_chats(chats, SEND_SECONDS)
            erased = await erase_from(self._store, request.accounts)
            await self._drop_chats(chats, SEND_SECONDS)
        except DoppelError as error:
            return Answer(id=request.id, error=str(error))
        log.info(tr("doppel forget: {count} messages of a person erased", count=erased.messages + erased.bubbles))
        warning, is_cleared = None, False
        try:
            is_cleared = await self._clear_cache()
            await self._store.compact()
        except DoppelError as error:
            warning = str(error)
        return Answer(id=request.id, erased=erased, is_cache_cleared=is_cleared, warning=warning)


async def erase_from(store: Store, accounts: Collection[Account]) -> ErasedMessages:
    """Erases a person from a database, one transaction for each chat. Raises DoppelError."""
    erased = ErasedMessages()
    for chat_id in await store.run(chats_of, accounts):
        erased += await store.run(erase_chat, chat_id, accounts)
    return erased + ErasedMessages(stranger_replies=await store.run(erase_strangers, accounts))


def request_erasure(
    database: Path, accounts: Collection[Account], *, sleep: Callable[[float], None] = time.sleep
) -> Answer:
    """Lets the running daemon erase a person from its database, and waits for it.

    Args:
        database: the SQLite file.
        accounts: of the person.
        sleep: waits for a number of seconds.

    Raises:
        UserError: the daemon does not answer. DoppelError: it failed, or the request cannot be written.
    """
    request, result = _request_file(database), _answer_file(database)
    identifier = secrets.token_hex(8)
    with translate_write_errors(request), holding_lock(request.with_suffix(".lock")):
        try:
            write_private(request, msgspec.json.encode(_Request(identifier, sorted(accounts))))
            for _ in range(int(ANSWER_SECONDS / _CLIENT_POLL_SECONDS)):
                if (answer := _read_answer(result)) is not None and answer.id == identifier:
                    break
                sleep(_CLIENT_POLL_SECONDS)
            else:
                raise UserError(tr("the running `doppel run` does not answer; stop it, then run `doppel forget` again"))
        finally:
            request.unlink(missing_ok=True)
            result.unlink(missing_ok=True)
    if answer.error is not None:
        raise DoppelError(answer.error)
    return answer


def _read_answer(path: Path) -> Answer | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Answer)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _request_file(database: Path) -> Path:
    return database.with_name(f"{database.name}.forget.json")


def _answer_file(database: Path) -> Path:
    return database.with_name(f"{database.name}.forget-answer.json")

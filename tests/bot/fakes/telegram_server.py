"""A Bot API server on 127.0.0.1. What may be asked and what an answer looks like is aiogram's word, not ours:
every request is validated by its `methods`, every answer by its `types`.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self, get_args

import aiogram.methods
from aiogram import types
from aiogram.methods.base import Response, TelegramMethod
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

TOKEN = "123456:AAfaketokenfortests-only_0000000000"
BOT = types.User(id=123456, is_bot=True, first_name="Mina", username="MinaPersonaBot")
ANNA = types.User(id=7001, is_bot=False, first_name="Anna", last_name="Example")

METHODS: dict[str, type[TelegramMethod[Any]]] = {
    method.__api_method__.lower(): method
    for name in aiogram.methods.__all__
    if isinstance(method := getattr(aiogram.methods, name), type)
    and issubclass(method, TelegramMethod)
    and isinstance(getattr(method, "__api_method__", None), str)
}


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an answer.

    `status` is answered with `description` (or with `body`, as it is); `cut` closes the connection instead, `before` or
    `after` the request was carried out.
    """

    status: int = 0
    description: str = ""
    retry_after: int | None = None
    migrate_to: int | None = None
    body: bytes | None = None
    cut: Literal["before", "after"] | None = None


class Refused(Exception):
    """The server says no, in Telegram's words."""

    def __init__(self, status: int, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.description = description


class TelegramServer:
    """One bot's Telegram. `async with TelegramServer() as server:` then `server.url` is the `api` to configure."""

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.sent: list[types.Message] = []
        self.requests: list[TelegramMethod[Any]] = []
        self.webhook = False
        self.blocked: set[int] = set()
        self.pending: deque[types.Update] = deque()
        self._faults: dict[str, deque[Fault]] = {}
        self._chats: dict[int, types.Chat] = {}
        self._changed = asyncio.Event()
        self._seen = 0
        self._last_update = 500
        self._last_message = 100
        self._polls = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/bot{token}/{method}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def fail(self, method: str, *faults: Fault) -> None:
        """The next requests of this method meet these faults, one each."""
        self._faults.setdefault(method.lower(), deque()).extend(faults)

    def user_says(self, text: str, *, user: types.User = ANNA, **fields: Any) -> types.Message:
        """Somebody writes to the bot in private."""
        chat = types.Chat(id=user.id, type="private", first_name=user.first_name)
        return self.post(chat=chat, from_user=user, text=text, **fields)

    def group_says(self, text: str, *, user: types.User = ANNA, group: int = -200, **fields: Any) -> types.Message:
        """Somebody writes in a group the bot is in."""
        chat = types.Chat(id=group, type="supergroup", title="Friends", is_forum=bool(fields.get("is_topic_message")))
        return self.post(chat=chat, from_user=user, text=text, **fields)

    def post(self, *, chat: types.Chat, kind: str = "message", **fields: Any) -> types.Message:
        """Any message, as an update of a kind (`message`, `edited_message`, `channel_post`)."""
        message = self._message(chat, **fields)
        self._last_update += 1
        self.pending.append(types.Update.model_validate({"update_id": self._last_update, kind: message}))
        self._tell()
        return message

    async def next_sent(self) -> types.Message:
        """The next message the bot sends that nobody has asked for yet."""
        await self._until(lambda: len(self.sent) > self._seen)
        self._seen += 1
        return self.sent[self._seen - 1]

    async def asked(self, method: str, times: int = 1) -> list[TelegramMethod[Any]]:
        """The requests of a method, once there are so many."""
        await self._until(lambda: len(self.of(method)) >= times)
        return self.of(method)

    def of(self, method: str) -> list[TelegramMethod[Any]]:
        """The requests of a method so far."""
        return [request for request in self.requests if request.__api_method__ == method]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["method"].lower()
        try:
            method = self._method(request.match_info["token"], name)
            call = _parse(method, {key: str(value) for key, value in (await request.post()).items()})
            self.requests.append(call)
            self._tell()
            fault = self._faults[name].popleft() if self._faults.get(name) else None
            if fault is not None and fault.cut != "after":
                return self._break(request, fault)
            result = await getattr(self, f"_{name}")(call)
            if fault is not None:
                return self._break(request, fault)
        except Refused as refusal:
            return _answer(refusal.status, ok=False, error_code=refusal.status, description=refusal.description)
        _answer_type(method).validate_python(result)
        return _answer(200, ok=True, result=result)

    def _method(self, token: str, name: str) -> type[TelegramMethod[Any]]:
        if token != self.token:
            raise Refused(401, "Unauthorized")
        if name not in METHODS:
            raise Refused(404, "Not Found")
        return METHODS[name]

    def _break(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.cut is not None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.body is not None:
            return web.Response(status=fault.status, body=fault.body)
        parameters = types.ResponseParameters(retry_after=fault.retry_after, migrate_to_chat_id=fault.migrate_to)
        given = fault.retry_after or fault.migrate_to
        return _answer(
            fault.status,
            ok=False,
            error_code=fault.status,
            description=fault.description,
            parameters=parameters if given else None,
        )

    async def _getme(self, _: aiogram.methods.GetMe) -> types.User:
        return BOT

    async def _deletewebhook(self, call: aiogram.methods.DeleteWebhook) -> bool:
        self.webhook = False
        if call.drop_pending_updates:
            self.pending.clear()
        return True

    async def _getupdates(self, call: aiogram.methods.GetUpdates) -> list[types.Update]:
        if self.webhook:
            raise Refused(409, "Conflict: can't use getUpdates method while webhook is active")
        self._polls += 1
        mine = self._polls
        self._tell()
        while call.offset is not None and self.pending and self.pending[0].update_id < call.offset:
            self.pending.popleft()
        allowed = call.allowed_updates or ["message", "edited_message", "channel_post"]

        def wanted() -> list[types.Update]:
            return [update for update in self.pending if update.event_type in allowed]

        if call.timeout and not wanted():
            try:
                async with asyncio.timeout(call.timeout):
                    await self._until(lambda: bool(wanted()) or self._polls != mine)
            except TimeoutError:
                return []
        if self._polls != mine:
            raise Refused(409, "Conflict: terminated by other getUpdates request")
        return wanted()[: call.limit or 100]

    async def _sendmessage(self, call: aiogram.methods.SendMessage) -> types.Message:
        chat = self._known(call.chat_id)
        if not call.text.strip():
            raise Refused(400, "Bad Request: message text is empty")
        if len(call.text.encode("utf-16-le")) // 2 > 4096:
            raise Refused(400, "Bad Request: message is too long")
        message = self._message(chat, from_user=BOT, text=call.text, message_thread_id=call.message_thread_id)
        self.sent.append(message)
        self._tell()
        return message

    async def _sendchataction(self, call: aiogram.methods.SendChatAction) -> bool:
        self._known(call.chat_id)
        return True

    def _known(self, chat_id: int | str) -> types.Chat:
        if chat_id in self.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        if not isinstance(chat_id, int) or chat_id not in self._chats:
            raise Refused(400, "Bad Request: chat not found")
        return self._chats[chat_id]

    def _message(self, chat: types.Chat, **fields: Any) -> types.Message:
        self._chats[chat.id] = chat
        self._last_message += 1
        fire_time = fields.pop("date", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        return types.Message(message_id=self._last_message, date=fire_time, chat=chat, **fields)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _tell(self) -> None:
        """Wakes everybody who waits for something to happen."""
        self._changed.set()
        self._changed = asyncio.Event()


def _parse(method: type[TelegramMethod[Any]], form: dict[str, str]) -> TelegramMethod[Any]:
    """The request as aiogram understands the Bot API; unknown parameters and wrong types are refused."""
    if unknown := set(form) - set(method.model_fields):
        raise Refused(400, f"Bad Request: unknown parameters {sorted(unknown)}")
    try:
        return method.model_validate({key: _value(method, key, text) for key, text in form.items()})
    except ValidationError as error:
        raise Refused(400, f"Bad Request: {error}") from error


def _value(method: type[TelegramMethod[Any]], key: str, text: str) -> Any:
    """A form field's value: text stays text, everything else is JSON."""
    annotation = method.model_fields[key].annotation
    if annotation is str or (str in get_args(annotation) and int not in get_args(annotation)):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@cache
def _answer_type(method: type[TelegramMethod[Any]]) -> TypeAdapter[Any]:
    return TypeAdapter(method.__returning__)


def _answer(status: int, **fields: Any) -> web.Response:
    body = Response[Any].model_validate(fields).model_dump_json(exclude_none=True, by_alias=True)
    return web.Response(status=status, text=body, content_type="application/json")

"""The few routes of Gradio that the pages use.

All others are closed: some write files or fetch addresses for whoever asks.
"""

import re
from typing import Annotated

import msgspec
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.web.request_body import read_body, replay
from bot.web.request_guard import MAX_BODY_BYTES
from doppel.i18n import tr

_SESSION = r"[0-9a-z]{1,32}"
_OPEN_TO_GET = re.compile(
    rf"/healthz|/readyz|/metrics|/quiz|(?:/quiz)?/"
    rf"(?:|assets/.+|static/.+|theme\.css|favicon\.ico|gradio_api/app_id|gradio_api/heartbeat/{_SESSION})"
)
_OPEN_TO_POST = re.compile(r"(?:/quiz)?/gradio_api/run/predict")


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    """An event of a page. Its values are texts: Gradio would open what an object in their place describes as a file."""

    data: list[str | None]
    fn_index: int
    session_hash: Annotated[str, msgspec.Meta(pattern=rf"\A{_SESSION}\Z")]
    trigger_id: int | None = None
    event_data: None = None


class GradioRoutes:
    """Middleware that answers 404 to all but the pages, their files, their events and monitoring's routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if method == "POST" and _OPEN_TO_POST.fullmatch(path):
            body = await read_body(receive, MAX_BODY_BYTES)
            if body is None or not _is_event(body):
                await PlainTextResponse(f"{tr('not an event of this page')}\n", 400)(scope, receive, send)
                return
            await self._app(scope, replay(body, receive), send)
        elif method in ("GET", "HEAD") and _OPEN_TO_GET.fullmatch(path):
            scope["query_string"] = b""  # Gradio would load a state that the query names
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse(f"{tr('not found')}\n", 404)(scope, receive, send)


def _is_event(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=_Event)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True

"""Refuses requests that the page's own visitors never make: other host names, other websites, oversized bodies.

Every website that somebody opens can send requests to this machine. Host names protect from DNS rebinding, `Origin` and
`Sec-Fetch-Site` from other websites.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.web.request_body import read_body, replay
from bot.web.settings import is_address, is_loopback
from doppel.i18n import tr

MAX_BODY_BYTES = 256 * 1024
"""Larger request bodies are refused; the longest message takes a third of it."""


class RequestGuard:
    """Middleware that passes on what comes from the page itself, or opens it by a link.

    Args:
        app: the application behind it.
        host: the address that the server listens on.
        allowed_hosts: further names, in lower case, under which the page may be opened.
    """

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._is_local = is_loopback(host)
        self._names = {host.lower(), *allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        if problem := self._find_problem(scope["method"], headers):
            await PlainTextResponse(f"{problem}\n", 403)(scope, receive, send)
            return
        body = await read_body(receive, MAX_BODY_BYTES)
        if body is None:
            text = tr("the request is larger than {count} KB", count=MAX_BODY_BYTES // 1024)
            await PlainTextResponse(f"{text}\n", 413, {"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, replay(body, receive), send)

    def _find_problem(self, method: str, headers: Headers) -> str | None:
        """Why a request is refused; None if it is not."""
        host = headers.get("host", "").lower()
        if not self._allows_host(_host_name(host)):
            return tr("this host name is not allowed; add it to web.allowed_hosts in config.yaml")
        origin = headers.get("origin")
        if origin is not None and not _is_origin_of(origin, host):
            return tr("requests from other websites are not allowed")
        is_navigation = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        is_own = headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        if not is_own and not (is_navigation and headers.get("sec-fetch-dest", "document") == "document"):
            return tr("requests from other websites are not allowed")
        return None

    def _allows_host(self, name: str | None) -> bool:
        if name is None:
            return False
        # A website cannot make an address lead elsewhere, as it can with its own name: any address is safe.
        return name in self._names or (is_loopback(name) if self._is_local else is_loopback(name) or is_address(name))


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without port and brackets; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    has_more = parts.path or parts.query or parts.fragment or "@" in host
    return None if has_more else parts.hostname


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether an Origin header names this server; a proxy may have removed the encryption, so both schemes may."""
    return origin.lower() in (f"http://{host}", f"https://{host}")

"""The HTTP server of a page, inside the daemon's event loop: health routes and the mounted application."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.clock import Clock
from bot.web.login import Login
from bot.web.metrics_route import metrics_response
from bot.web.request_guard import RequestGuard
from doppel.errors import UserError
from doppel.i18n import tr

# The page may load nothing from other servers. Gradio needs inline scripts and styles, and makes functions of texts.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "media-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    # Not `no-referrer`: browsers would then send the login form without its origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class PageAccess:
    """Who may reach a page.

    Attributes:
        host: the address it listens on.
        allowed_hosts: names under which it may be opened, besides that address.
        password: what visitors need to sign in; empty: nothing.
    """

    host: str
    allowed_hosts: tuple[str, ...] = ()
    password: str = ""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises UserError when the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                tr(
                    "cannot listen on {host}:{port}: the port is in use; is doppel already running? "
                    "If not, set another web.port",
                    host=host,
                    port=port,
                )
            ) from None
        raise UserError(
            tr(
                "cannot listen on {host}:{port}: {error}; set another web.host or web.port in config.yaml",
                host=host,
                port=port,
                error=error.strerror,
            )
        ) from None
    return listener


def create_app(
    not_ready_reason: Callable[[], str | None],
    access: PageAccess,
    clock: Clock,
    render_metrics: Callable[[], Awaitable[bytes]],
) -> FastAPI:
    """An application with `/healthz`, `/readyz` and `/metrics`, closed to all whom `access` does not let in.

    Args:
        not_ready_reason: why no reply is possible now; None if one is.
        access: who may reach it.
        clock: for the login.
        render_metrics: what `/metrics` answers to programs on this machine.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/healthz")
    async def health() -> PlainTextResponse:
        return PlainTextResponse("alive\n")

    @app.get("/readyz")
    async def ready() -> PlainTextResponse:
        reason = not_ready_reason()
        return PlainTextResponse(f"{reason or 'ready'}\n", status_code=503 if reason else 200)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        return await metrics_response(request, render_metrics)

    if access.password:  # what is added last handles a request first
        app.add_middleware(Login, password=access.password, clock=clock)
    app.add_middleware(RequestGuard, host=access.host, allowed_hosts=access.allowed_hosts)
    app.add_middleware(_SecurityHeaders)
    return app


class HttpServer:
    """Serves an application on a listening socket until stopped."""

    def __init__(self, app: FastAPI, listener: socket.socket) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1, server_header=False
        )
        self._server = _SignalFreeServer(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Begins to serve. The socket already listens, so no earlier request is refused."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Closes the connections within about a second."""
        # Open pages hold a stream that never ends; uvicorn would log an error for each one it cuts.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()


class _SecurityHeaders:
    """Adds headers that forbid the browser to load anything from other servers, and others to show or load the page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_policy)


class _SignalFreeServer(uvicorn.Server):
    """Leaves signals to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

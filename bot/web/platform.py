"""The web page as a platform, and the protocol of platforms that serve a page."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fastapi import FastAPI

from bot.chat.responder import Responder
from bot.store import Store
from bot.web.mailbox import Mailbox
from bot.web.server import PageAccess, listen
from bot.web.settings import WebSettings, find_exposure, read_password
from doppel.config import Config
from doppel.errors import UserError


@dataclass(frozen=True)
class PageServices:
    """What a page needs from the daemon."""

    config: Config
    store: Store
    responder: Responder


@runtime_checkable
class PagePlatform(Protocol):
    """A platform that serves a page. The daemon adds its health routes and serves it on the platform's socket."""

    @property
    def access(self) -> PageAccess:
        """The address it listens on, and who may reach it."""
        ...

    def listen(self) -> socket.socket:
        """A listening socket. Raises UserError when the address cannot be used."""
        ...

    def mount(self, app: FastAPI, services: PageServices) -> None:
        """Adds its routes to the daemon's application."""
        ...


class WebPlatform(Mailbox):
    """The chat page and the quiz page.

    Raises:
        UserError: others than the owner could use the page, and there is no password.
    """

    def __init__(self, settings: WebSettings, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._settings = settings
        self._access = PageAccess(settings.host, settings.allowed_hosts, read_password(environ))
        if problem := find_exposure(settings, self._access.password):
            raise UserError(problem)

    @property
    def access(self) -> PageAccess:
        """The address it listens on, and who may reach it."""
        return self._access

    def listen(self) -> socket.socket:
        """A listening socket. Raises UserError when the address cannot be used."""
        return listen(self._settings.host, self._settings.port)

    def mount(self, app: FastAPI, services: PageServices) -> None:
        """Adds the chat at the root of the application, and the quiz at /quiz/."""
        from bot.web.chat_page import ChatPage  # gradio takes seconds to import
        from bot.web.quiz_page import QuizPage

        config = services.config
        name = config.persona.name
        chat_page = ChatPage(
            name,
            zone=config.zone,
            posts=config.posts,
            store=services.store,
            mailbox=self,
            responder=services.responder,
        )
        chat_page.mount(app, QuizPage(name, config.data_dir, config.adapters_dir))

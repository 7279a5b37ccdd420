"""The page of the local web chat. Shows the messages in the store and polls for changes.

Every browser has its own chat, whose id it keeps in its local storage.
"""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import gradio as gr
import msgspec
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.middleware import Middleware

from bot.chat.responder import Responder
from bot.store import Store, inbox
from bot.store.inbox import HistoryMessage
from bot.web.chat_html import render_chat
from bot.web.gradio_routes import GradioRoutes
from bot.web.mailbox import Mailbox
from bot.web.quiz_page import QUIET, QuizPage
from bot.web.theme import create_theme
from doppel.config import PostSettings
from doppel.i18n import language, tr

MAX_MESSAGES = 200
"""The page shows the last messages of a chat, at most this many."""

TICK_SECONDS = 0.5

_CHAT_ID = re.compile(r"[0-9a-f]{32}")

_MAX_MESSAGES_PER_REQUEST = 20

# The browser keeps what is not confirmed, and removes the sent text from the field itself, so that neither an unsent
# message nor text typed meanwhile is lost.
_OUTBOX = Path(__file__).with_name("outbox.js")
_RESTORE = "() => { doppel.restore(); }"
_TAKE = "(text) => doppel.take(text)"
_SETTLE = "(ids) => { doppel.settle(JSON.parse(ids)); }"
_SETTLE_FAILED = "() => { doppel.settle([]); }"


class SubmittedMessage(msgspec.Struct, frozen=True):
    """A message as the page sends it: `id` is made by the browser, and the same when it is sent again."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    text: str


class PageState(msgspec.Struct, frozen=True):
    """What a page shows. The page is rendered again when the current state differs."""

    chat: str
    revision: int
    post_revisions: tuple[int, ...]
    typing: bool
    version: str | None


class ChatPage:
    """The page for one persona.

    Args:
        persona: name of the persona.
        zone: the owner's time zone.
        posts: the schedules; those that post to this page are shown in every chat.
        store: holds the messages.
        mailbox: receives what is typed.
        responder: says whether the persona is ready, and with which adapter.
    """

    def __init__(
        self,
        persona: str,
        *,
        zone: ZoneInfo,
        posts: Sequence[PostSettings],
        store: Store,
        mailbox: Mailbox,
        responder: Responder,
    ) -> None:
        self._persona = persona
        self._zone = zone
        self._store = store
        self._mailbox = mailbox
        self._responder = responder
        targets = (post.to.partition(":") for post in posts)
        self._post_chats = tuple(dict.fromkeys(chat for platform, _, chat in targets if platform == mailbox.name))

    def mount(self, app: FastAPI, quiz_page: QuizPage) -> None:
        """Adds the page at the root of an application, and the quiz at /quiz/."""

        @app.get("/quiz")
        async def quiz() -> RedirectResponse:
            return RedirectResponse("quiz/")

        _mount(app, quiz_page.blocks(self._render_heading(tr("Blind quiz"))), "/quiz", "page.css", "quiz.css")
        _mount(app, self._blocks(), "/", "page.css")  # last, because it matches every path
        app.user_middleware.append(Middleware(GradioRoutes))  # behind all others: a login comes first

    def _blocks(self) -> gr.Blocks:
        with gr.Blocks(title=self._persona, analytics_enabled=False, fill_height=True) as blocks:
            chat_id = gr.BrowserState("", storage_key="doppel-chat", secret=f"doppel-{self._persona}")
            state = gr.State(None)
            heading = gr.HTML(self._render_heading(), elem_id="heading", js_on_load=None)
            chat = gr.HTML("", elem_id="chat", scale=1, js_on_load=None)
            text = gr.Textbox(
                elem_id="text",
                label=tr("Message"),
                show_label=False,
                container=False,
                placeholder=tr("Message"),
                submit_btn=True,
                autofocus=True,
                lines=1,
                max_lines=6,
            )
            outgoing = gr.Textbox("[]", visible="hidden")
            stored = gr.Textbox("[]", visible="hidden")
            notice = gr.HTML(self._render_notice(), elem_id="notice", js_on_load=None)
            outputs = [chat, heading, notice, state]
            blocks.load(None, [], [], js=_RESTORE, **QUIET)
            blocks.load(self._on_load, [chat_id], [chat_id, *outputs], **QUIET)
            taken = text.submit(None, [text], [outgoing, text], js=_TAKE, **QUIET)
            sent = taken.then(self._on_submit, [chat_id, outgoing], [chat_id, stored, *outputs], **QUIET)
            sent.success(None, [stored], [], js=_SETTLE, **QUIET)
            sent.failure(None, [], [], js=_SETTLE_FAILED, **QUIET)
            gr.Timer(TICK_SECONDS).tick(self._on_tick, [chat_id, state], outputs, **{**QUIET, "trigger_mode": "once"})
        page: gr.Blocks = blocks
        return page

    async def _on_load(self, stored_id: Any) -> tuple[Any, ...]:
        chat = _valid_chat_id(stored_id) or token_hex(16)
        return chat, *await self._render(chat)

    async def _on_submit(self, stored_id: Any, submitted: str) -> tuple[Any, ...]:
        """Stores the messages that the page has not seen confirmed, and returns their ids."""
        chat = _valid_chat_id(stored_id) or token_hex(16)
        ids: list[str] = []
        for message in _parse_messages(submitted):
            if text := message.text.strip()[: self._mailbox.limit]:
                await self._mailbox.submit(chat, text, message.id)
            ids.append(message.id)
        return chat, msgspec.json.encode(ids).decode(), *await self._render(chat)

    async def _on_tick(self, stored_id: Any, state: PageState | None) -> tuple[Any, ...] | Any:
        chat = _valid_chat_id(stored_id)
        if chat is None or self._current_state(chat) == state:
            return gr.skip()
        return await self._render(chat)

    def _current_state(self, chat: str) -> PageState:
        adapter = self._responder.adapter
        return PageState(
            chat,
            self._mailbox.revision(chat),
            tuple(self._mailbox.revision(post_chat) for post_chat in self._post_chats),
            self._mailbox.is_typing(chat),
            adapter.version if adapter else None,
        )

    async def _render(self, chat: str) -> tuple[Any, ...]:
        """Values for chat, heading, notice and state."""
        state = self._current_state(chat)  # before reading, so that a later change is rendered at the next tick
        messages: list[HistoryMessage] = []
        for source in (chat, *self._post_chats):
            messages += await self._store.run(
                inbox.visible_messages, self._store.persona, self._mailbox.name, source, MAX_MESSAGES
            )
        messages.sort(key=lambda message: message.at)
        content = render_chat(messages[-MAX_MESSAGES:], self._zone, self._persona, typing=state.typing)
        return content, self._render_heading(), self._render_notice(), state

    def _render_heading(self, quiz_title: str = "") -> str:
        """The persona, its status (on the quiz page: the quiz's title), and links to both pages."""
        name = html.escape(self._persona)
        if quiz_title:
            status = html.escape(quiz_title)
        elif self._responder.is_ready():
            status = f'<span class="dot"></span>{html.escape(tr("online"))}'
        else:
            waiting = html.escape(tr("starting; your messages will be answered"))
            status = f'<span class="dot starting"></span>{waiting}'
        pages = (
            ("../" if quiz_title else "./", tr("Chat"), not quiz_title),
            ("./" if quiz_title else "quiz/", tr("Quiz"), bool(quiz_title)),
        )
        links = "".join(
            f'<a href="{path}"{" aria-current=page" if is_current else ""}>{html.escape(title)}</a>'
            for path, title, is_current in pages
        )
        return (
            f'<div class="row"><div class="face">{name[:1].upper()}</div><div><div class="name">{name}</div>'
            f'<div class="state">{status}</div></div><nav>{links}</nav></div>'
        )

    def _render_notice(self) -> str:
        adapter = self._responder.adapter
        notice = tr("An imitation: the real person did not write these messages. This chat stays on this machine.")
        version = tr("Adapter {version}.", version=adapter.version) if adapter else ""
        return f"<p>{html.escape(f'{notice} {version}'.strip())}</p>"


def _valid_chat_id(stored: Any) -> str | None:
    """The id that the browser has stored, if it is one."""
    return stored if isinstance(stored, str) and _CHAT_ID.fullmatch(stored) else None


def _parse_messages(submitted: Any) -> list[SubmittedMessage]:
    """The messages in the page's own form, at most `_MAX_MESSAGES_PER_REQUEST`; none if it is another."""
    try:
        return msgspec.json.decode(submitted, type=list[SubmittedMessage])[:_MAX_MESSAGES_PER_REQUEST]
    except (msgspec.MsgspecError, UnicodeError, TypeError):
        return []


def _mount(app: FastAPI, blocks: gr.Blocks, path: str, *stylesheets: str) -> None:
    outbox = _OUTBOX.read_text(encoding="utf-8")
    page_language = json.dumps("zh-CN" if language() == "zh" else language())
    gr.mount_gradio_app(
        app,
        blocks,
        path=path,
        theme=create_theme(),
        css_paths=[Path(__file__).with_name(name) for name in stylesheets],
        head=f"<script>document.documentElement.lang = {page_language};\n{outbox}</script>",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
    )

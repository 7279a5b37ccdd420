"""The page of the local web chat: what stands in the store, shown and kept up to date.

Every browser has a chat of its own, under a number kept in the browser. Knows the web platform and the store; knows
no engine.
"""

import html
import re
from pathlib import Path
from secrets import token_hex
from typing import Any

import gradio as gr
import msgspec
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from bot.chat.responder import Responder
from bot.store import Store, inbox
from bot.store.inbox import HistoryMessage
from bot.web.chat_html import render_chat
from bot.web.mailbox import Mailbox
from bot.web.quiz_page import QUIET, QuizPage
from doppel.config import Config
from doppel.i18n import tr

SHOWN = 200
"""Messages of a chat that the page shows, the last ones."""

TICK_SECONDS = 0.5

_CHAT = re.compile(r"[0-9a-f]{32}")

# The browser empties the field itself, of what was sent: what is typed meanwhile must not be lost.
_LEAVE = """(text) => {
    const typed = document.querySelector("#text textarea").value;
    return [text, typed.startsWith(text) ? typed.slice(text.length) : typed];
}"""
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", "sans-serif")


class PageState(msgspec.Struct, frozen=True):
    """What a page shows; when it differs from what is, the page is drawn again."""

    chat: str
    revision: int
    posts: tuple[int, ...]
    typing: bool
    version: str | None


class ChatPage:
    """The page for one persona.

    Args:
        config: names the persona, the zone and the schedules that post to the page.
        store: what was said.
        web: where typed messages go.
        voice: whether the persona is awake, and with which adapter.
    """

    def __init__(self, config: Config, store: Store, web: Mailbox, responder: Responder) -> None:
        self._config = config
        self._store = store
        self._web = web
        self._responder = responder
        targets = (post.to.partition(":") for post in config.posts)
        self._boards = tuple(dict.fromkeys(chat for platform, _, chat in targets if platform == web.name))

    def mount(self, app: FastAPI) -> None:
        """Puts the page at the root of an application, and the quiz at /quiz/."""

        @app.get("/quiz")
        async def quiz() -> RedirectResponse:
            return RedirectResponse("quiz/")

        _mount(app, QuizPage(self._config).blocks(self._heading(tr("the blind quiz"))), "/quiz", "page.css", "quiz.css")
        _mount(app, self._blocks(), "/", "page.css")  # last, for it takes every path

    def _blocks(self) -> gr.Blocks:
        name = self._config.persona.name
        with gr.Blocks(title=name, analytics_enabled=False, fill_height=True) as blocks:
            mine = gr.BrowserState("", storage_key="doppel-chat", secret=f"doppel-{name}")
            seen = gr.State(None)
            heading = gr.HTML(self._heading(), elem_id="heading", js_on_load=None)
            chat = gr.HTML("", elem_id="chat", scale=1, js_on_load=None)
            text = gr.Textbox(
                elem_id="text",
                show_label=False,
                container=False,
                placeholder=tr("Write a message…"),
                submit_btn=True,
                autofocus=True,
                lines=1,
                max_lines=6,
            )
            outgoing = gr.Textbox(visible="hidden")
            notice = gr.HTML(self._notice(), elem_id="notice", js_on_load=None)
            parts = [chat, heading, notice, seen]
            blocks.load(self._on_load, [mine], [mine, *parts], **QUIET)
            sent = text.submit(None, [text], [outgoing, text], js=_LEAVE, **QUIET)
            taken = sent.then(self._on_submit, [mine, outgoing], [mine, *parts], **QUIET)
            taken.failure(None, [text, outgoing], [text], js="(text, lost) => text || lost", **QUIET)
            gr.Timer(TICK_SECONDS).tick(self._on_tick, [mine, seen], parts, **{**QUIET, "trigger_mode": "once"})
        page: gr.Blocks = blocks
        return page

    async def _on_load(self, mine: Any) -> tuple[Any, ...]:
        chat = mine if isinstance(mine, str) and _CHAT.fullmatch(mine) else token_hex(16)
        return chat, *await self._render(chat)

    async def _on_submit(self, mine: Any, text: str) -> tuple[Any, ...]:
        chat = mine if isinstance(mine, str) and _CHAT.fullmatch(mine) else token_hex(16)
        if text.strip():
            await self._web.submit(chat, text.strip()[: self._web.limit])
        return chat, *await self._render(chat)

    async def _on_tick(self, mine: Any, seen: PageState | None) -> tuple[Any, ...] | Any:
        if not isinstance(mine, str) or not _CHAT.fullmatch(mine) or self._page_state(mine) == seen:
            return gr.skip()
        return await self._render(mine)

    def _page_state(self, chat: str) -> PageState:
        loaded = self._responder.adapter
        return PageState(
            chat,
            self._web.revision(chat),
            tuple(self._web.revision(board) for board in self._boards),
            self._web.is_typing(chat),
            loaded.version if loaded else None,
        )

    async def _render(self, chat: str) -> tuple[Any, ...]:
        """Values for chat, heading, notice and seen."""
        seen = self._page_state(chat)  # before reading: what changes meanwhile is drawn at the next tick
        name, zone = self._config.persona.name, self._config.zone
        entries: list[HistoryMessage] = []
        for source in (chat, *self._boards):
            entries += await self._store.run(inbox.visible_messages, self._web.name, source, SHOWN)
        entries.sort(key=lambda entry: entry.at)
        return render_chat(entries[-SHOWN:], zone, name, typing=seen.typing), self._heading(), self._notice(), seen

    def _heading(self, quiz: str = "") -> str:
        """Who it is, how they are (or what is said of the quiz, on its page), and the way to the other page."""
        name = html.escape(self._config.persona.name)
        awake = self._responder.is_ready()
        dot, state = ("dot", tr("here")) if awake else ("dot waking", tr("waking up; your messages will be answered"))
        below = html.escape(quiz) if quiz else f'<span class="{dot}"></span>{html.escape(state)}'
        pages = (("../" if quiz else "./", tr("Chat"), not quiz), ("./" if quiz else "quiz/", tr("Quiz"), bool(quiz)))
        links = "".join(
            f'<a href="{path}"{" aria-current=page" if here else ""}>{html.escape(title)}</a>'
            for path, title, here in pages
        )
        return (
            f'<div class="row"><div class="face">{name[:1].upper()}</div><div><div class="name">{name}</div>'
            f'<div class="state">{below}</div></div><nav>{links}</nav></div>'
        )

    def _notice(self) -> str:
        loaded = self._responder.adapter
        local = tr("Imitates a person; what it says was not said by them. This chat stays on this machine.")
        version = tr("Adapter {version}.", version=loaded.version) if loaded else ""
        return f"<p>{html.escape(f'{local} {version}'.strip())}</p>"


def _mount(app: FastAPI, blocks: gr.Blocks, path: str, *styles: str) -> None:
    gr.mount_gradio_app(
        app,
        blocks,
        path=path,
        theme=gr.themes.Soft(primary_hue="indigo", font=_FONTS, font_mono=("ui-monospace", "monospace")),
        css_paths=[Path(__file__).with_name(name) for name in styles],
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
    )

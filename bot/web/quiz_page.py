"""The page of the blind quiz: questions that `doppel quiz --page` made, one at a time, and the score.

What is right stays on this side until the end. Knows the quiz's files; knows no engine, no chat and no store.
"""

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import msgspec

from bot.web import quiz_html as quiz_view
from doppel.adapters.versions import version_folder
from doppel.config import Config
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.reports.quiz import (
    MAX_NAME_LENGTH,
    QuestionSet,
    QuizSession,
    next_session,
    read_questions,
    read_results,
    save_result,
    score_answers,
)

QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "queue": False,
    "api_visibility": "private",
    "concurrency_limit": None,
    "trigger_mode": "multiple",
}
"""Events of a page: handled at once, shown by nothing but their result, no part of a public API."""

_ONCE = {**QUIET, "trigger_mode": "once"}  # a second click judges no question that nobody has read


class QuizState(msgspec.Struct, frozen=True):
    """A person at the quiz.

    Attributes:
        version: of the adapter.
        session: what they are asked.
        name: as they gave it; nothing before they began.
        verdicts: which replies they called real, so far.
        is_over: whether they answered all, or stopped.
        trouble: why their score could not be kept.
    """

    version: str
    session: QuizSession
    name: str = ""
    verdicts: tuple[bool, ...] = ()
    is_over: bool = False
    trouble: str = ""


class QuizPage:
    """The quiz about one persona.

    Args:
        config: says who it is, and where the questions and the adapters lie.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._saving = asyncio.Lock()

    def blocks(self, heading: str) -> gr.Blocks:
        """The page, under a heading (HTML)."""
        with gr.Blocks(title=self._config.persona.name, analytics_enabled=False, fill_height=True) as blocks:
            state = gr.State(None)
            gr.HTML(heading, elem_id="heading", js_on_load=None)
            view = gr.HTML("", elem_id="quiz", scale=1, js_on_load=None)
            with gr.Row(elem_id="begin", visible=False) as begin:
                name = gr.Textbox(
                    elem_id="name",
                    show_label=False,
                    container=False,
                    placeholder=tr("Your name"),
                    max_length=MAX_NAME_LENGTH,
                    scale=1,
                )
                start = gr.Button(tr("Start"), variant="primary", scale=0, elem_id="start")
            with gr.Row(elem_id="verdicts", visible=False) as verdicts:
                real = gr.Button(tr("Real"), elem_id="real", size="lg")
                generated = gr.Button(tr("Generated"), elem_id="generated", size="lg")
            stop = gr.Button(tr("Stop here"), elem_id="stop", size="sm", visible=False)
            again = gr.Button("", elem_id="again", visible=False)
            parts = [state, view, begin, verdicts, stop, again]
            blocks.load(self._on_load, None, parts, **QUIET)
            gr.on([start.click, name.submit], self._began, [state, name], parts, **_ONCE)
            real.click(self._called_real, [state], parts, **_ONCE)
            generated.click(self._called_generated, [state], parts, **_ONCE)
            stop.click(self._ended, [state], parts, **_ONCE)
            again.click(self._again, [state], parts, **_ONCE)
        page: gr.Blocks = blocks
        return page

    async def _on_load(self) -> tuple[Any, ...]:
        return self._render(await asyncio.to_thread(self._offered))

    async def _began(self, state: QuizState | None, name: str) -> tuple[Any, ...]:
        if state is None or state.name:
            return self._render(state)
        called = " ".join(name.split())[:MAX_NAME_LENGTH] or tr("somebody")
        return self._render(msgspec.structs.replace(state, name=called))

    async def _called_real(self, state: QuizState | None) -> tuple[Any, ...]:
        return await self._judged(state, is_real=True)

    async def _called_generated(self, state: QuizState | None) -> tuple[Any, ...]:
        return await self._judged(state, is_real=False)

    async def _judged(self, state: QuizState | None, *, is_real: bool) -> tuple[Any, ...]:
        if state is None or not state.name or state.is_over:
            return self._render(state)
        state = msgspec.structs.replace(state, verdicts=(*state.verdicts, is_real))
        if len(state.verdicts) < len(state.session.questions):
            return self._render(state)
        return await self._ended(state)

    async def _ended(self, state: QuizState | None) -> tuple[Any, ...]:
        if state is None or not state.name or state.is_over:
            return self._render(state)
        state = msgspec.structs.replace(state, is_over=True)
        return self._render(await self._kept(state) if state.verdicts else state)

    async def _again(self, state: QuizState | None) -> tuple[Any, ...]:
        if state is not None and state.trouble:
            return self._render(await self._kept(state))
        return await self._on_load()

    async def _kept(self, state: QuizState) -> QuizState:
        """Writes the score into the version; one at a time, for each is written beside those before."""
        quiz = score_answers(state.session, state.verdicts, state.name)
        await asyncio.to_thread(lambda: quiz.share)  # the first interval loads scipy, which takes a second
        trouble = ""
        async with self._saving:
            try:
                folder = version_folder(self._config.adapters_dir, state.version)
                await asyncio.to_thread(save_result, folder, quiz)
            except DoppelError as error:
                trouble = str(error)
        return msgspec.structs.replace(state, trouble=trouble)

    def _offered(self) -> QuizState | None:
        """A session for whoever opens the page; None when there is nothing to ask. Reads files."""
        offer = read_questions(self._config.data_dir)
        folder = None if offer is None else self._version(offer)
        if offer is None or folder is None:
            return None
        return QuizState(offer.version, next_session(offer, read_results(folder)))

    def _version(self, offer: QuestionSet) -> Path | None:
        """The version that the questions are about; None when it is gone."""
        try:
            return version_folder(self._config.adapters_dir, offer.version)
        except DoppelError:
            return None

    def _render(self, state: QuizState | None) -> tuple[Any, ...]:
        """Values for the state, the view, the fields of the beginning, the two answers, stop and again."""
        persona = self._config.persona.name
        if state is None:
            return None, quiz_view.nothing(), *_shown()
        asked = state.session.questions
        if not state.name:
            return state, quiz_view.beginning(persona, len(asked)), *_shown(begin=True)
        if not state.is_over:
            done = len(state.verdicts)
            return state, quiz_view.question(persona, asked[done], done + 1, len(asked)), *_shown(verdicts=True)
        label = tr("Keep it again") if state.trouble else tr("Once more, with others")
        if not state.verdicts:
            return state, quiz_view.stopped(), *_shown(again=label)
        quiz = score_answers(state.session, state.verdicts, state.name)
        view = quiz_view.ending(persona, quiz, state.session, state.verdicts, state.trouble)
        return state, view, *_shown(again=label)


def _shown(*, begin: bool = False, verdicts: bool = False, again: str = "") -> tuple[Any, ...]:
    return (
        gr.update(visible=begin),
        gr.update(visible=verdicts),
        gr.update(visible=verdicts),
        gr.update(visible=bool(again), value=again),
    )

"""The page of the blind quiz: the questions of `doppel quiz --page` one at a time, then the result.

The solutions stay on the server until the end.
"""

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import msgspec

from bot.web import quiz_html
from doppel.adapters.versions import version_folder
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.reports.quiz import (
    MAX_NAME_LENGTH,
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
"""Options of all events: handled at once, without progress display, not part of a public API."""

_ONCE = {**QUIET, "trigger_mode": "once"}  # so that a double click does not answer the next question


class QuizState(msgspec.Struct, frozen=True):
    """How far one person is.

    Attributes:
        version: adapter version that wrote the generated replies.
        session: the questions.
        name: the person's name; empty before they start.
        answers: the answers so far; True is "real".
        is_over: whether they answered all questions or stopped.
        error: why the result could not be saved; None if it was.
    """

    version: str
    session: QuizSession
    name: str = ""
    answers: tuple[bool, ...] = ()
    is_over: bool = False
    error: str | None = None


class QuizPage:
    """The quiz about one persona.

    Args:
        persona: name of the persona.
        data_dir: holds the questions.
        adapters_dir: holds the adapter version that the questions are about, and the results.
    """

    def __init__(self, persona: str, data_dir: Path, adapters_dir: Path) -> None:
        self._persona = persona
        self._data_dir = data_dir
        self._adapters_dir = adapters_dir

    def blocks(self, heading: str) -> gr.Blocks:
        """The page, below a heading (HTML)."""
        with gr.Blocks(title=self._persona, analytics_enabled=False, fill_height=True) as blocks:
            state = gr.State(None)
            gr.HTML(heading, elem_id="heading", js_on_load=None)
            view = gr.HTML("", elem_id="quiz", scale=1, js_on_load=None)
            with gr.Row(elem_id="begin", visible=False) as begin:
                name = gr.Textbox(
                    elem_id="name",
                    label=tr("Your name"),
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
            stop = gr.Button(tr("Stop"), elem_id="stop", size="sm", visible=False)
            again = gr.Button("", elem_id="again", visible=False)
            outputs = [state, view, begin, verdicts, stop, again]
            blocks.load(self._on_load, None, outputs, **QUIET)
            gr.on([start.click, name.submit], self._on_start, [state, name], outputs, **_ONCE)
            real.click(self._on_real, [state], outputs, **_ONCE)
            generated.click(self._on_generated, [state], outputs, **_ONCE)
            stop.click(self._on_stop, [state], outputs, **_ONCE)
            again.click(self._on_again, [state], outputs, **_ONCE)
        page: gr.Blocks = blocks
        return page

    async def _on_load(self) -> tuple[Any, ...]:
        return self._render(await asyncio.to_thread(self._new_session))

    async def _on_start(self, state: QuizState | None, name: str) -> tuple[Any, ...]:
        if state is None or state.name:
            return self._render(state)
        name = " ".join(name.split())[:MAX_NAME_LENGTH] or tr("Anonymous")
        return self._render(msgspec.structs.replace(state, name=name))

    async def _on_real(self, state: QuizState | None) -> tuple[Any, ...]:
        return await self._on_answer(state, is_real=True)

    async def _on_generated(self, state: QuizState | None) -> tuple[Any, ...]:
        return await self._on_answer(state, is_real=False)

    async def _on_answer(self, state: QuizState | None, *, is_real: bool) -> tuple[Any, ...]:
        if state is None or not state.name or state.is_over:
            return self._render(state)
        state = msgspec.structs.replace(state, answers=(*state.answers, is_real))
        if len(state.answers) < len(state.session.questions):
            return self._render(state)
        return await self._on_stop(state)

    async def _on_stop(self, state: QuizState | None) -> tuple[Any, ...]:
        if state is None or not state.name or state.is_over:
            return self._render(state)
        state = msgspec.structs.replace(state, is_over=True)
        return self._render(await self._save(state) if state.answers else state)

    async def _on_again(self, state: QuizState | None) -> tuple[Any, ...]:
        """Saves a result that could not be saved; otherwise begins a new session."""
        if state is not None and state.error is not None:
            return self._render(await self._save(state))
        return await self._on_load()

    async def _save(self, state: QuizState) -> QuizState:
        """Adds the result to those of the adapter version."""
        result = score_answers(state.session, state.answers, state.name)
        await asyncio.to_thread(lambda: result.share)  # the first interval loads scipy, which takes a second
        error = None
        try:
            folder = version_folder(self._adapters_dir, state.version)
            await asyncio.to_thread(save_result, folder, result)
        except DoppelError as failure:
            error = str(failure)
        return msgspec.structs.replace(state, error=error)

    def _new_session(self) -> QuizState | None:
        """A session for a person who opens the page; None if there are no questions. Reads files."""
        questions = read_questions(self._data_dir)
        if questions is None:
            return None
        try:
            folder = version_folder(self._adapters_dir, questions.version)
        except DoppelError:  # the version was deleted
            return None
        return QuizState(questions.version, next_session(questions, read_results(folder)))

    def _render(self, state: QuizState | None) -> tuple[Any, ...]:
        """Values for the outputs: state, view, name and start, the two answers, stop, again."""
        if state is None:
            return None, quiz_html.no_questions(), *_visibility()
        questions, done = state.session.questions, len(state.answers)
        if not state.name:
            return state, quiz_html.start_screen(self._persona, len(questions)), *_visibility(begin=True)
        if not state.is_over:
            screen = quiz_html.question_screen(self._persona, questions[done], done + 1, len(questions))
            return state, screen, *_visibility(verdicts=True)
        label = tr("Play again") if state.error is None else tr("Save again")
        if not state.answers:
            return state, quiz_html.stopped_screen(), *_visibility(again=label)
        result = score_answers(state.session, state.answers, state.name)
        screen = quiz_html.result_screen(self._persona, result, state.session, state.answers, state.error)
        return state, screen, *_visibility(again=label)


def _visibility(*, begin: bool = False, verdicts: bool = False, again: str = "") -> tuple[Any, ...]:
    return (
        gr.update(visible=begin),
        gr.update(visible=verdicts),
        gr.update(visible=verdicts),
        gr.update(visible=bool(again), value=again),
    )

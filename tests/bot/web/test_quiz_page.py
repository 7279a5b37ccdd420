"""The blind quiz in a real browser: questions one at a time, the result beside the adapter. Needs Chromium."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from bot.app import Daemon
from doppel.config import Config
from doppel.i18n import set_language
from doppel.reports.quiz import (
    QuestionSet,
    QuizQuestion,
    QuizSession,
    add_results_to_report,
    read_results,
    remove_questions,
    write_questions,
)
from doppel.transcript import ME, Turn
from tests.bot.browser import CHROMIUM, NO_CHROMIUM, low_contrast
from tests.bot.harness import FakeEngine
from tests.bot.web.test_chat_page import config as config  # noqa: PLC0414 a fixture
from tests.bot.web.test_chat_page import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]

REAL = (True, False, True, False)


def session(seed: int) -> QuizSession:
    context = (Turn("Ramito", ("are you <b>there</b>?", "${1+1}")), Turn(ME, ("here",)), Turn("Ramito", ("lunch?",)))
    return QuizSession(
        seed, tuple(QuizQuestion(context, (f"at {seed}.{place}", "ok"), one) for place, one in enumerate(REAL))
    )


@pytest.fixture
def folder(config: Config) -> Path:
    """Of the version that the questions are about."""
    config.data_dir.mkdir(parents=True)
    write_questions(config.data_dir, QuestionSet("0001", (session(0), session(1))))
    return config.adapters_dir / "0001"


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def open_quiz(browser: Browser, daemon: Daemon, **context: Any) -> Page:
    """The quiz in a browser context of its own; `context`: its options, such as `color_scheme`."""
    page = await (await browser.new_context(**context)).new_page()
    page.set_default_timeout(30_000)
    await page.goto(f"http://127.0.0.1:{daemon.port}/quiz")
    await page.locator("#quiz p").first.wait_for()
    return page


async def answer(page: Page, *answers: bool) -> None:
    """Answers the next questions; True is "real"."""
    for number, is_real in enumerate(answers, 1):
        await expect(page.locator("#quiz .progress")).to_contain_text(f"{number} / {len(REAL)}")
        await page.locator("#real" if is_real else "#generated").click()


async def test_a_friend_answers_and_the_adapter_stays_as_it_is(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    before = content_of(folder)
    async with running(config, engine) as daemon:
        page = await open_quiz(browser, daemon)
        await expect(page.locator("#quiz")).to_contain_text("Did Mira write it, or was it generated? 4 questions")
        await page.locator("#name textarea, #name input").first.fill("  jo  <i>smith</i> ")
        await page.locator("#start").click()
        await expect(page.locator("#quiz .left").nth(1)).to_have_text("are you <b>there</b>?")
        await expect(page.locator("#quiz .bubble.asked")).to_have_text(["at 0.0", "ok"])
        assert "generated</span>" not in await page.content()  # the solution is not in the page before the end
        await answer(page, True, True, True, False)
        await expect(page.locator("#quiz .score")).to_have_text("3 / 4")
        await expect(page.locator("#quiz .ending")).to_contain_text("3 of 4 right, 75.0% [30.1%, 95.4%]")
        await expect(page.locator("#quiz .verdict")).to_have_text("It could be guessing")
        await expect(page.locator("#quiz li.wrong")).to_have_count(1)
        await expect(page.locator("#quiz li.wrong .was")).to_have_text("generated")

        (result,) = read_results(folder)
        assert (result.name, result.seed, result.judged, result.correct) == ("jo <i>smith</i>", 0, 4, 3)
        assert (result.generated, result.taken_for_real) == (2, 1)
        assert content_of(folder) == before

        await page.locator("#again").click()
        await page.locator("#start").click()  # without a name
        await expect(page.locator("#quiz .bubble.asked")).to_have_text(["at 1.0", "ok"])
        await answer(page, False)
        await expect(page.locator("#quiz .progress")).to_contain_text("2 / 4")
        await page.locator("#stop").click()
        await expect(page.locator("#quiz .score")).to_have_text("0 / 1")
        assert [(one.name, one.seed, one.judged) for one in read_results(folder)[1:]] == [("jo <i>smith</i>", 1, 1)]
        await page.locator("#heading nav a").first.click()
        await expect(page.locator("#text textarea")).to_be_visible()


async def test_without_questions_it_names_the_command(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    remove_questions(config.data_dir)
    async with running(config, engine) as daemon:
        page = await open_quiz(browser, daemon)
        await expect(page.locator("#quiz")).to_have_text("No questions yet. Run doppel quiz --page to create them.")
        await expect(page.locator("#start")).to_be_hidden()
        write_questions(config.data_dir, QuestionSet("0007", (session(0),)))
        await page.reload()  # about a version that is gone
        await expect(page.locator("#quiz")).to_contain_text("No questions yet")
        write_questions(config.data_dir, QuestionSet("0001", (session(0),)))
        await page.reload()
        await expect(page.locator("#start")).to_be_visible()


async def test_a_result_that_cannot_be_saved_is_not_lost(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    set_language("zh")
    in_the_way = folder.parent / "quiz"
    async with running(config, engine) as daemon:
        page = await open_quiz(browser, daemon)
        await expect(page.locator("#heading .state")).to_have_text("盲测")
        await page.locator("#start").click()
        in_the_way.touch()
        await answer(page, *REAL)
        await expect(page.locator("#quiz .error")).to_contain_text("没有保存：")
        assert read_results(folder) == []
        in_the_way.unlink()
        await page.locator("#again").get_by_text("重新保存").click()
        await expect(page.locator("#quiz .ending")).to_contain_text("成绩已保存")
        assert [(result.name, result.correct) for result in read_results(folder)] == [("匿名", 4)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_is_readable(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser, scheme: str
) -> None:
    expect.set_options(timeout=30_000)
    async with running(config, engine) as daemon:
        page = await open_quiz(browser, daemon, color_scheme=scheme)
        await expect(page.locator("html")).to_have_attribute("lang", "en")
        await expect(page.locator("#start")).to_be_visible()
        assert await low_contrast(page) == []
        await page.locator("#start").click()
        await answer(page, True, True)
        await expect(page.locator("#quiz .progress")).to_contain_text("3 / 4")
        assert await low_contrast(page) == []
        await page.locator("#stop").click()
        await expect(page.locator("#quiz li.wrong .was")).to_be_visible()
        assert await low_contrast(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_answer_under_the_pointer_is_readable_and_does_not_look_chosen(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser, scheme: str
) -> None:
    expect.set_options(timeout=30_000)
    async with running(config, engine) as daemon:
        page = await open_quiz(browser, daemon, color_scheme=scheme)
        await page.locator("#start").click()
        await answer(page, True)  # the pointer stays where the next question's answers appear
        await expect(page.locator("#quiz .progress")).to_contain_text("2 / 4")
        await page.locator("#real").hover()
        await page.wait_for_timeout(500)  # Gradio animates the change
        style = "(element) => { const s = getComputedStyle(element); return [s.color, s.backgroundColor]; }"
        assert await page.locator("#real").evaluate(style) == await page.locator("#generated").evaluate(style)
        assert await low_contrast(page) == []


async def test_quiz_stopped_before_a_generated_reply_does_not_count_none_of_none(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    async with running(config, engine) as daemon:
        page = await open_quiz(browser, daemon)
        await page.locator("#start").click()
        await answer(page, True)
        await expect(page.locator("#quiz .progress")).to_contain_text("2 / 4")
        await page.locator("#stop").click()
        await expect(page.locator("#quiz .ending")).to_contain_text("Anonymous: 1 of 1 right")
        await expect(page.locator("#quiz .ending")).not_to_contain_text("0 of 0")
        add_results_to_report(folder)
        assert "0 / 0" not in (folder / "report.html").read_text(encoding="utf-8")

"""The blind quiz in a real browser: questions one at a time, the score in the adapter's record. Needs Chromium."""

import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from bot.app import Daemon
from doppel.adapters.versions import read_manifest
from doppel.config import Config
from doppel.i18n import set_language
from doppel.reports.metrics import FIDELITY_FILE
from doppel.reports.quiz import (
    QUESTIONS_FILE,
    QuestionSet,
    QuizQuestion,
    QuizSession,
    read_results,
    remove_questions,
    write_questions,
)
from doppel.transcript import ME, Turn
from tests.bot.browser import CHROMIUM, NO_CHROMIUM
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


async def opened(browser: Browser, daemon: Daemon) -> Page:
    """The quiz in a context of its own."""
    page = await (await browser.new_context()).new_page()
    page.set_default_timeout(30_000)
    await page.goto(f"http://127.0.0.1:{daemon.port}/quiz")
    await page.locator("#quiz p").first.wait_for()
    return page


async def answer(page: Page, *verdicts: bool) -> None:
    for number, verdict in enumerate(verdicts, 1):
        await expect(page.locator("#quiz .progress")).to_contain_text(f"{number} / {len(REAL)}")
        await page.locator("#real" if verdict else "#generated").click()


async def test_a_friend_judges_and_the_score_joins_the_report(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    async with running(config, engine) as daemon:
        page = await opened(browser, daemon)
        await expect(page.locator("#quiz")).to_contain_text("Did Mira write it, or was it generated? 4 questions")
        await page.locator("#name textarea, #name input").first.fill("  jo  <i>smith</i> ")
        await page.locator("#start").click()
        await expect(page.locator("#quiz .left").nth(1)).to_have_text("are you <b>there</b>?")
        await expect(page.locator("#quiz .bubble.asked")).to_have_text(["at 0.0", "ok"])
        assert "generated</span>" not in await page.content()  # what is right is not in the page before the end
        await answer(page, True, True, True, False)
        await expect(page.locator("#quiz .score")).to_have_text("3 / 4")
        await expect(page.locator("#quiz .ending")).to_contain_text("3 of 4 right, 75.0% [30.1%, 95.4%]")
        await expect(page.locator("#quiz .verdict")).to_have_text("It could be guessing")
        await expect(page.locator("#quiz li.wrong")).to_have_count(1)
        await expect(page.locator("#quiz li.wrong .was")).to_have_text("generated")

        (result,) = read_results(folder)
        assert (result.name, result.seed, result.judged, result.correct) == ("jo <i>smith</i>", 0, 4, 3)
        assert (result.generated, result.taken_for_real) == (2, 1)
        assert json.loads((folder / FIDELITY_FILE).read_text(encoding="utf-8"))["figures"]["quiz"]["value"] == 0.75
        assert read_manifest(folder).fidelity["figures"]["quiz"] == 0.75
        report = (folder / "report.html").read_text(encoding="utf-8")
        assert "jo &lt;i&gt;smith&lt;/i&gt;" in report
        assert "75.0% [30.1%, 95.4%]" in report
        assert not (folder / QUESTIONS_FILE).exists()

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
        page = await opened(browser, daemon)
        await expect(page.locator("#quiz")).to_have_text("Nothing to ask yet: doppel quiz --page makes the questions.")
        await expect(page.locator("#start")).to_be_hidden()
        write_questions(config.data_dir, QuestionSet("0007", (session(0),)))
        await page.reload()  # about a version that is gone
        await expect(page.locator("#quiz")).to_contain_text("Nothing to ask yet")
        write_questions(config.data_dir, QuestionSet("0001", (session(0),)))
        await page.reload()
        await expect(page.locator("#start")).to_be_visible()


async def test_a_score_that_cannot_be_kept_is_not_lost(
    config: Config, folder: Path, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    set_language("zh")
    habits = (folder / "habits.json").read_bytes()
    async with running(config, engine) as daemon:
        page = await opened(browser, daemon)
        await expect(page.locator("#heading .state")).to_have_text("盲测")
        await page.locator("#start").click()
        (folder / "habits.json").write_text("{}", encoding="utf-8")
        await answer(page, *REAL)
        await expect(page.locator("#quiz .trouble")).to_contain_text("没有存下：")
        assert read_results(folder) == []
        (folder / "habits.json").write_bytes(habits)
        await page.locator("#again").get_by_text("再存一次").click()
        await expect(page.locator("#quiz .ending")).to_contain_text("成绩已写进这个版本的报告")
        assert [(one.name, one.correct) for one in read_results(folder)] == [("某人", 4)]

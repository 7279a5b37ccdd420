"""The chat page in a real browser: a message is typed, the reply is read, and the page looks right. Needs Chromium."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from bot.app import Daemon, Dependencies
from bot.clock import Clock, SystemClock
from bot.web import PLUGIN
from bot.web.server import listen
from doppel.adapters.habits import Habits
from doppel.config import Config
from doppel.i18n import set_language
from doppel.plugins import platform_settings
from tests.bot.browser import CHROMIUM, NO_CHROMIUM, low_contrast, open_chat, send_message
from tests.bot.harness import FakeEngine, config_in, publish

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    posts = [{"name": "thoughts", "to": "web:posts", "every": "1000d"}]
    config = config_in(
        tmp_path, persona={"name": "Mira"}, web={"port": port}, reply={"debounce_seconds": 0}, posts=posts
    )
    publish(config, habits=Habits(seconds_per_character=0.05))
    return config


def page_port(config: Config) -> int:
    return platform_settings(PLUGIN, config.platforms).port


WIDE: Any = {"width": 1280, "height": 800}
PHONE: Any = {"width": 390, "height": 800}


async def publish_post(daemon: Daemon) -> None:
    (schedule,) = daemon._scheduler._schedules
    await schedule._make_post(daemon._dependencies.clock.now())


async def box(page: Page, selector: str) -> tuple[float, float]:
    """Left and right edge of an element."""
    bounds = await page.locator(selector).first.bounding_box()
    assert bounds is not None
    return bounds["x"], bounds["x"] + bounds["width"]


@asynccontextmanager
async def running(
    config: Config, engine: FakeEngine, environ: Mapping[str, str] | None = None, clock: Clock | None = None
) -> AsyncIterator[Daemon]:
    stop = asyncio.Event()
    around = Dependencies(dict(environ or {}), {"web": PLUGIN}, lambda _: engine, clock or SystemClock(), Random(1))
    daemon = Daemon(config, around)
    task = asyncio.create_task(daemon.run(stop))
    try:
        yield daemon
    finally:
        stop.set()
        await task


async def test_message_is_typed_and_the_reply_is_read(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    engine.gate.clear()
    engine.turns = [["hi there", "how are you <b>today</b>?"]]
    requests: list[str] = []
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port, requests)
        await expect(page).to_have_title("Mira")
        await expect(page.locator("#heading .state")).to_have_text("online")
        await send_message(page, "hello ${1+1} {{value}} <img src=x onerror=alert(1)>")
        await expect(page.locator("#chat .mine")).to_contain_text("hello ${1+1} {{value}} <img src=x onerror=alert(1)>")
        await expect(page.locator("#text textarea")).to_have_value("")
        await expect(page.locator("#chat .typing")).to_be_visible()
        engine.gate.set()
        theirs = page.locator("#chat .theirs:not(.typing)")
        await expect(theirs.nth(0)).to_contain_text("hi there")
        await expect(theirs.nth(1)).to_contain_text("how are you <b>today</b>?")
        await expect(page.locator("#chat .typing")).to_have_count(0)
        await expect(page.locator("#notice")).to_contain_text("Adapter 0001.")
        await page.reload()
        await expect(theirs.nth(1)).to_contain_text("today")
        await expect(page.locator("#chat .mine")).to_have_count(1)
    assert requests
    assert [
        one for one in requests if not one.startswith((f"http://127.0.0.1:{page_port(config)}/", "data:", "blob:"))
    ] == []


async def test_messages_in_quick_succession_all_arrive(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["first"], ["second"], ["third"]]
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port)
        for text in ("one", "two", "three", "three"):
            await send_message(page, text)
            await expect(page.locator("#text textarea")).to_have_value("")  # as whoever types sees it
        await expect(page.locator("#chat .mine")).to_have_count(4)
        # Not innerText, which is empty for a moment while the page is rendered again.
        texts = await page.locator("#chat .mine").all_text_contents()
    assert sorted(text.split()[0] for text in texts) == ["one", "three", "three", "two"]


async def test_every_browser_has_its_own_chat_and_all_see_posts(
    config: Config, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["for one"]]
    async with running(config, engine) as daemon:
        first, second = await asyncio.gather(open_chat(browser, daemon.port), open_chat(browser, daemon.port))
        await send_message(first, "hello")
        await expect(first.locator("#chat .theirs:not(.typing)")).to_contain_text("for one")
        await expect(second.locator("#chat .bubble")).to_have_count(0)
        engine.turns = [["what a day"]]
        await publish_post(daemon)
        for page in (first, second):
            await expect(page.locator("#chat .post")).to_contain_text("what a day")


async def test_what_is_typed_while_the_daemon_is_away_stays_in_the_field(
    config: Config, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["before"], ["after"]]
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port)
        await send_message(page, "one")
        await expect(page.locator("#chat .theirs:not(.typing)")).to_contain_text("before")
    await send_message(page, "two")
    await expect(page.locator("#text textarea")).to_have_value("two")  # it was not taken, so it is not lost
    async with running(config, engine):
        await page.reload()
        await expect(page.locator("#heading .state")).to_have_text("online")
        await send_message(page, "two")
        await expect(page.locator("#chat .theirs:not(.typing)").nth(1)).to_contain_text("after")


async def test_message_whose_confirmation_is_lost_is_stored_once(
    config: Config, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=60_000)
    engine.gate.clear()  # no reply changes the page meanwhile
    lost: list[str] = []

    async def lose_the_first(route: Route) -> None:
        if "one and only" in (route.request.post_data or "") and not lost:
            lost.append("")
            await route.fetch()  # it arrives
            await route.abort()
        else:
            await route.continue_()

    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port)
        await page.route("**/run/predict", lose_the_first)
        field = page.locator("#text textarea")
        await send_message(page, "one and only")
        await expect(page.locator("#chat .mine")).to_have_count(1)  # after Gradio has reloaded the page
        await expect(field).to_have_value("one and only")
        await field.press("End")
        await field.press("Shift+Enter")
        await field.press_sequentially("and another")
        await field.press("Enter")
        await expect(field).to_have_value("")
        await expect(page.locator("#chat .mine")).to_contain_text(["one and only", "and another"])


async def test_text_in_the_field_outlives_a_reload(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port)
        await page.locator("#text textarea").fill("not yet")
        await page.reload()
        await expect(page.locator("#text textarea")).to_have_value("not yet")
        await page.locator("#heading nav a").nth(1).click()
        await expect(page.locator("#quiz")).to_contain_text("No questions yet")
        await page.locator("#heading nav a").first.click()
        await expect(page.locator("#text textarea")).to_have_value("not yet")


async def test_chinese_page_says_that_the_persona_is_starting(
    config: Config, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    set_language("zh")
    pending_messages = asyncio.Event()
    load = engine.load_adapter

    async def load_later(folder: Path) -> str:
        await pending_messages.wait()
        return await load(folder)

    engine.load_adapter = load_later  # type: ignore[method-assign]
    engine.turns = [["早上好"]]
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port)
        await expect(page.locator("#heading .state")).to_have_text("正在启动，稍后会回复你的消息")
        await expect(page.locator("#text textarea")).to_have_attribute("placeholder", "消息")
        await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        await send_message(page, "你好")
        pending_messages.set()
        await expect(page.locator("#heading .state")).to_have_text("在线")
        await expect(page.locator("#chat .theirs:not(.typing)")).to_contain_text("早上好")


async def test_messages_are_in_one_narrow_column(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["hi"]]
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port, viewport=WIDE)
        await send_message(page, "hello")
        await expect(page.locator("#chat .theirs:not(.typing)")).to_contain_text("hi")
        (reply_left, _), (_, question_right) = await box(page, "#chat .theirs"), await box(page, "#chat .mine")
        assert question_right - reply_left <= 760
        assert reply_left - (1280 - question_right) == pytest.approx(0, abs=1)
        assert await box(page, "#heading") == await box(page, "#text") == (reply_left, question_right)
        await page.set_viewport_size(PHONE)
        assert await box(page, "#heading") == await box(page, "#text") == (16, 390 - 16)
        assert (await box(page, "#chat .theirs"))[0] == 16
        assert (await box(page, "#chat .mine"))[1] == 390 - 16


async def test_rule_below_the_heading_is_straight(config: Config, engine: FakeEngine, browser: Browser) -> None:
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port)
        style = "(element) => [getComputedStyle(element).borderRadius, getComputedStyle(element).borderBottomWidth]"
        assert await page.locator("#heading").evaluate(style) == ["0px", "1px"]


async def test_empty_chat_shows_one_hint_in_the_middle(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port, viewport=WIDE)
        hint = page.get_by_text("Say something to Mira.")
        await expect(hint).to_have_count(1)
        hint_box, chat_box = await hint.bounding_box(), await page.locator("#chat").bounding_box()
        assert hint_box is not None
        assert chat_box is not None
        assert hint_box["x"] + hint_box["width"] / 2 == pytest.approx(chat_box["x"] + chat_box["width"] / 2, abs=2)
        assert hint_box["y"] + hint_box["height"] / 2 == pytest.approx(chat_box["y"] + chat_box["height"] / 2, abs=2)


async def test_post_has_one_label(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port)
        await expect(page.locator("#heading .state")).to_have_text("online")
        engine.turns = [["what a day", "it rained again"]]
        await publish_post(daemon)
        await expect(page.locator("#chat .post p")).to_have_text(["what a day", "it rained again"])
        await expect(page.locator("#chat .post .label")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_is_readable(config: Config, engine: FakeEngine, browser: Browser, scheme: str) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["hi"]]
    async with running(config, engine) as daemon:
        page = await open_chat(browser, daemon.port, color_scheme=scheme)
        await expect(page.locator("html")).to_have_attribute("lang", "en")
        await expect(page.locator("#notice")).to_contain_text("Adapter 0001.")
        assert await low_contrast(page) == []  # the hint of an empty chat
        await send_message(page, "hello")
        await expect(page.locator("#chat .theirs:not(.typing)")).to_contain_text("hi")
        engine.turns = [["what a day"]]
        await publish_post(daemon)
        await expect(page.locator("#chat .post")).to_contain_text("what a day")
        assert await low_contrast(page) == []


async def test_contrast_of_a_grey_text_is_measured(browser: Browser) -> None:
    page = await browser.new_page()
    await page.set_content('<body style="background:#f9fafb"><p style="color:#9ca3af">grey</p><p>black</p></body>')
    assert await low_contrast(page) == ["grey: 2.43"]
